// SPDX-License-Identifier: GPL-2.0

//! Makes the VM's free memory a heap of crumbs, in the same way each time.
//!
//! A process takes most of the memory, page by page, and gives back about half of it, chosen without a pattern in crumbs
//! of so many pages. It then stays, holding the rest. It keeps what lies where KHO will put the next kernel, too: from
//! there PRESERVE_FD would have to move it, and what is measured would be that.

use super::memory;
use super::ram::{mix, PAGE};
use crate::frames;
use crate::process::Child;
use anyhow::{ensure, Result};
use nix::errno::Errno;
use std::time::Duration;

/// What is left alone, for everyone else.
const SPARED: i64 = 256 << 20;
/// How long it may take: minutes, where instructions are counted.
const TIMEOUT: Duration = Duration::from_secs(1200);

/// Does it. The memory is whole again when the result is dropped.
pub fn fragment(crumb: u32) -> Result<Child> {
    let crumb = crumb as usize * PAGE;
    Child::service(
        TIMEOUT,
        || take_and_give_back(crumb),
        |()| loop {
            nix::unistd::pause();
        },
    )
}

/// The mapping is never undone: it ends with the process.
fn take_and_give_back(crumb: usize) -> Result<()> {
    let len = usize::try_from(memory::available_bytes()? - SPARED)? / crumb * crumb;
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a new mapping, wherever the kernel likes.
    let start = unsafe { libc::mmap(std::ptr::null_mut(), len, protection, flags, -1, 0) };
    ensure!(start != libc::MAP_FAILED, "mmap: {}", Errno::last());
    let advise = |offset: usize, len: usize, advice| {
        // SAFETY: within the mapping made above, in which nobody has anything.
        Errno::result(unsafe { libc::madvise(start.byte_add(offset), len, advice) })
    };
    advise(0, len, libc::MADV_NOHUGEPAGE)?;
    advise(0, len, libc::MADV_POPULATE_WRITE)?;
    let frames = frames::of_mapping(start as usize, len / PAGE)?;
    let scratch = frames::scratch()?;
    for (index, frames) in frames.chunks(crumb / PAGE).enumerate() {
        let is_scratch = |frame: &u64| scratch.iter().any(|area| area.contains(frame));
        if mix(index as u64) & 1 == 0 && !frames.iter().any(is_scratch) {
            advise(index * crumb, crumb, libc::MADV_DONTNEED)?;
        }
    }
    Ok(())
}

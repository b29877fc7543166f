// SPDX-License-Identifier: GPL-2.0

//! Who pays for the pages of a retrieved memfd that are brought in to make a large folio of them, where none comes of it.

use super::common::cgroup::Cgroup;
use super::common::data::{self, whole};
use super::common::luo::Device;
use super::common::memfd::Mapping;
use super::common::pages::PAGE;
use super::common::{memfd, only_ours, refused, seen, where_all_is_committed};
use crate::ctx::Ctx;
use crate::process::Child;
use crate::test::{Config, Test};
use anyhow::{ensure, Result};
use nix::errno::Errno;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// The cases.
pub const TESTS: &[Test] = &[Test::new("in_vain", Config::new(), &[preserve, collapse])];

const SESSION: &str = "collapsed";
const SEED: u64 = 8;
/// Of a large folio.
const SIZE: u64 = 2 << 20;
/// What there is of it. The rest are holes.
const FILLED: u64 = SIZE / 2;

fn preserve(ctx: &mut Ctx) -> Result<()> {
    let session = Device::open()?.create_session(SESSION)?;
    let file = memfd::create(SIZE)?;
    data::fill(&file, SEED, whole(FILLED))?;
    session.preserve(&file, 1)?;
    ctx.keep(session);
    Ok(())
}

/// Somebody else has it done for a process, as khugepaged does. The pages are brought in, and then there is nothing left to
/// commit to the holes: the pages stay as they are, and the process pays.
fn collapse(ctx: &mut Ctx) -> Result<()> {
    only_ours(ctx, "all is brought in, and charged, by RETRIEVE_FD there")?;
    let session = Device::open()?.retrieve_session(SESSION)?;
    let file = session.retrieve(1)?;
    ensure!(seen::resident(&file)? == 0, "it is there already");
    let map = Mapping::aligned(&file, SIZE as usize, SIZE as usize)?;
    let payer = Cgroup::new("payer")?;
    // With the same mapping, at the same address.
    let user = Child::holder(|| payer.enter())?;

    let collapsed = where_all_is_committed(|| loop {
        match collapse_for(&user, &map) {
            // What was just brought in is on its way to its LRU list.
            Err(Errno::EAGAIN) => {}
            done => break done,
        }
    })?;
    refused("MADV_COLLAPSE", collapsed, Errno::EINVAL)?;

    let resident = seen::resident(&file)?;
    ensure!(
        resident == FILLED as usize / PAGE,
        "{resident} pages were brought in"
    );
    payer.is_charged(ctx, FILLED)?;
    data::check(&file, SEED, SIZE, &[whole(FILLED)])?;
    Ok(session.finish()?)
}

/// MADV_COLLAPSE of what another process has mapped there.
fn collapse_for(user: &Child, map: &Mapping) -> Result<(), Errno> {
    let part = libc::iovec {
        iov_base: map.address() as *mut libc::c_void,
        iov_len: SIZE as usize,
    };
    // SAFETY: it takes a number, and gives a descriptor that is nobody else's.
    let process = unsafe {
        let fd = libc::syscall(libc::SYS_pidfd_open, user.pid().as_raw(), 0);
        OwnedFd::from_raw_fd(Errno::result(fd)? as i32)
    };
    // SAFETY: it reads one entry, and advice leaves what is in the other process's memory as it is.
    let done = unsafe {
        libc::syscall(
            libc::SYS_process_madvise,
            process.as_raw_fd(),
            &part,
            1,
            memfd::MADV_COLLAPSE,
            0,
        )
    };
    Errno::result(done).map(drop)
}

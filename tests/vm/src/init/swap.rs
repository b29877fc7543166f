// SPDX-License-Identifier: GPL-2.0

//! Swap devices.

use anyhow::{Context, Result};
use nix::errno::Errno;
use std::ffi::CString;
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;

const PAGE: u64 = 4096;

/// Swaps to zram, to this many MiB of data.
pub fn zram(mib: u32) -> Result<()> {
    let size = u64::from(mib) << 20;
    std::fs::write("/sys/block/zram0/disksize", size.to_string()).context("zram's disksize")?;
    start("/dev/zram0", size)
}

/// Swaps to this device, of so many bytes.
pub fn start(device: &str, size: u64) -> Result<()> {
    make_swap(device, size)?;
    let name = CString::new(device)?;
    // SAFETY: a string that ends in NUL.
    Errno::result(unsafe { libc::swapon(name.as_ptr(), 0) }).context("swapon")?;
    Ok(())
}

/// What mkswap writes: version 1, the last page's number, no bad pages, the magic word at the end of the page.
fn make_swap(device: &str, size: u64) -> Result<()> {
    let mut header = [0; PAGE as usize];
    header[1024..1028].copy_from_slice(&1u32.to_le_bytes());
    header[1028..1032].copy_from_slice(&((size / PAGE - 1) as u32).to_le_bytes());
    header[PAGE as usize - 10..].copy_from_slice(b"SWAPSPACE2");
    let file = OpenOptions::new()
        .write(true)
        .open(device)
        .context("opening the swap device")?;
    file.write_all_at(&header, 0)
        .context("writing the swap header")
}

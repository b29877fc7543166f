// SPDX-License-Identifier: GPL-2.0

//! Somebody without any right, and root without capabilities.

use crate::process::Child;
use anyhow::{ensure, Context, Result};
use nix::errno::Errno;
use nix::unistd::{setresgid, setresuid, Gid, Uid};
use std::time::Duration;

const NOBODY: u32 = 65534;
const PATIENCE: Duration = Duration::from_secs(60);

/// Becomes somebody without any right: to be done in a child process.
fn drop_rights() -> Result<()> {
    nix::unistd::setgroups(&[])?;
    let (gid, uid) = (Gid::from_raw(NOBODY), Uid::from_raw(NOBODY));
    setresgid(gid, gid, gid)?;
    // With the last user id of root go all capabilities.
    setresuid(uid, uid, uid)?;
    Ok(())
}

/// Does something as somebody without any right.
pub fn as_nobody(body: impl FnOnce() -> Result<()>) -> Result<()> {
    Child::run(PATIENCE, || drop_rights().and_then(|()| body())).context("as nobody")
}

/// `_LINUX_CAPABILITY_VERSION_3`: of sets of 64.
const CAPABILITIES: u32 = 0x2008_0522;

/// Gives up all capabilities, and none of the user ids.
fn drop_capabilities() -> Result<()> {
    // The version, for this process; and three empty sets in two halves.
    let header = [CAPABILITIES, 0];
    let sets = [[0u32; 3]; 2];
    // SAFETY: the kernel reads what is ours, and as much as this version has.
    let done = unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), sets.as_ptr()) };
    Errno::result(done).context("capset")?;
    let status = std::fs::read_to_string("/proc/self/status")?;
    ensure!(status.contains("CapEff:\t0000000000000000\n"), "{status}");
    Ok(())
}

/// Does something as root who has no capability.
pub fn as_bare_root(body: impl FnOnce() -> Result<()>) -> Result<()> {
    let bare = || drop_capabilities().and_then(|()| body());
    Child::run(PATIENCE, bare).context("as root without capabilities")
}

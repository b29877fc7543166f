// SPDX-License-Identifier: GPL-2.0

//! Somebody without any right.

use crate::process::Child;
use anyhow::{Context, Result};
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

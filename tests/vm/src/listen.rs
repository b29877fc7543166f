// SPDX-License-Identifier: GPL-2.0

//! A program that takes descriptors as sd_listen_fds(3) does, and says what it got.

use crate::procfs;
use anyhow::{ensure, Context, Result};
use nix::errno::Errno;
use nix::sys::wait::{waitpid, WaitPidFlag};
use std::fs::File;
use std::io::Write;

/// Prints the names of the descriptors in a line, in the next one the positions of the files, then their contents.
///
/// Fails if it has a child: it has started none.
pub fn run() -> Result<()> {
    let child = waitpid(None, Some(WaitPidFlag::WNOHANG));
    ensure!(child == Err(Errno::ECHILD), "a child process: {child:?}");
    let variable = |name: &str| std::env::var(name).context(name.to_string());
    let pid: u32 = variable("LISTEN_PID")?.parse()?;
    ensure!(pid == std::process::id(), "they are for process {pid}");
    let count: u32 = variable("LISTEN_FDS")?.parse()?;
    let mut out = std::io::stdout();
    writeln!(out, "{}", variable("LISTEN_FDNAMES")?)?;
    let position = |fd| procfs::number_in(&format!("/proc/self/fdinfo/{fd}"), "pos:");
    let fds = 3..3 + count;
    let positions = fds.clone().map(position).collect::<Result<Vec<_>>>()?;
    writeln!(out, "{positions:?}")?;
    for fd in fds {
        // By its path, which does not move the position of the file that was handed over.
        std::io::copy(&mut File::open(format!("/proc/self/fd/{fd}"))?, &mut out)?;
    }
    let extra = format!("/proc/self/fd/{}", 3 + count);
    ensure!(std::fs::read_link(&extra).is_err(), "{extra} is open, too");
    Ok(())
}

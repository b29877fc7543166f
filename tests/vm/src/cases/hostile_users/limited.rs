// SPDX-License-Identifier: GPL-2.0

//! A process with 64 MiB of memory makes as much as it can: it meets its limit, and nobody else does.

use super::super::common::cgroup::Cgroup;
use super::super::common::luo::{Device, Session};
use super::super::common::{memfd, only_ours, raise_fd_limit, still_works};
use crate::ctx::Ctx;
use crate::process::{Child, Said};
use anyhow::{bail, ensure, Context, Result};
use nix::errno::Errno;
use std::cell::OnceCell;
use std::fs::File;
use std::io::Write;
use std::time::{Duration, Instant};

pub const LIMIT: u64 = 64 << 20;
pub const PATIENCE: Duration = Duration::from_secs(180);
/// How often it is looked how much memory is left.
const LOOK: Duration = Duration::from_millis(20);
/// The most descriptors that a process may have: far more than what 64 MiB are enough for.
const FDS: u64 = 1 << 20;

/// Lets `more` do something until that fails, in a process that is limited. What it gave is held until then.
fn until_full<T>(ctx: &Ctx, what: &str, more: impl Fn(&[T]) -> Result<T, Errno>) -> Result<()> {
    only_ours(ctx, "charges nobody")?;
    raise_fd_limit(FDS)?;
    let free = ctx.free_kib()?;
    let group = Cgroup::new("limited")?;
    group.limit(Some(LIMIT))?;
    let mut child = Child::spawn(|pipe| {
        if let Err(err) = group.enter() {
            let _ = writeln!(pipe, "{err:#}");
            return;
        }
        let mut held = Vec::new();
        let errno = loop {
            match more(&held) {
                Ok(it) => held.push(it),
                Err(errno) => break errno,
            }
        };
        let _ = writeln!(pipe, "{errno:?} {}", held.len());
        nix::unistd::pause();
    })?;
    let (said, taken) = watch(ctx, &mut child, free)?;
    let end = match said {
        Said::Line(line) => {
            let (errno, count) = line.split_once(' ').context(line.clone())?;
            ensure!(errno == "ENOMEM", "{line}");
            ensure!(count.parse::<u64>()? > 1000, "{line}");
            line
        }
        Said::Ended => {
            let killed = group.events("oom_kill")?;
            ensure!(killed == 1, "{killed} were killed for want of memory");
            "killed".into()
        }
        Said::Late => bail!("it goes on for ever"),
    };
    let most = (LIMIT >> 10) + (16 << 10);
    ensure!(taken <= most, "it took {taken} KiB");
    ctx.figure(&format!("{what} in 64 MiB: {end}, {taken} KiB taken"));
    others_go_on(ctx)?;
    drop(child);
    ctx.wait_for("its memory is free", PATIENCE, || {
        ctx.free_kib().is_ok_and(|now| now + (8 << 10) > free)
    })?;
    others_go_on(ctx)
}

/// Waits for what the child says. Returns that, and the most KiB of memory that it had meanwhile.
fn watch(ctx: &Ctx, child: &mut Child, free: u64) -> Result<(Said, u64)> {
    let deadline = Instant::now() + PATIENCE;
    let mut most = 0;
    loop {
        let said = child.listen(LOOK)?;
        if said != Said::Late || Instant::now() > deadline {
            return Ok((said, most));
        }
        most = most.max(free.saturating_sub(ctx.free_kib()?));
    }
}

/// Fails unless somebody with memory has what the other has not.
fn others_go_on(ctx: &Ctx) -> Result<()> {
    // The child may still have the device open.
    let mut device = None;
    ctx.wait_for("the device", PATIENCE, || {
        device = Device::open().ok();
        device.is_some()
    })?;
    let device = device.context("the device")?;
    still_works(&device.create_session("unlimited")?)
}

pub fn sessions(ctx: &mut Ctx) -> Result<()> {
    until_full(ctx, "sessions", |held: &[Session]| {
        let device = Device::open().map_err(|_| Errno::EIO)?;
        device.create_session(&format!("limited {}", held.len()))
    })
}

pub fn files(ctx: &mut Ctx) -> Result<()> {
    // The child's: with the session, all that is in it goes.
    let session = OnceCell::new();
    until_full(ctx, "preserved files", |held: &[File]| {
        let session = session.get_or_init(|| {
            let device = Device::open().expect("the device");
            device.create_session("limited").expect("a session")
        });
        let file = memfd::create(0)
            .map_err(|err| err.downcast_ref::<Errno>().copied().unwrap_or(Errno::EIO))?;
        session.preserve(&file, held.len() as u64)?;
        Ok(file)
    })
}

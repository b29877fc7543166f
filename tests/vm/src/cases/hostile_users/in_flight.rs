// SPDX-License-Identifier: GPL-2.0

//! Sessions are closed, copied and inherited while commands are under way, and signals come at any time.

use super::super::common::luo::{Device, Session};
use super::super::common::{data, is_ours, memfd, open_fds, preserve_number, still_works};
use crate::ctx::Ctx;
use anyhow::{ensure, Context, Result};
use nix::errno::Errno;
use nix::sys::signal::{sigaction, SaFlags, SigAction, SigHandler, SigSet, Signal};
use std::fs::File;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// How many programs are started.
const PROGRAMS: usize = 50;

/// What is behind a number, which may at any moment be no session any more.
pub fn by_number(fd: RawFd) -> ManuallyDrop<Session> {
    // SAFETY: it is never closed by this, and the kernel alone decides what is behind the number.
    ManuallyDrop::new(Session(unsafe { OwnedFd::from_raw_fd(fd) }))
}

/// Preserves a file by a number that may at any moment be no session any more, until told to end. Returns how often
/// that worked.
fn preserve_by_number(file: &File, fd: RawFd, done: &AtomicBool) -> Result<u64> {
    let mut worked = 0;
    let mut token = 0;
    while !done.load(Relaxed) {
        token += 1;
        let session = by_number(fd);
        match preserve_number(&session, file.as_raw_fd(), token) {
            Ok(()) => worked += 1,
            // Closed; or preserved by the other thread or the call before; or not a session now.
            Err(Errno::EBADF | Errno::EBUSY | Errno::EEXIST | Errno::ENOTTY | Errno::EINVAL) => {}
            Err(errno) => anyhow::bail!("PRESERVE_FD: {errno}"),
        }
        let _ = session.name();
        let _ = session.state();
    }
    Ok(worked)
}

/// Lets two threads preserve these files by a number, while `round` changes what is behind it. Returns how often that
/// worked.
fn under_fire(
    files: &[File; 2],
    rounds: usize,
    fd: RawFd,
    mut round: impl FnMut() -> Result<()>,
) -> Result<u64> {
    let done = &AtomicBool::new(false);
    std::thread::scope(|scope| {
        let users = files
            .each_ref()
            .map(|file| scope.spawn(move || preserve_by_number(file, fd, done)));
        let result = (0..rounds).try_for_each(|_| round());
        done.store(true, Relaxed);
        let mut worked = 0;
        for user in users {
            worked += user.join().expect("no panic")?;
        }
        result.map(|()| worked)
    })
}

/// The files for that.
fn two_files() -> Result<[File; 2]> {
    Ok([memfd::create(4096)?, memfd::create(4096)?])
}

/// Fails unless these are no session's any more.
fn are_let_go(files: &[File; 2]) -> Result<()> {
    files
        .iter()
        .try_for_each(|file| memfd::truncate(file, 0))
        .context("a file is still preserved")
}

/// The number is closed, and becomes another session, again and again.
pub fn closed(_: &mut Ctx) -> Result<()> {
    let device = Device::open()?;
    let before = open_fds()?;
    let place = device.create_session("place")?.0;
    let fd = place.as_raw_fd();
    let files = two_files()?;
    let mut number = 0;
    let worked = under_fire(&files, 1000, fd, || {
        let session = device.create_session(&format!("session {}", number % 3));
        number += 1;
        match session {
            // Takes the place of the one before, which is closed by this, with commands under way.
            Ok(session) => {
                // SAFETY: two descriptors of ours.
                Errno::result(unsafe { libc::dup2(session.0.as_raw_fd(), fd) })?;
                Ok(())
            }
            // A command still holds it.
            Err(Errno::EEXIST) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    })?;
    ensure!(worked > 0, "nothing was preserved");
    drop(place);
    are_let_go(&files)?;
    drop(files);
    ensure!(open_fds()? == before, "a descriptor leaked");
    // All names are free.
    for number in 0..3 {
        let name = format!("session {number}");
        still_works(&device.create_session(&name).context(name)?)?;
    }
    Ok(())
}

/// Processes inherit it, and start programs, which close it.
pub fn forked(_: &mut Ctx) -> Result<()> {
    let device = Device::open()?;
    let session = device.create_session("inherited")?;
    let files = two_files()?;
    let mut children = 0u64;
    let worked = under_fire(&files, PROGRAMS, session.0.as_raw_fd(), || {
        // One that only says how it is to be used.
        children += u64::from(Command::new("/init").output().is_ok());
        Ok(())
    })?;
    ensure!(
        worked > 0 && children == PROGRAMS as u64,
        "{worked}, {children}"
    );
    drop(session);
    are_let_go(&files)?;
    still_works(&device.create_session("inherited").context("its name")?)
}

static SIGNALS: AtomicU64 = AtomicU64::new(0);

extern "C" fn count(_: libc::c_int) {
    SIGNALS.fetch_add(1, Relaxed);
}

/// Does something while a signal comes every 200 us, to a handler. Without SA_RESTART: a command that gave up would be
/// seen.
pub fn in_a_storm(ctx: &Ctx, act: impl FnOnce() -> Result<()>) -> Result<()> {
    let action = SigAction::new(
        SigHandler::Handler(count),
        SaFlags::empty(),
        SigSet::empty(),
    );
    let before = SIGNALS.load(Relaxed);
    // SAFETY: the handler only counts.
    let old = unsafe { sigaction(Signal::SIGALRM, &action) }?;
    timer(200)?;
    let result = act();
    timer(0)?;
    // SAFETY: what was before.
    unsafe { sigaction(Signal::SIGALRM, &old) }?;
    let seen = SIGNALS.load(Relaxed) - before;
    ctx.figure(&format!("{seen} signals"));
    result.with_context(|| format!("after {seen} signals"))?;
    ensure!(seen > 50, "only {seen} signals");
    Ok(())
}

/// No command is the worse for a signal.
pub fn signals(ctx: &mut Ctx) -> Result<()> {
    const SIZE: u64 = 8 << 20;
    let device = Device::open()?;
    let file = memfd::create(SIZE)?;
    data::fill(&file, 1, data::whole(SIZE))?;
    in_a_storm(ctx, || {
        (0..100).try_for_each(|round| {
            let name = format!("under signals {round}");
            let session = device.create_session(&name).context("create")?;
            session.preserve(&file, 1).context("preserve")?;
            ensure!(session.name().context("name")? == name);
            if is_ours(ctx) {
                session
                    .prepare()
                    .map_err(|(errno, _)| errno)
                    .context("prepare")?;
                session.cancel().context("cancel")?;
                ensure!(session.tokens().context("list")? == [1]);
                session.unpreserve(1).context("unpreserve")?;
            }
            Ok(())
        })
    })?;
    data::check(&file, 1, SIZE, &[data::whole(SIZE)])
}

/// Sends SIGALRM every so many microseconds; 0 ends it.
fn timer(us: i64) -> Result<()> {
    let time = libc::timeval {
        tv_sec: 0,
        tv_usec: us,
    };
    let timer = libc::itimerval {
        it_interval: time,
        it_value: time,
    };
    // SAFETY: the kernel reads a struct of ours.
    let set = unsafe { libc::setitimer(libc::ITIMER_REAL, &timer, std::ptr::null_mut()) };
    Errno::result(set).map(drop).context("setitimer")
}

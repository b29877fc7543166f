// SPDX-License-Identifier: GPL-2.0

//! The same with what the previous kernel handed over: whatever is under way, a file comes whole or not at all.

use super::super::common::data::{self, whole};
use super::super::common::luo::{Device, Session};
use super::super::common::{is_ours, memfd, open_fds, refused};
use super::super::races::LONG;
use super::in_flight::{by_number, in_a_storm};
use super::uring;
use crate::ctx::Ctx;
use anyhow::{ensure, Context, Result};
use io_uring::{opcode, types, IoUring};
use nix::errno::Errno;
use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

const SESSIONS: u64 = 40;
const TOKENS: std::ops::RangeInclusive<u64> = 1..=8;

fn name(session: u64) -> String {
    format!("incoming {session}")
}

/// Size and contents tell which file it is.
fn seed(session: u64, token: u64) -> u64 {
    session * 100 + token
}

fn size(seed: u64) -> u64 {
    40_000 + seed
}

fn is_whole(file: &File) -> Result<()> {
    let seed = file.metadata()?.size() - size(0);
    data::check(file, seed, size(seed), &[whole(size(seed))])
}

pub fn hand_on(ctx: &mut Ctx) -> Result<()> {
    let device = Device::open()?;
    for number in 0..SESSIONS {
        let session = device.create_session(&name(number))?;
        for token in TOKENS {
            let seed = seed(number, token);
            let file = memfd::create(size(seed))?;
            data::fill(&file, seed, whole(size(seed)))?;
            session.preserve(&file, token)?;
        }
        ctx.keep(session);
    }
    Ok(())
}

/// No command is the worse for a signal.
pub fn signals(ctx: &mut Ctx) -> Result<()> {
    in_a_storm(ctx, || {
        (0..SESSIONS).try_for_each(|number| {
            let device = Device::open().context("open")?;
            let session = device.retrieve_session(&name(number));
            let session = session.context("RETRIEVE_SESSION")?;
            if is_ours(ctx) {
                device.list_sessions(0, 64).context("LIST_SESSIONS")?;
                session.set_flags(0).context("SET_FLAGS")?;
                let (files, _) = session.list_fds(0, 64).context("LIST_FDS")?;
                ensure!(files.len() == TOKENS.count(), "{} files", files.len());
            }
            for token in TOKENS {
                let file = session.retrieve(token).context("RETRIEVE_FD")?;
                is_whole(&file)?;
            }
            session.finish().context("FINISH")
        })
    })
}

/// Takes files out by a number that may at any moment be another session, or none, until told to end, and counts the
/// calls. Returns how often that worked.
fn retrieve_by_number(fd: RawFd, calls: &AtomicU64, done: &AtomicBool) -> Result<u64> {
    let mut worked = 0;
    while !done.load(Relaxed) {
        for token in TOKENS {
            worked += u64::from(take_one(fd, token)?);
            let _ = by_number(fd).name();
            calls.fetch_add(1, Relaxed);
        }
    }
    Ok(worked)
}

/// The number becomes another session, by which the one before is closed and so finished, with commands under way.
pub fn closed(ctx: &mut Ctx) -> Result<()> {
    let device = Device::open()?;
    let before = open_fds()?;
    let place = File::open("/dev/null")?;
    let fd = place.as_raw_fd();
    let (calls, done) = (AtomicU64::new(0), AtomicBool::new(false));
    let worked = std::thread::scope(|scope| -> Result<u64> {
        let users = [0, 1].map(|_| scope.spawn(|| retrieve_by_number(fd, &calls, &done)));
        let result = (0..SESSIONS).try_for_each(|number| -> Result<()> {
            let session = device.retrieve_session(&name(number))?;
            // SAFETY: two descriptors of ours.
            Errno::result(unsafe { libc::dup2(session.0.as_raw_fd(), fd) })?;
            drop(session);
            // Not all of it, and not nothing: the next one comes in the midst.
            let wanted = calls.load(Relaxed) + TOKENS.count() as u64 / 2;
            while calls.load(Relaxed) < wanted && users.iter().all(|user| !user.is_finished()) {
                std::thread::yield_now();
            }
            Ok(())
        });
        done.store(true, Relaxed);
        let mut worked = 0;
        for user in users {
            worked += user.join().expect("no panic")?;
        }
        result.map(|()| worked)
    })?;
    ctx.figure(&format!("{worked} files were taken out"));
    ensure!(worked > 0, "nothing was taken out");
    drop(place);
    ensure!(open_fds()? == before, "a descriptor leaked");
    for number in 0..SESSIONS {
        let again = device.retrieve_session(&name(number));
        refused("a session that was closed", again, Errno::ENOENT)?;
    }
    Ok(())
}

/// How a process lets go of its number of a session.
type Way = fn(RawFd) -> Result<()>;

const WAYS: [(&str, Way); 3] = [
    ("a ring closes it", |fd| {
        let close = opcode::Close::new(types::Fd(fd)).build();
        uring::submit(&mut IoUring::new(8)?, &close)??;
        Ok(())
    }),
    ("a copy of it is the last", |fd| {
        // SAFETY: the number is closed by its owner alone, who does so here.
        let session = Session(unsafe { OwnedFd::from_raw_fd(fd) });
        let copy = session.0.try_clone()?;
        drop(session);
        Session(copy).name().context("by the copy")?;
        Ok(())
    }),
    ("programs inherit it", |fd| {
        Command::new("/init").output()?;
        // SAFETY: as above.
        drop(unsafe { OwnedFd::from_raw_fd(fd) });
        Ok(())
    }),
];

/// One thread takes all files out of a session, another one finishes it, and a third lets go of it.
pub fn let_go(ctx: &mut Ctx) -> Result<()> {
    let device = Device::open()?;
    let before = open_fds()?;
    let (mut taken, mut finished) = (0, 0);
    for (number, (way, let_go)) in (0..SESSIONS).zip(WAYS.iter().cycle()) {
        let mut test = || -> Result<()> {
            let fd = device.retrieve_session(&name(number))?.0.into_raw_fd();
            let calls = AtomicU64::new(0);
            std::thread::scope(|scope| -> Result<()> {
                let taker = scope.spawn(|| take_all(fd, &calls));
                // Not all of it, and not nothing, another time each time.
                while calls.load(Relaxed) < number % 8 && !taker.is_finished() {
                    std::thread::yield_now();
                }
                let finisher = scope.spawn(|| by_number(fd).finish());
                let result = let_go(fd);
                taken += taker.join().expect("no panic")?;
                match finisher.join().expect("no panic") {
                    Ok(()) => finished += 1,
                    // Closed, or a file that was taken out just now.
                    Err(Errno::EBADF | Errno::ENOTTY) => {}
                    Err(errno) => anyhow::bail!("FINISH: {errno}"),
                }
                result
            })?;
            ctx.wait_for("the session is gone", LONG, || {
                let again = device.retrieve_session(&name(number));
                matches!(again, Err(Errno::ENOENT))
            })
        };
        test().with_context(|| format!("session {number}: {way}"))?;
    }
    ctx.figure(&format!(
        "{taken} files were taken out, {finished} sessions finished"
    ));
    ensure!(taken > 0 && finished > 0, "{taken}, {finished}");
    ensure!(open_fds()? == before, "a descriptor leaked");
    Ok(())
}

/// Takes each file out once, by a number that may at any moment be none of a session. Returns how many came.
fn take_all(fd: RawFd, calls: &AtomicU64) -> Result<u64> {
    let mut taken = 0;
    for token in TOKENS {
        taken += u64::from(take_one(fd, token)?);
        calls.fetch_add(1, Relaxed);
    }
    Ok(taken)
}

/// Takes a file out by such a number, if it comes.
fn take_one(fd: RawFd, token: u64) -> Result<bool> {
    match by_number(fd).retrieve(token) {
        Ok(file) => is_whole(&file).map(|()| true),
        // Closed; or finished, by which its files are gone; or not a session now.
        Err(Errno::EBADF | Errno::ENOENT | Errno::ENOTTY) => Ok(false),
        Err(errno) => anyhow::bail!("RETRIEVE_FD: {errno}"),
    }
}

// SPDX-License-Identifier: GPL-2.0

//! Sessions in io_uring: it keeps files in a table of its own, and closes descriptors by itself.

use super::super::common::luo::{Device, Session};
use super::super::common::{memfd, refused, still_works};
use crate::ctx::Ctx;
use anyhow::{ensure, Context, Result};
use io_uring::types::{Fd, Fixed};
use io_uring::{opcode, squeue, IoUring};
use nix::errno::Errno;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);

/// Does one thing and gives its result.
pub fn submit(ring: &mut IoUring, entry: &squeue::Entry) -> Result<Result<i32, Errno>> {
    // SAFETY: what the callers' entries point to lives until the completion below.
    unsafe { ring.submission().push(entry) }.context("a full queue")?;
    ring.submit_and_wait(1)?;
    let result = ring.completion().next().context("no completion")?.result();
    Ok(match result {
        0.. => Ok(result),
        _ => Err(Errno::from_raw(-result)),
    })
}

/// Waits until a session of this name can be made.
fn is_free(ctx: &Ctx, device: &Device, name: &str) -> Result<Session> {
    let mut made = Err(Errno::EEXIST);
    ctx.wait_for(name, PATIENCE, || {
        made = device.create_session(name);
        made.is_ok()
    })?;
    made.context("made")
}

pub fn io_uring(ctx: &mut Ctx) -> Result<()> {
    let device = Device::open()?;
    let session = device.create_session("in a ring")?;
    session.preserve(&memfd::create(0)?, 1)?;
    let mut ring = IoUring::new(8)?;
    let mut byte = [0u8];
    let fd = Fd(session.0.as_raw_fd());
    let read = opcode::Read::new(fd, byte.as_mut_ptr(), 1).build();
    refused("a read", submit(&mut ring, &read)?, Errno::EINVAL)?;
    let write = opcode::Write::new(fd, byte.as_ptr(), 1).build();
    refused("a write", submit(&mut ring, &write)?, Errno::EINVAL)?;
    for op in [0, 5, 0xa0] {
        let command = opcode::UringCmd16::new(fd, op).build();
        refused("a command", submit(&mut ring, &command)?, Errno::EOPNOTSUPP)?;
    }
    still_works(&session)?;

    // A file of the ring's table is a session as long as it is there.
    ring.submitter().register_files(&[session.0.as_raw_fd()])?;
    drop(session);
    for _ in 0..3 {
        refused(
            "a name in use",
            device.create_session("in a ring"),
            Errno::EEXIST,
        )?;
    }
    let read = opcode::Read::new(Fixed(0), byte.as_mut_ptr(), 1).build();
    refused(
        "a read of the table's",
        submit(&mut ring, &read)?,
        Errno::EINVAL,
    )?;
    ring.submitter().unregister_files()?;
    drop(is_free(ctx, &device, "in a ring")?);

    // With the ring, its table goes, too.
    let session = device.create_session("in a ring")?;
    ring.submitter().register_files(&[session.0.as_raw_fd()])?;
    drop((session, ring));
    still_works(&is_free(ctx, &device, "in a ring")?)
}

/// A ring closes sessions, of which a thread makes use.
pub fn close_in_flight(ctx: &mut Ctx) -> Result<()> {
    const ROUNDS: usize = 300;
    // On a machine that does other things, too, the ring is mostly the first.
    const MOST: usize = 30 * ROUNDS;
    let device = Device::open()?;
    let mut ring = IoUring::new(8)?;
    let (mut worked, mut round) = (0, 0);
    while round < ROUNDS || worked == 0 && round < MOST {
        let session = device.create_session("closed by a ring")?;
        let file = memfd::create(4096 * (round as u64 % 5))?;
        let fd = session.0.into_raw_fd();
        std::thread::scope(|scope| {
            let user = scope.spawn(|| {
                // SAFETY: it is never closed by this, and no other file is opened meanwhile.
                let session = ManuallyDrop::new(Session(unsafe { OwnedFd::from_raw_fd(fd) }));
                let results = (0..20).map(|token| session.preserve(&file, token));
                results.collect::<Vec<_>>()
            });
            let close = opcode::Close::new(Fd(fd)).build();
            submit(&mut ring, &close)?.context("close")?;
            for result in user.join().expect("no panic") {
                match result {
                    Ok(()) => worked += 1,
                    Err(Errno::EBADF | Errno::EBUSY) => {}
                    Err(errno) => anyhow::bail!("round {round}: {errno}"),
                }
            }
            Ok(())
        })?;
        // Of a session that is gone nothing is preserved any more.
        let again = is_free(ctx, &device, "closed by a ring")?;
        ctx.wait_for("the file is free", PATIENCE, || {
            again.preserve(&file, 1).is_ok()
        })?;
        round += 1;
    }
    ensure!(worked > 0, "no command was in time");
    ctx.figure(&format!("{round} rounds, {worked} commands were in time"));
    Ok(())
}

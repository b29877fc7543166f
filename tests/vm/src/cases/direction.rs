// SPDX-License-Identifier: GPL-2.0

//! Commands for the other kind of session, and those for what is not or no longer there.

use super::common::command::Command;
use super::common::luo::{ioctl, Device, FinishArg, NameArg, Session, FINISH, GET_NAME};
use super::common::{data, memfd, no_fd_leak, refused, still_works};
use crate::ctx::Ctx;
use crate::test::{Config, Test};
use anyhow::{ensure, Context, Result};
use nix::errno::Errno;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;

/// The cases.
pub const TESTS: &[Test] = &[
    Test::new("incoming_on_outgoing", Config::new(), &[on_outgoing]),
    Test::new(
        "outgoing_on_incoming",
        Config::new(),
        &[hand_on, on_incoming],
    ),
    Test::new(
        "reserved_fields",
        Config::new(),
        &[hand_on, reserved_fields],
    ),
    Test::new("twice", Config::new(), &[hand_on, twice]),
    Test::new("unknown", Config::new(), &[hand_on, unknown]),
    Test::new("not_retrieved", Config::new(), &[hand_on, not_retrieved]),
    Test::new("closing_finishes", Config::new(), &[hand_on, closing]),
    Test::new("one_after_another", Config::new(), &[hand_on, by_turns]),
    Test::new("never_retrieved", Config::new(), &[hand_on, pass, nothing]),
];

const SIZE: u64 = 20_000;
const TOKENS: [u64; 4] = [3, 0, u64::MAX, 7];

/// Hands on two sessions with a file for each of [`TOKENS`], filled by it.
fn hand_on(ctx: &mut Ctx) -> Result<()> {
    let device = Device::open()?;
    for name in ["one", "two"] {
        let session = device.create_session(name)?;
        for token in TOKENS {
            let file = memfd::create(SIZE)?;
            data::fill(&file, token, data::whole(SIZE))?;
            session.preserve(&file, token)?;
        }
        ctx.keep(session);
    }
    Ok(())
}

fn take(session: &Session, token: u64) -> Result<std::fs::File> {
    let file = session
        .retrieve(token)
        .with_context(|| format!("retrieving token {token:#x}"))?;
    data::check(&file, token, SIZE, &[data::whole(SIZE)])?;
    Ok(file)
}

fn take_all(session: &Session) -> Result<()> {
    TOKENS
        .iter()
        .try_for_each(|&token| take(session, token).map(drop))
}

fn finish(session: &Session, size: u32, reserved: u32) -> Result<(), Errno> {
    let mut arg = FinishArg { size, reserved };
    ioctl(session.0.as_raw_fd(), FINISH, &mut arg).map(drop)
}

fn on_outgoing(_: &mut Ctx) -> Result<()> {
    let session = Device::open()?.create_session("outgoing")?;
    let file = memfd::create(SIZE)?;
    session.preserve(&file, 1)?;
    for token in [1, 2] {
        no_fd_leak("RETRIEVE_FD", || {
            refused("RETRIEVE_FD", session.retrieve(token), Errno::EINVAL)
        })?;
    }
    refused("FINISH", session.finish(), Errno::EINVAL)?;
    // The kind of session is looked at before size, tail and contents.
    refused("FINISH", finish(&session, 0, 1), Errno::EINVAL)?;
    for command in [Command::retrieve(&session, 1), Command::finish(&session)] {
        let result = command.with_tail(&[1]).issue()?;
        refused("with something behind it", result, Errno::EINVAL)?;
    }
    refused("shrinking", memfd::truncate(&file, 0), Errno::EPERM)?;
    still_works(&session)
}

fn on_incoming(_: &mut Ctx) -> Result<()> {
    let session = Device::open()?.retrieve_session("one")?;
    let file = memfd::create(SIZE)?;
    for token in [3, 99] {
        no_fd_leak("PRESERVE_FD", || {
            refused("PRESERVE_FD", session.preserve(&file, token), Errno::EINVAL)
        })?;
    }
    let command = Command::preserve(&session, &file, 99).with_tail(&[1]);
    let result = command.issue()?;
    refused("with something behind it", result, Errno::EINVAL)?;
    memfd::truncate(&file, 0).context("the file that was not preserved")?;
    // A retrieved file can go into an outgoing session only once it is finished.
    let retrieved = take(&session, 3)?;
    let outgoing = Device::open()?.create_session("one")?;
    let early = outgoing.preserve(&retrieved, 1);
    refused("before FINISH", early, Errno::EBUSY)?;
    take_all(&session)?;
    session.finish()?;
    refused("after FINISH", session.preserve(&file, 99), Errno::EINVAL)?;
    outgoing.preserve(&retrieved, 1).context("after FINISH")
}

fn reserved_fields(_: &mut Ctx) -> Result<()> {
    let session = Device::open()?.retrieve_session("one")?;
    let file = take(&session, 3)?;
    for reserved in [1, 1 << 31, u32::MAX] {
        let result = finish(&session, 8, reserved);
        refused("FINISH, reserved not zero", result, Errno::EINVAL)?;
        let mut arg = NameArg {
            size: size_of::<NameArg>() as u32,
            reserved,
            name: [0; 64],
        };
        let result = ioctl(session.0.as_raw_fd(), GET_NAME, &mut arg);
        refused("GET_NAME, reserved not zero", result, Errno::EINVAL)?;
        ensure!(arg.name == [0; 64], "it answered all the same");
    }
    // Nothing was finished.
    take_all(&session)?;
    let outgoing = Device::open()?.create_session("outgoing")?;
    refused("not finished", outgoing.preserve(&file, 1), Errno::EBUSY)?;
    session.finish()?;
    Ok(())
}

fn twice(_: &mut Ctx) -> Result<()> {
    let device = Device::open()?;
    let session = device.retrieve_session("one")?;
    for _ in 0..3 {
        no_fd_leak("a session twice", || {
            let again = device.retrieve_session("one");
            refused("a session twice", again, Errno::EINVAL)
        })?;
    }
    // A file can be asked for again: it is the same one.
    let (first, second) = (take(&session, 7)?, take(&session, 7)?);
    let (a, b) = (first.metadata()?, second.metadata()?);
    ensure!((a.dev(), a.ino()) == (b.dev(), b.ino()), "not the same");
    memfd::seek(&first, 77)?;
    ensure!(memfd::position(&second)? == 77, "not the same open file");
    drop((first, second));
    take_all(&session)?;
    session.finish()?;
    session.finish().context("finishing again")?;
    refused("when finished", session.retrieve(7), Errno::ENOENT)?;
    let again = device.retrieve_session("one");
    refused("finished, not closed", again, Errno::EINVAL)?;
    drop(session);
    refused(
        "finished and closed",
        device.retrieve_session("one"),
        Errno::ENOENT,
    )?;
    take_all(&device.retrieve_session("two")?)
}

fn unknown(_: &mut Ctx) -> Result<()> {
    let device = Device::open()?;
    for name in ["three", "on", "ones", "ONE"] {
        no_fd_leak("an unknown session", || {
            refused(name, device.retrieve_session(name), Errno::ENOENT)
        })?;
    }
    let session = device.retrieve_session("one")?;
    for token in [1, 2, 4, u64::MAX - 1, 1 << 32 | 3] {
        no_fd_leak("an unknown token", || {
            let what = format!("token {token:#x}");
            refused(&what, session.retrieve(token), Errno::ENOENT)
        })?;
    }
    take_all(&session)?;
    ensure!(session.name()? == "one");
    Ok(())
}

/// What nobody retrieves is let go by FINISH: its memory is free again.
fn not_retrieved(_: &mut Ctx) -> Result<()> {
    let device = Device::open()?;
    let session = device.retrieve_session("one")?;
    let file = take(&session, 7)?;
    session.finish()?;
    refused("finished", session.retrieve(3), Errno::ENOENT)?;
    data::check(&file, 7, SIZE, &[data::whole(SIZE)])?;
    drop(session);
    data::check(&file, 7, SIZE, &[data::whole(SIZE)])?;
    device.retrieve_session("two")?.finish()?;
    still_works(&device.create_session("two")?)
}

fn closing(_: &mut Ctx) -> Result<()> {
    let device = Device::open()?;
    let session = device.retrieve_session("one")?;
    let file = take(&session, 0)?;
    let copy = session.0.try_clone()?;
    drop(session);
    let early = device.retrieve_session("one");
    refused("one descriptor is left", early, Errno::EINVAL)?;
    drop(copy);
    refused("closed", device.retrieve_session("one"), Errno::ENOENT)?;
    data::check(&file, 0, SIZE, &[data::whole(SIZE)])?;
    device.create_session("free")?.preserve(&file, 1)?;
    Ok(())
}

/// As systemd does: files of several sessions by turns, the device open all along, the last token first.
fn by_turns(_: &mut Ctx) -> Result<()> {
    let device = Device::open()?;
    let one = device.retrieve_session("one")?;
    take(&one, TOKENS[3])?;
    let two = device.retrieve_session("two")?;
    for token in TOKENS {
        take(&two, token)?;
        take(&one, token)?;
    }
    two.finish()?;
    take_all(&one)?;
    one.finish()?;
    Ok(())
}

/// A kernel in which nobody asks for the sessions.
fn pass(_: &mut Ctx) -> Result<()> {
    Ok(())
}

fn nothing(_: &mut Ctx) -> Result<()> {
    let device = Device::open()?;
    for name in ["one", "two"] {
        let result = device.retrieve_session(name);
        refused(name, result, Errno::ENOENT).context("two kernels later")?;
    }
    still_works(&device.create_session("one")?)
}

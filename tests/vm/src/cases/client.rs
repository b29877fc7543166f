// SPDX-License-Identifier: GPL-2.0

//! The client library against a real kernel: what it does, and that its errors say what happened.

use super::common::data::{self, whole};
use super::common::{is_ours, memfd, no_fd_leak, open_fds};
use crate::ctx::Ctx;
use crate::test::{Config, Test};
use anyhow::{ensure, Context, Result};
use liveupdate::{Device, Errno, Error, IncomingSession, OutgoingSession};
use std::fs::File;
use std::os::fd::OwnedFd;

/// The cases.
pub const TESTS: &[Test] = &[
    Test::new("outgoing", Config::new(), &[outgoing]),
    Test::new("outgoing_errors", Config::new(), &[outgoing_errors]),
    Test::new("not_a_session", Config::new(), &[not_a_session]),
    Test::new("extensions_absent", Config::new(), &[extensions_absent]),
    Test::new("ownership", Config::new(), &[ownership]),
    Test::new("round_trip", Config::new(), &[hand_on, take_back]),
];

const SIZE: u64 = 30_000;

fn filled(seed: u64) -> Result<File> {
    let file = memfd::create(SIZE)?;
    data::fill(&file, seed, whole(SIZE))?;
    Ok(file)
}

/// Fails unless the result is this error.
fn says<T>(result: liveupdate::Result<T>, wanted: &Error) -> Result<()> {
    match result {
        Ok(_) => anyhow::bail!("done, instead of: {wanted}"),
        Err(error) => {
            ensure!(error == *wanted, "{error:?} instead of {wanted:?}");
            Ok(())
        }
    }
}

fn outgoing(_: &mut Ctx) -> Result<()> {
    let device = Device::open()?;
    let session = device.create_session("client")?;
    ensure!(session.name()?.as_bytes() == b"client");
    let bytes = device.create_session(b"\xff\n")?;
    ensure!(bytes.name()?.as_bytes() == b"\xff\n");
    let file = filled(1)?;
    session.preserve(&file, 1)?;
    drop(session);
    memfd::truncate(&file, 0).context("once it is closed")?;
    Ok(())
}

fn outgoing_errors(_: &mut Ctx) -> Result<()> {
    let device = Device::open()?;
    says(Device::open(), &Error::DeviceBusy)?;
    let session = device.create_session("client")?;
    let taken = Error::NameTaken("client".parse()?);
    no_fd_leak("a name in use", || {
        says(device.create_session("client"), &taken)
    })?;
    let unknown = Error::NoSuchSession("client".parse()?);
    says(device.retrieve_session("client"), &unknown)?;

    let (file, other) = (filled(1)?, filled(2)?);
    session.preserve(&file, 1)?;
    says(session.preserve(&other, 1), &Error::TokenUsed(1))?;
    says(session.preserve(&file, 2), &Error::AlreadyPreserved)?;
    let null = File::open("/dev/null")?;
    says(session.preserve(&null, 2), &Error::UnsupportedFile)?;
    let large = memfd::create(1 << 44)?;
    says(session.preserve(&large, 2), &Error::FileTooLarge)?;
    session.preserve(&other, 2)?;
    Ok(())
}

fn not_a_session(_: &mut Ctx) -> Result<()> {
    let device = Device::open()?;
    let outgoing = device.create_session("client")?;
    // The device, taken for a session.
    let wrong = OutgoingSession::from(OwnedFd::from(device));
    says(wrong.name(), &Error::NotASession)?;
    // An outgoing session, taken for an incoming one.
    let wrong = IncomingSession::from(OwnedFd::from(outgoing));
    says(wrong.finish(), &Error::WrongKind)?;
    ensure!(wrong.name()?.to_str() == Some("client"));
    ensure!(matches!(wrong.retrieve(1), Err(error) if error.errno() == Errno::INVAL));
    Ok(())
}

/// Extensions are there, or are said not to be: nothing in between.
fn extensions_absent(ctx: &mut Ctx) -> Result<()> {
    let device = Device::open()?;
    let session = device.create_session("client")?;
    session.preserve(filled(1)?, 1)?;
    let results = [
        ("info", device.info().map(drop)),
        ("sessions", device.sessions().map(drop)),
        ("state", session.state().map(drop)),
        ("files", session.files().map(drop)),
        ("prepare", session.prepare()),
        ("cancel", session.cancel()),
        ("unpreserve", session.unpreserve(1)),
        (
            "set_flags",
            session.set_flags(liveupdate::SessionFlags::ORDERED),
        ),
    ];
    let absent = results
        .iter()
        .filter(|(_, result)| matches!(result, Err(error) if error.is_unsupported()))
        .count();
    for (what, result) in &results {
        let understood = result.as_ref().err().is_none_or(Error::is_unsupported);
        ensure!(understood, "{what}: {result:?}");
    }
    ensure!(is_ours(ctx) || absent == results.len(), "{results:?}");
    ensure!(session.name()?.to_str() == Some("client"));
    Ok(())
}

fn ownership(_: &mut Ctx) -> Result<()> {
    let before = open_fds()?;
    let device = Device::open()?;
    let session = device.create_session("client")?;
    ensure!(open_fds()? == before + 2, "one descriptor each");
    let fd = OwnedFd::from(session);
    let session = OutgoingSession::from(fd);
    ensure!(session.name()?.to_str() == Some("client"));
    drop((device, session));
    ensure!(open_fds()? == before, "a descriptor is left");
    Device::open()?.create_session("client")?;
    Ok(())
}

fn hand_on(ctx: &mut Ctx) -> Result<()> {
    let session = Device::open()?.create_session("client")?;
    for token in [5, 6] {
        session.preserve(filled(token)?, token)?;
    }
    ctx.keep(session);
    Ok(())
}

fn take_back(_: &mut Ctx) -> Result<()> {
    let device = Device::open()?;
    let other = Error::NoSuchSession("other".parse()?);
    says(device.retrieve_session("other"), &other)?;
    let session = device.retrieve_session("client")?;
    let again = Error::AlreadyRetrieved("client".parse()?);
    says(device.retrieve_session("client"), &again)?;
    says(session.retrieve(7), &Error::NoSuchToken(7))?;
    for token in [6, 5, 6] {
        let file = File::from(session.retrieve(token)?);
        data::check(&file, token, SIZE, &[whole(SIZE)])?;
    }
    let wrong = OutgoingSession::from(OwnedFd::from(session));
    says(wrong.preserve(filled(1)?, 1), &Error::WrongKind)?;
    let session = IncomingSession::from(OwnedFd::from(wrong));
    session.finish()?;
    says(session.retrieve(5), &Error::NoSuchToken(5))
}

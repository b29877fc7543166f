// SPDX-License-Identifier: GPL-2.0

//! The client library against a real kernel: what it does, and that its errors say what happened.

use super::common::data::{self, whole};
use super::common::modules::{Kind, Recorder};
use super::common::{is_ours, memfd, no_fd_leak, open_fds};
use crate::ctx::Ctx;
use crate::test::{Config, Orchestrator, Test};
use anyhow::{ensure, Context, Result};
use liveupdate::{
    Device, Errno, Error, IncomingSession, OutgoingSession, Session, SessionFlags, State,
};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Command, Stdio};

/// Against the kernel's own orchestrator, whatever the run is about.
const C: Config = Config::new().orchestrators(&[Orchestrator::C]);
/// Handed on by the kernel's own, in its format, and taken back by ours; and the reverse.
const C_TO_RUST: Config = Config::new().orchestrators(&[Orchestrator::C, Orchestrator::Rust]);
const RUST_TO_C: Config = Config::new()
    .orchestrators(&[Orchestrator::Rust, Orchestrator::C])
    .params("memfd_v2=1");

/// The cases, each against both orchestrators.
pub const TESTS: &[Test] = &[
    Test::new("outgoing", Config::new(), &[outgoing]),
    Test::new("outgoing_c", C, &[outgoing]),
    Test::new("outgoing_errors", Config::new(), &[outgoing_errors]),
    Test::new("outgoing_errors_c", C, &[outgoing_errors]),
    Test::new("not_a_session", Config::new(), &[not_a_session]),
    Test::new("not_a_session_c", C, &[not_a_session]),
    Test::new("extensions", Config::new(), &[extensions]),
    Test::new("extensions_c", C, &[extensions]),
    Test::new("invalid_file", Config::new(), &[invalid_file]),
    Test::new("ownership", Config::new(), &[ownership]),
    Test::new("ownership_c", C, &[ownership]),
    Test::new("round_trip", Config::new(), &[hand_on, take_back]),
    Test::new("round_trip_c", C, &[hand_on, take_back]),
    Test::new("example", Config::new(), &[count_one, count_two]),
    Test::new("example_c", C, &[count_one, count_two]),
    Test::new("from_c", C_TO_RUST, &[hand_on, take_back]),
    Test::new("to_c", RUST_TO_C, &[hand_on, take_back]),
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
    says(Session::identify(OwnedFd::from(wrong)), &Error::NotASession)?;
    // An outgoing session, taken for an incoming one.
    let wrong = IncomingSession::from(OwnedFd::from(outgoing));
    says(wrong.finish(), &Error::WrongKind)?;
    ensure!(wrong.name()?.to_str() == Some("client"));
    ensure!(matches!(wrong.retrieve(1), Err(error) if error.errno() == Errno::INVAL));
    Ok(())
}

fn extensions(ctx: &mut Ctx) -> Result<()> {
    match is_ours(ctx) {
        true => extensions_there(),
        false => extensions_absent(),
    }
}

/// The kernel's own orchestrator has none of the extensions, and that is what the library says of each.
fn extensions_absent() -> Result<()> {
    let device = Device::open()?;
    let session = device.create_session("client")?;
    session.preserve(filled(1)?, 1)?;
    for (what, result) in [
        ("GET_INFO", device.info().map(drop)),
        ("LIST_SESSIONS", device.sessions().map(drop)),
        ("GET_STATE", session.state().map(drop)),
        ("LIST_FDS", session.files().map(drop)),
        ("PREPARE", session.prepare()),
        ("CANCEL", session.cancel()),
        ("UNPRESERVE_FD", session.unpreserve(1)),
        ("SET_FLAGS", session.set_flags(SessionFlags::ORDERED)),
    ] {
        says(result, &Error::Unsupported(what))?;
    }
    ensure!(session.name()?.to_str() == Some("client"));
    Ok(())
}

fn extensions_there() -> Result<()> {
    let device = Device::open()?;
    ensure!(device.info()?.implementation.starts_with("luo"));
    let session = device.create_session("client")?;
    // More than the library asks for at once.
    let files = (0..150).map(filled).collect::<Result<Vec<_>>>()?;
    for (token, file) in (0..).zip(&files) {
        session.preserve(file, token)?;
    }
    let tokens: Vec<u64> = session.files()?.iter().map(|file| file.token).collect();
    ensure!(tokens == (0..150).collect::<Vec<_>>(), "{tokens:?}");
    let state = session.state()?;
    ensure!(
        state.state == State::Normal && state.files == 150,
        "{state:?}"
    );
    let sessions = device.sessions()?;
    let listed = sessions.iter().find(|one| one.name.as_bytes() == b"client");
    ensure!(listed.is_some_and(|one| one.files == 150), "{sessions:?}");

    session.prepare()?;
    ensure!(session.state()?.state == State::Prepared);
    says(session.unpreserve(0), &Error::Prepared)?;
    let more = filled(150)?;
    says(session.preserve(&more, 150), &Error::Prepared)?;
    session.cancel()?;
    session.preserve(&more, 150)?;

    session.set_flags(SessionFlags::ORDERED)?;
    says(session.unpreserve(7), &Error::OutOfOrder(7))?;
    session.unpreserve(150)?;
    memfd::truncate(&more, 0).context("the file taken out")?;
    session.set_flags(SessionFlags::empty())?;
    session.unpreserve(7)?;
    says(session.unpreserve(7), &Error::NoSuchToken(7))?;
    let unknown = SessionFlags::from_bits_retain(2);
    says(session.set_flags(unknown), &Error::UnknownFlag)?;
    ensure!(session.state()?.files == 149);
    Ok(())
}

/// That a handler finds a file invalid is not said to be about the session.
fn invalid_file(ctx: &mut Ctx) -> Result<()> {
    let recorder = Recorder::new(ctx)?;
    let session = Device::open()?.create_session("client")?;
    let file = recorder.open(Kind::A, 1)?;
    recorder.fail("preserve", 1, nix::errno::Errno::EINVAL)?;
    let invalid = Error::Os {
        command: "PRESERVE_FD",
        errno: Errno::INVAL,
    };
    says(session.preserve(&file, 1), &invalid)?;
    session.preserve(&file, 1)?;
    Ok(())
}

/// What is not known is found out, without a trace.
fn identify(session: impl AsFd) -> Result<Session> {
    let before = open_fds()?;
    let found = Session::identify(session.as_fd().try_clone_to_owned()?)?;
    ensure!(found.name()?.as_bytes() == b"client");
    ensure!(open_fds()? == before + 1, "a descriptor is left");
    Ok(found)
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
    ensure!(matches!(identify(&session)?, Session::Outgoing(_)));
    for token in [5, 6] {
        session.preserve(filled(token)?, token)?;
        ensure!(matches!(identify(&session)?, Session::Outgoing(_)));
    }
    ctx.keep(session);
    Ok(())
}

fn take_back(_: &mut Ctx) -> Result<()> {
    let device = Device::open()?;
    let other = Error::NoSuchSession("other".parse()?);
    says(device.retrieve_session("other"), &other)?;
    let session = device.retrieve_session("client")?;
    ensure!(matches!(identify(&session)?, Session::Incoming(_)));
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

/// The library's example, as it is.
fn count(ctx: &mut Ctx, wanted: &str) -> Result<()> {
    const PROGRAM: &str = "/bin/counter";
    if !std::path::Path::new(PROGRAM).exists() {
        return ctx.skip("the example is not in this VM");
    }
    let mut example = Command::new(PROGRAM).stdout(Stdio::piped()).spawn()?;
    let mut line = String::new();
    let output = example.stdout.take().context("its output")?;
    BufReader::new(output).read_line(&mut line)?;
    ensure!(line == wanted, "{line:?} instead of {wanted:?}");
    Ok(())
}

fn count_one(ctx: &mut Ctx) -> Result<()> {
    count(ctx, "kernel 1\n")
}

fn count_two(ctx: &mut Ctx) -> Result<()> {
    count(ctx, "kernel 2\n")
}

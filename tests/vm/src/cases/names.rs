// SPDX-License-Identifier: GPL-2.0

//! Names of sessions: which are possible, and that each is there once.

use super::common::luo::{Device, Session, CREATE_SESSION, RETRIEVE_SESSION};
use super::common::{
    is_ours, name_bytes, names_of_every_byte, no_fd_leak, refused, session_by_bytes, still_works,
};
use crate::ctx::Ctx;
use crate::test::{Config, Test};
use anyhow::{ensure, Context, Result};
use nix::errno::Errno;

/// The cases.
pub const TESTS: &[Test] = &[
    Test::new("impossible", Config::new(), &[impossible]),
    Test::new("longest", Config::new(), &[longest]),
    Test::new("any_bytes", Config::new(), &[any_bytes]),
    Test::new("garbage_behind_nul", Config::new(), &[garbage_behind_nul]),
    Test::new("duplicate", Config::new(), &[duplicate]),
    Test::new("nothing_to_retrieve", Config::new(), &[nothing_to_retrieve]),
    Test::new("thousand", Config::new(), &[thousand]),
    Test::new("through_kexec", Config::new(), &[create_odd, retrieve_odd]),
    Test::new(
        "many_through_kexec",
        Config::new(),
        &[only_names, names_again],
    ),
];

const UNTERMINATED: [u8; 64] = [b'u'; 64];

/// Names that a careless program could stumble over.
const ODD: &[&[u8]] = &[
    b"a",
    b" ",
    b".",
    b"with\nnewline",
    b"with\ttab",
    b"\x01\x7f",
    b"per%cent%s%n",
    b"not utf-8: \xff\xfe\xc3\x28",
    "Prüfung".as_bytes(),
    &[b'x'; 63],
    &[0xff; 63],
];

fn impossible(_: &mut Ctx) -> Result<()> {
    let device = Device::open()?;
    for (what, name) in [
        ("an empty name", [0; 64]),
        ("an unterminated name", UNTERMINATED),
    ] {
        no_fd_leak(what, || {
            let result = session_by_bytes(&device, CREATE_SESSION, &name);
            refused(what, result, Errno::EINVAL)
        })?;
    }
    // A name that starts with NUL is an empty one, whatever follows.
    let mut hidden = name_bytes(b"-hidden");
    hidden[0] = 0;
    let result = session_by_bytes(&device, CREATE_SESSION, &hidden);
    refused("a name behind a NUL", result, Errno::EINVAL)?;
    still_works(&device.create_session("possible")?)
}

fn longest(_: &mut Ctx) -> Result<()> {
    let device = Device::open()?;
    let name = "l".repeat(63);
    let session = device.create_session(&name)?;
    ensure!(session.name()? == name, "not the name given");
    // One less, and one of the same length that differs in the last byte, are other names.
    let shorter = device.create_session(&name[..62])?;
    let mut other = name_bytes(name.as_bytes());
    other[62] = b'm';
    session_by_bytes(&device, CREATE_SESSION, &other)?;
    ensure!(shorter.name()? == name[..62], "not the shorter name");
    refused("again", device.create_session(&name), Errno::EEXIST)
}

/// Those, and every byte.
fn odd_names() -> Vec<Vec<u8>> {
    let mut names = names_of_every_byte();
    names.extend(ODD.iter().map(|name| name.to_vec()));
    names
}

/// Fails unless LIST_SESSIONS has just these names, to the byte.
fn are_listed(ctx: &Ctx, device: &Device, wanted: &[Vec<u8>]) -> Result<()> {
    if !is_ours(ctx) {
        return Ok(());
    }
    let (entries, _) = device.list_sessions(0, 64)?;
    let names: Vec<_> = entries.iter().map(|entry| entry.name).collect();
    let wanted: Vec<_> = wanted.iter().map(|name| name_bytes(name)).collect();
    ensure!(names == wanted, "LIST_SESSIONS: {entries:?}");
    Ok(())
}

fn is_called(session: &Session, wanted: &[u8]) -> Result<()> {
    let name = session.raw_name()?;
    ensure!(
        name == wanted,
        "[{}] is called [{}]",
        wanted.escape_ascii(),
        name.escape_ascii()
    );
    Ok(())
}

fn any_bytes(ctx: &mut Ctx) -> Result<()> {
    let device = Device::open()?;
    let mut sessions = Vec::new();
    let names = odd_names();
    for name in &names {
        let session = session_by_bytes(&device, CREATE_SESSION, &name_bytes(name))
            .with_context(|| format!("creating {name:?}"))?;
        is_called(&session, name)?;
        sessions.push(session);
    }
    for name in &names {
        let again = session_by_bytes(&device, CREATE_SESSION, &name_bytes(name));
        refused(&format!("{name:?} again"), again, Errno::EEXIST)?;
    }
    are_listed(ctx, &device, &names)?;
    sessions.iter().try_for_each(still_works)
}

fn garbage_behind_nul(_: &mut Ctx) -> Result<()> {
    let device = Device::open()?;
    let mut name = name_bytes(b"name");
    name[10] = b'!';
    let session = session_by_bytes(&device, CREATE_SESSION, &name)?;
    ensure!(session.name()? == "name", "what follows a NUL counts");
    refused(
        "the same name",
        device.create_session("name"),
        Errno::EEXIST,
    )
}

fn duplicate(_: &mut Ctx) -> Result<()> {
    let device = Device::open()?;
    let session = device.create_session("double")?;
    for _ in 0..10 {
        no_fd_leak("a name in use", || {
            refused(
                "a name in use",
                device.create_session("double"),
                Errno::EEXIST,
            )
        })?;
    }
    device.create_session("Double")?;
    device.create_session("doubl")?;
    device.create_session("double ")?;
    still_works(&session)?;
    drop(session);
    still_works(&device.create_session("double")?)
}

fn nothing_to_retrieve(_: &mut Ctx) -> Result<()> {
    let device = Device::open()?;
    let outgoing = device.create_session("outgoing")?;
    for (what, name) in [
        ("an unknown name", name_bytes(b"unknown")),
        ("an outgoing session's name", name_bytes(b"outgoing")),
        ("an empty name", [0; 64]),
        ("an unterminated name", UNTERMINATED),
    ] {
        no_fd_leak(what, || {
            let result = session_by_bytes(&device, RETRIEVE_SESSION, &name);
            refused(what, result, Errno::ENOENT)
        })?;
    }
    still_works(&outgoing)
}

fn thousand(_: &mut Ctx) -> Result<()> {
    let device = Device::open()?;
    for round in 0..2 {
        let mut sessions = Vec::new();
        for i in 0..1000 {
            let session = device
                .create_session(&format!("session-{i}"))
                .with_context(|| format!("session {i} of round {round}"))?;
            sessions.push(session);
        }
        let again = device.create_session("session-500");
        refused("one of a thousand again", again, Errno::EEXIST)?;
        still_works(&sessions[999])?;
        // Closed in an order of its own: neither first to last nor last to first.
        while !sessions.is_empty() {
            sessions.swap_remove(sessions.len() / 2);
        }
    }
    Ok(())
}

fn create_odd(ctx: &mut Ctx) -> Result<()> {
    let device = Device::open()?;
    for name in odd_names() {
        let name = name_bytes(&name);
        ctx.keep(session_by_bytes(&device, CREATE_SESSION, &name)?);
    }
    Ok(())
}

fn retrieve_odd(ctx: &mut Ctx) -> Result<()> {
    let device = Device::open()?;
    are_listed(ctx, &device, &odd_names())?;
    let nearly = |bytes: &[u8]| session_by_bytes(&device, RETRIEVE_SESSION, &name_bytes(bytes));
    refused("a shorter name", nearly(&[b'x'; 62]), Errno::ENOENT)?;
    let mut longer = name_bytes(&[b'x'; 63]);
    longer[63] = b'x';
    let longer = session_by_bytes(&device, RETRIEVE_SESSION, &longer);
    refused("a name not terminated", longer, Errno::ENOENT)?;
    for name in odd_names() {
        let session = session_by_bytes(&device, RETRIEVE_SESSION, &name_bytes(&name))
            .with_context(|| format!("retrieving {name:?}"))?;
        is_called(&session, &name)?;
        session.finish()?;
    }
    Ok(())
}

fn only_names(ctx: &mut Ctx) -> Result<()> {
    let device = Device::open()?;
    let mut sessions = Vec::new();
    for i in 0..300 {
        sessions.push(Some(device.create_session(&format!("s{i}"))?));
    }
    // What was closed again must not arrive.
    for session in sessions.iter_mut().skip(1).step_by(2) {
        *session = None;
    }
    ctx.keep(sessions);
    Ok(())
}

fn names_again(_: &mut Ctx) -> Result<()> {
    let device = Device::open()?;
    for i in 0..300 {
        let name = format!("s{i}");
        let retrieved = device.retrieve_session(&name);
        match i % 2 {
            0 => drop(retrieved.with_context(|| name.clone())?),
            _ => refused(&name, retrieved, Errno::ENOENT)?,
        }
    }
    // The names of the previous kernel's sessions can be used for the next one's.
    still_works(&device.create_session("s0")?)
}

// SPDX-License-Identifier: GPL-2.0

//! File-Lifecycle-Bound objects: when they are made, handed over, and finished.

use super::common::luo::{Device, Session};
use super::common::modules::{Kind, Recorder};
use super::common::refused;
use crate::ctx::Ctx;
use crate::test::{Config, Orchestrator, Test};
use anyhow::{ensure, Result};
use nix::errno::Errno;

/// The cases.
pub const TESTS: &[Test] = &[
    Test::new("outgoing", Config::new(), &[outgoing]),
    Test::new("without_object", Config::new(), &[without_object]),
    Test::new("first_and_last", Config::new(), &[first_and_last]),
    Test::new("incoming", Config::new(), &[hand_on, incoming]),
    Test::new(
        "before_registered",
        Config::new(),
        &[hand_on, before_registered],
    ),
    Test::new("held", Config::new(), &[hand_on, held]),
    Test::new("retrieve_fails", Config::new(), &[hand_on, retrieve_fails]),
    Test::new(
        "both_sides",
        Config::new().look_for_leaks(),
        &[hand_on, both_sides, again],
    ),
    Test::new("without", Config::new(), &[without, none_arrives]),
    Test::new(
        "recorder_reloaded",
        Config::new(),
        &[hand_on, recorder_reloaded],
    ),
    Test::new(
        "luo_reloaded",
        Config::new().orchestrators(&[Orchestrator::Rust, Orchestrator::None]),
        &[hand_on, luo_reloaded],
    ),
];

const IN: &str = "incoming";
const IN_Y: &str = "incoming-y";
const OUT: &str = "outgoing";
const OUT_Y: &str = "outgoing-y";

fn put(recorder: &Recorder, session: &Session, kind: Kind, id: u64) -> Result<()> {
    Ok(session.preserve(&recorder.open(kind, id)?, id)?)
}

fn outgoing(ctx: &mut Ctx) -> Result<()> {
    let recorder = Recorder::new(ctx)?;
    refused("no file yet", recorder.value(OUT), Errno::ENOENT)?;
    refused("no file yet", recorder.get(OUT), Errno::ENOENT)?;
    refused("a cold boot", recorder.value(IN), Errno::ENODATA)?;
    let session = Device::open()?.create_session("flb")?;
    put(&recorder, &session, Kind::B, 1)?;
    let value = recorder.value(OUT)?;
    ensure!(recorder.value(OUT)? == value);
    recorder.expect("asking has no effect", "x.preserve, preserve b1")?;
    // Whoever has it keeps it, without any file.
    recorder.get(OUT)?;
    recorder.get(OUT)?;
    session.unpreserve(1)?;
    recorder.expect("the last file", "unpreserve b1")?;
    ensure!(recorder.value(OUT)? == value, "another one");
    recorder.put(OUT)?;
    put(&recorder, &session, Kind::A, 2)?;
    recorder.expect("the same x", "y.preserve, preserve a2")?;
    session.unpreserve(2)?;
    recorder.expect("held still", "unpreserve a2, y.unpreserve")?;
    recorder.put(OUT)?;
    recorder.expect("the last holder", "x.unpreserve")?;
    refused("gone", recorder.value(OUT), Errno::ENOENT)?;
    put(&recorder, &session, Kind::B, 3)?;
    ensure!(recorder.value(OUT)? != value, "the old one");
    drop(session);
    ensure!(recorder.live()? == 0);
    recorder.remove()
}

/// One that has data for the next kernel, but no object in this one: there is nothing to be had, or to be given back.
fn without_object(ctx: &mut Ctx) -> Result<()> {
    let recorder = Recorder::new(ctx)?;
    let session = Device::open()?.create_session("flb")?;
    put(&recorder, &session, Kind::A, 1)?;
    refused("its object", recorder.value(OUT_Y), Errno::ENOENT)?;
    refused("its object", recorder.get(OUT_Y), Errno::ENOENT)?;
    recorder.take()?;
    drop(session);
    recorder.expect(
        "nobody holds it",
        "unpreserve a1, y.unpreserve, x.unpreserve",
    )?;
    recorder.remove()
}

fn first_and_last(ctx: &mut Ctx) -> Result<()> {
    let recorder = Recorder::new(ctx)?;
    let device = Device::open()?;
    let mut sessions = Vec::new();
    for i in 0..10 {
        let session = device.create_session(&format!("s{i}"))?;
        for j in 0..10 {
            let kind = if j % 2 == 0 { Kind::A } else { Kind::B };
            put(&recorder, &session, kind, i * 10 + j)?;
        }
        sessions.push(session);
    }
    let flbs = |record: Vec<String>| -> Vec<String> {
        let of_flb = |line: &String| line.contains('.');
        record.into_iter().filter(of_flb).collect()
    };
    let record = flbs(recorder.take()?);
    ensure!(record == ["x.preserve", "y.preserve"], "{record:?}");
    ensure!(recorder.live()? == 102);
    // Not the first that came is the last to go.
    while sessions.len() > 1 {
        drop(sessions.remove(0));
        ensure!(flbs(recorder.take()?).is_empty(), "too early");
    }
    for id in [90, 92, 94, 96] {
        sessions[0].unpreserve(id)?;
    }
    ensure!(flbs(recorder.take()?).is_empty(), "too early");
    sessions[0].unpreserve(98)?;
    ensure!(flbs(recorder.take()?) == ["y.unpreserve"]);
    drop(sessions);
    ensure!(flbs(recorder.take()?) == ["x.unpreserve"]);
    ensure!(recorder.live()? == 0);
    recorder.remove()
}

fn hand_on(ctx: &mut Ctx) -> Result<()> {
    let recorder = Recorder::new(ctx)?;
    let device = Device::open()?;
    for (name, kind, id) in [("one", Kind::A, 1), ("two", Kind::B, 2)] {
        let session = device.create_session(name)?;
        put(&recorder, &session, kind, id)?;
        ctx.keep(session);
    }
    ctx.set("value", recorder.value(OUT)?);
    ctx.keep(recorder);
    Ok(())
}

fn wanted(ctx: &Ctx) -> Result<u64> {
    Ok(ctx.get("value")?.parse()?)
}

/// A driver has it before user space asks, and it ends with the last file.
fn incoming(ctx: &mut Ctx) -> Result<()> {
    let recorder = Recorder::new(ctx)?;
    let value = wanted(ctx)?;
    for _ in 0..2 {
        ensure!(recorder.value(IN)? == value, "{:?}", recorder.value(IN));
    }
    recorder.expect("made once", "x.retrieve")?;
    let device = Device::open()?;
    let two = device.retrieve_session("two")?;
    drop(two.retrieve(2)?);
    two.finish()?;
    drop(two);
    ensure!(recorder.value(IN)? == value, "one file is left");
    let one = device.retrieve_session("one")?;
    recorder.take()?;
    one.finish()?;
    recorder.expect(
        "the last",
        "can_finish a1 0, finish a1 0, y.retrieve, y.finish, x.finish",
    )?;
    // It stays finished, whoever asks: its memory is somebody else's by now.
    let finished = |recorder: &Recorder| -> Result<()> {
        refused("finished", recorder.value(IN), Errno::ENODATA)?;
        recorder.expect("it is not made again", "")
    };
    finished(&recorder)?;
    recorder.link(false)?;
    finished(&recorder)?;
    recorder.remove()?;
    let recorder = Recorder::new(ctx)?;
    finished(&recorder)?;
    recorder.remove()
}

/// A driver may ask before it registers the FLB, and find the same when it has.
fn before_registered(ctx: &mut Ctx) -> Result<()> {
    let recorder = Recorder::new(ctx)?;
    let value = wanted(ctx)?;
    recorder.link(false)?;
    refused("not here", recorder.value(OUT), Errno::ENOENT)?;
    recorder.fail("y.retrieve", 1, Errno::EIO)?;
    for _ in 0..2 {
        refused("it fails", recorder.value(IN_Y), Errno::EIO)?;
    }
    recorder.expect("and is final", "y.retrieve")?;
    for _ in 0..2 {
        ensure!(recorder.value(IN)? == value, "{:?}", recorder.value(IN));
    }
    recorder.expect("made once", "x.retrieve")?;
    recorder.link(true)?;
    refused("registered or not", recorder.value(IN_Y), Errno::EIO)?;
    ensure!(recorder.value(IN)? == value, "{:?}", recorder.value(IN));
    recorder.link(false)?;
    recorder.link(true)?;
    ensure!(recorder.value(IN)? == value, "{:?}", recorder.value(IN));
    recorder.expect("no other", "")?;
    let device = Device::open()?;
    for name in ["one", "two"] {
        drop(device.retrieve_session(name)?);
    }
    let record = recorder.take()?;
    ensure!(record.iter().any(|line| line == "x.finish"), "{record:?}");
    refused("finished", recorder.value(IN), Errno::ENODATA)?;
    recorder.remove()
}

/// Whoever has it keeps it beyond the last file.
fn held(ctx: &mut Ctx) -> Result<()> {
    let recorder = Recorder::new(ctx)?;
    let value = wanted(ctx)?;
    recorder.get(IN)?;
    let device = Device::open()?;
    for name in ["one", "two"] {
        drop(device.retrieve_session(name)?);
    }
    let record = recorder.take()?;
    ensure!(!record.iter().any(|line| line == "x.finish"), "{record:?}");
    ensure!(record.iter().any(|line| line == "y.finish"), "{record:?}");
    ensure!(recorder.value(IN)? == value);
    recorder.put(IN)?;
    recorder.expect("the last holder", "x.finish")?;
    refused("finished", recorder.get(IN), Errno::ENODATA)?;
    recorder.remove()
}

fn retrieve_fails(ctx: &mut Ctx) -> Result<()> {
    let recorder = Recorder::new(ctx)?;
    recorder.fail("x.retrieve", 1, Errno::EIO)?;
    refused("it fails", recorder.value(IN), Errno::EIO)?;
    refused("and is final", recorder.value(IN), Errno::EIO)?;
    recorder.expect("only called once", "x.retrieve")?;
    // The files are usable all the same.
    let device = Device::open()?;
    for (name, id) in [("one", 1), ("two", 2)] {
        let session = device.retrieve_session(name)?;
        session.retrieve(id)?;
        session.finish()?;
    }
    let record = recorder.take()?;
    ensure!(!record.iter().any(|line| line == "x.finish"), "{record:?}");
    recorder.remove()
}

/// In the midst of a chain, the two sides are apart.
fn both_sides(ctx: &mut Ctx) -> Result<()> {
    let recorder = Recorder::new(ctx)?;
    let value = wanted(ctx)?;
    let device = Device::open()?;
    let one = device.retrieve_session("one")?;
    let file = one.retrieve(1)?;
    one.finish()?;
    recorder.take()?;
    let session = device.create_session("one")?;
    refused("not yet", recorder.value(OUT), Errno::ENOENT)?;
    session.preserve(&file, 1)?;
    recorder.expect("a new one", "x.preserve, y.preserve, preserve a1")?;
    ensure!(recorder.value(IN)? == value, "the old one, for token 2");
    let new = recorder.value(OUT)?;
    drop(device.retrieve_session("two")?);
    refused("finished", recorder.value(IN), Errno::ENODATA)?;
    ensure!(recorder.value(OUT)? == new);
    ctx.set("value", new);
    ctx.keep((recorder, session));
    Ok(())
}

fn again(ctx: &mut Ctx) -> Result<()> {
    let recorder = Recorder::new(ctx)?;
    ensure!(recorder.value(IN)? == wanted(ctx)?);
    recorder.take()?;
    let session = Device::open()?.retrieve_session("one")?;
    session.retrieve(1)?;
    session.finish()?;
    let record = recorder.take()?;
    ensure!(record.iter().any(|line| line == "x.finish"), "{record:?}");
    recorder.remove()
}

fn without(ctx: &mut Ctx) -> Result<()> {
    let recorder = Recorder::new(ctx)?;
    ctx.keep(Device::open()?.create_session("empty")?);
    ctx.keep(recorder);
    Ok(())
}

fn none_arrives(ctx: &mut Ctx) -> Result<()> {
    let recorder = Recorder::new(ctx)?;
    refused("not handed over", recorder.value(IN), Errno::ENOENT)?;
    recorder.expect("no call", "")?;
    recorder.remove()
}

/// What the module of an FLB knew is not lost with it.
fn recorder_reloaded(ctx: &mut Ctx) -> Result<()> {
    let device = Device::open()?;
    let recorder = Recorder::new(ctx)?;
    drop(device.retrieve_session("two")?);
    recorder.expect("one of two", "can_finish b2 0, finish b2 0")?;
    recorder.remove()?;
    let recorder = Recorder::new(ctx)?;
    ensure!(recorder.value(IN)? == wanted(ctx)?);
    drop(device.retrieve_session("one")?);
    recorder.expect(
        "the other",
        "x.retrieve, can_finish a1 0, finish a1 0, y.retrieve, y.finish, x.finish",
    )?;
    recorder.remove()
}

/// Nor is what the module knew that has the account of the previous kernel.
fn luo_reloaded(ctx: &mut Ctx) -> Result<()> {
    ctx.insmod("")?;
    let recorder = Recorder::new(ctx)?;
    drop(Device::open()?.retrieve_session("one")?);
    recorder.expect("y", "can_finish a1 0, finish a1 0, y.retrieve, y.finish")?;
    recorder.remove()?;
    ctx.rmmod()?;
    ctx.insmod("")?;
    let recorder = Recorder::new(ctx)?;
    refused("finished", recorder.value(IN_Y), Errno::ENODATA)?;
    recorder.expect("it is not made again", "")?;
    ensure!(recorder.value(IN)? == wanted(ctx)?);
    drop(Device::open()?.retrieve_session("two")?);
    recorder.expect("x", "x.retrieve, can_finish b2 0, finish b2 0, x.finish")?;
    recorder.remove()?;
    ctx.rmmod()
}

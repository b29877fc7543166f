// SPDX-License-Identifier: GPL-2.0

//! File-Lifecycle-Bound objects that no handler has: asked for before they are registered, and unregistered while
//! something of them is left.

use super::common::debugfs::has;
use super::common::luo::Device;
use super::common::modules::{Kind, Recorder};
use super::common::refused;
use crate::ctx::Ctx;
use crate::kexec;
use crate::process::Child;
use crate::test::{Config, Test};
use anyhow::{ensure, Context, Result};
use nix::errno::Errno;
use std::time::Duration;

/// The cases.
pub const TESTS: &[Test] = &[
    Test::new(
        "asked_in_can_preserve",
        Config::new(),
        &[asked_in_can_preserve],
    ),
    Test::new("while_preserved", Config::new(), &[while_preserved]),
    Test::new("while_made", Config::new(), &[hand_on, while_made]),
    Test::new(
        "while_retrieved",
        Config::new(),
        &[hand_on, while_retrieved],
    ),
    Test::new(
        "registered_when_retrieved",
        Config::new(),
        &[hand_on, registered_when_retrieved],
    ),
    Test::new(
        "registered_with_its_handler",
        Config::new(),
        &[hand_on, registered_with_its_handler],
    ),
    Test::new(
        "asks_for_another",
        Config::new(),
        &[hand_on, asks_for_another],
    ),
    Test::new(
        "in_rust",
        Config::new(),
        &[in_rust_while_preserved, in_rust_handed_on],
    ),
];

const IN: &str = "incoming";
const IN_Y: &str = "incoming-y";
const OUT: &str = "outgoing";
const X: &str = "luo-recorder-x-v1";
const Z: &str = "luo-recorder-z-v1";

/// How long anything takes that does not wait for ever.
const SOON: Duration = Duration::from_secs(20);

/// A handler may ask for an FLB when it is asked itself, whatever is locked then.
fn asked_in_can_preserve(ctx: &mut Ctx) -> Result<()> {
    let recorder = Recorder::new(ctx)?;
    recorder.link(false)?;
    recorder.ask("can_preserve", "x")?;
    Child::run(SOON, || {
        let session = Device::open()?.create_session("asks")?;
        Ok(session.preserve(&recorder.open(Kind::B, 1)?, 1)?)
    })?;
    recorder.expect(
        "a cold boot",
        "can_preserve asks x -61, preserve b1, unpreserve b1",
    )?;
    has("flbs", X, None)?;
    recorder.remove()
}

/// Files that are preserved depend on it until they are not: as long it is there, and no longer.
fn while_preserved(ctx: &mut Ctx) -> Result<()> {
    let recorder = Recorder::new(ctx)?;
    let device = Device::open()?;
    let session = device.create_session("flb")?;
    session.preserve(&recorder.open(Kind::B, 1)?, 1)?;
    recorder.link(false)?;
    has("flbs", X, Some("outgoing 1 incoming 0"))?;
    session.unpreserve(1)?;
    recorder.expect(
        "its end",
        "x.preserve, preserve b1, unpreserve b1, x.unpreserve",
    )?;
    has("flbs", X, None)?;
    // What is left may be a driver's reference.
    recorder.link(true)?;
    session.preserve(&recorder.open(Kind::B, 2)?, 2)?;
    recorder.get(OUT)?;
    recorder.link(false)?;
    session.unpreserve(2)?;
    has("flbs", X, Some("outgoing 0 incoming 0"))?;
    recorder.put(OUT)?;
    has("flbs", X, None)?;
    drop(session);
    recorder.nothing_left()?;
    recorder.remove()?;
    // Nobody looks at what went with the module, and it may come again, elsewhere.
    has("flbs", X, None)?;
    let recorder = Recorder::new(ctx)?;
    let session = device.create_session("refused")?;
    session.preserve(&recorder.open(Kind::B, 3)?, 3)?;
    ctx.kexec_load()?;
    recorder.fail("freeze", 1, Errno::EIO)?;
    let said = kexec::execute();
    ensure!(said == Errno::EIO, "reboot() says {said:?}");
    drop(session);
    recorder.nothing_left()?;
    recorder.remove()
}

/// Unregistered while files are preserved, both are handed over all the same.
fn hand_on(ctx: &mut Ctx) -> Result<()> {
    let recorder = Recorder::new(ctx)?;
    let session = Device::open()?.create_session("one")?;
    session.preserve(&recorder.open(Kind::A, 1)?, 1)?;
    ctx.set("value", recorder.value(OUT)?);
    recorder.link(false)?;
    ctx.keep((session, recorder));
    Ok(())
}

/// Finishes the file, with which all ends.
fn finish(recorder: &Recorder, wanted: &str) -> Result<()> {
    recorder.take()?;
    drop(Device::open()?.retrieve_session("one")?);
    recorder.expect("the last file", wanted)?;
    for side in [IN, IN_Y] {
        refused("finished", recorder.value(side), Errno::ENODATA)?;
    }
    Ok(())
}

/// To register and unregister waits for no callback.
fn while_made(ctx: &mut Ctx) -> Result<()> {
    let recorder = Recorder::new(ctx)?;
    recorder.hold("x.retrieve", 1)?;
    let mut asks = Child::spawn(|pipe| {
        use std::io::Write;
        let _ = writeln!(pipe, "{:?}", recorder.value(IN));
    })?;
    recorder.wait_for(ctx, "x.retrieve")?;
    for linked in [false, true, false] {
        Child::run(SOON, || recorder.link(linked))?;
    }
    recorder.open_gate()?;
    let said = asks.listen(SOON)?;
    let value: u64 = ctx.get("value")?.parse()?;
    let wanted = format!("{:?}", Ok::<_, Errno>(value));
    ensure!(said == crate::process::Said::Line(wanted), "{said:?}");
    asks.wait()?;
    has("flbs", X, Some("outgoing 0 incoming 1"))?;
    recorder.link(true)?;
    ensure!(recorder.value(IN)? == value, "another one");
    finish(
        &recorder,
        "can_finish a1 0, finish a1 0, y.retrieve, y.finish, x.finish",
    )?;
    recorder.remove()
}

/// A file that was retrieved depends on it until it is finished.
fn while_retrieved(ctx: &mut Ctx) -> Result<()> {
    let recorder = Recorder::new(ctx)?;
    let session = Device::open()?.retrieve_session("one")?;
    let file = session.retrieve(1)?;
    let value: u64 = ctx.get("value")?.parse()?;
    ensure!(recorder.value(IN)? == value, "another one");
    recorder.link(false)?;
    has("flbs", X, Some("outgoing 0 incoming 1"))?;
    session.finish()?;
    recorder.expect(
        "the last file",
        "retrieve a1, x.retrieve, can_finish a1 1, finish a1 1, y.retrieve, y.finish, x.finish",
    )?;
    has("flbs", X, None)?;
    drop((file, session));
    recorder.nothing_left()?;
    recorder.remove()
}

/// And it does if the FLB comes when it was retrieved.
fn registered_when_retrieved(ctx: &mut Ctx) -> Result<()> {
    comes_when_retrieved(ctx, |recorder| recorder.link(true))
}

/// And it does if its handler, too, is another registration than that which has retrieved it.
fn registered_with_its_handler(ctx: &mut Ctx) -> Result<()> {
    comes_when_retrieved(ctx, Recorder::register_again)
}

fn comes_when_retrieved(
    ctx: &mut Ctx,
    register: impl FnOnce(&Recorder) -> Result<()>,
) -> Result<()> {
    let recorder = Recorder::new(ctx)?;
    recorder.link(false)?;
    let session = Device::open()?.retrieve_session("one")?;
    let file = session.retrieve(1)?;
    register(&recorder)?;
    session.finish()?;
    recorder.expect(
        "the last file",
        "retrieve a1, can_finish a1 1, finish a1 1, y.retrieve, y.finish, x.retrieve, x.finish",
    )?;
    has("flbs", X, Some("outgoing 0 incoming 0"))?;
    drop((file, session));
    recorder.nothing_left()?;
    recorder.remove()
}

/// A callback may ask for another one that is not registered either.
fn asks_for_another(ctx: &mut Ctx) -> Result<()> {
    let recorder = Recorder::new(ctx)?;
    recorder.link(false)?;
    recorder.ask("x.retrieve", "y")?;
    let value: u64 = ctx.get("value")?.parse()?;
    Child::run(SOON, || {
        ensure!(recorder.value(IN)? == value, "another one");
        Ok(())
    })?;
    recorder.expect("x by y", "x.retrieve, y.retrieve, x.retrieve asks y 0")?;
    recorder.link(true)?;
    finish(
        &recorder,
        "can_finish a1 0, finish a1 0, y.finish, x.finish",
    )?;
    recorder.remove()
}

/// The same where a driver in Rust drops its registration, and stays: its files depend on what they did.
fn in_rust_while_preserved(ctx: &mut Ctx) -> Result<()> {
    let recorder = Recorder::with_rust(ctx)?;
    let device = Device::open()?;
    let session = device.create_session("local")?;
    session.preserve(&recorder.open(Kind::C, 1)?, 1)?;
    recorder.link_rust(false)?;
    has("flbs", Z, Some("outgoing 1 incoming 0"))?;
    refused("its name", recorder.link_rust(true), Errno::EEXIST)?;
    // No file depends on it any more from now on.
    session.preserve(&recorder.open(Kind::C, 2)?, 2)?;
    session.unpreserve(1)?;
    has("flbs", Z, None)?;
    recorder.expect(
        "its end",
        "z.preserve, preserve c1, preserve c2, unpreserve c1, z.unpreserve",
    )?;
    drop(session);
    recorder.link_rust(true).context("its name is free")?;
    recorder.remove()?;

    let recorder = Recorder::with_rust(ctx)?;
    let session = device.create_session("one")?;
    session.preserve(&recorder.open(Kind::C, 1)?, 1)?;
    recorder.link_rust(false)?;
    ctx.keep((session, recorder));
    Ok(())
}

fn in_rust_handed_on(ctx: &mut Ctx) -> Result<()> {
    let recorder = Recorder::with_rust(ctx)?;
    drop(Device::open()?.retrieve_session("one")?);
    recorder.expect(
        "the last file",
        "can_finish c1 0, finish c1 0, z.retrieve, z.finish",
    )?;
    recorder.remove()
}

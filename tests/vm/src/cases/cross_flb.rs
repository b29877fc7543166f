// SPDX-License-Identifier: GPL-2.0

//! Between implementations: a handler in C with FLBs, the same source in the kernel itself for the orchestrator in C, and
//! as a module for ours. Both call it alike, and what one hands over the other takes.

use super::common::luo::{Device, Session};
use super::common::modules::{id_of, Kind, Recorder};
use super::common::{data, memfd, refused};
use crate::ctx::Ctx;
use crate::test::{Config, Orchestrator, Test};
use anyhow::{ensure, Context, Result};
use nix::errno::Errno;
use Orchestrator::{Rust, C};

/// The cases.
pub const TESTS: &[Test] = &[
    Test::new(
        "c_to_rust",
        CONFIG.orchestrators(&[C, Rust]),
        &[hand_on, arrive],
    ),
    Test::new(
        "rust_to_c",
        CONFIG.orchestrators(&[Rust, C]),
        &[hand_on, arrive],
    ),
    Test::new(
        "rust_rust_c_rust",
        CONFIG.orchestrators(&[Rust, Rust, C, Rust]),
        &[hand_on, pass_on, pass_on, arrive],
    ),
    Test::new(
        "c_to_rust_late",
        CONFIG.orchestrators(&[C, Rust]),
        &[hand_on, arrive_late],
    ),
];

const CONFIG: Config = Config::new().with_recorder().params("memfd_v2=1");

const SESSIONS: [&str; 2] = ["first", "second"];
/// Files of each session: the number of the recorder's is the token and ten for each session.
const FILES: [(u64, Kind); 3] = [(1, Kind::A), (2, Kind::B), (4, Kind::A)];
const MEMFD: u64 = 3;
const SIZE: u64 = 50_000;

fn id(session: usize, token: u64) -> u64 {
    session as u64 * 10 + token
}

/// As the record calls it.
fn call(session: usize, token: u64) -> String {
    let kind = if token == 2 { 'b' } else { 'a' };
    format!("{kind}{}", id(session, token))
}

/// The record of one callback for all files of a session.
fn each(callback: &str, session: usize, suffix: &str) -> Vec<String> {
    let files = FILES.iter();
    files
        .map(|(token, _)| format!("{callback} {}{suffix}", call(session, *token)))
        .collect()
}

fn put_all(recorder: &Recorder, session: &Session, i: usize) -> Result<()> {
    for (token, kind) in FILES {
        if token > MEMFD {
            let file = memfd::create(SIZE)?;
            data::fill(&file, i as u64, data::whole(SIZE))?;
            session.preserve(&file, MEMFD)?;
        }
        let file = recorder.open(kind, id(i, token))?;
        session
            .preserve(&file, token)
            .with_context(|| format!("token {token}"))?;
    }
    Ok(())
}

fn hand_on(ctx: &mut Ctx) -> Result<()> {
    let recorder = Recorder::new(ctx)?;
    let device = Device::open()?;
    preserve(ctx, recorder, &device)
}

/// The same files anew, with a try before that is given up.
fn preserve(ctx: &mut Ctx, recorder: Recorder, device: &Device) -> Result<()> {
    refused("no file", recorder.value("outgoing"), Errno::ENOENT)?;
    recorder.take()?;
    let tried = device.create_session("tried")?;
    put_all(&recorder, &tried, 5)?;
    drop(tried);
    let made = ["x.preserve".to_string(), "y.preserve".to_string()];
    let mut unmade = each("unpreserve", 5, "");
    unmade.reverse();
    let wanted = [
        &made[..],
        &each("preserve", 5, ""),
        &unmade,
        &["y.unpreserve".to_string(), "x.unpreserve".to_string()],
    ]
    .concat();
    // FLBs go with the last file of their kinds, which is the first one here.
    recorder.expect("a try", &wanted.join(", "))?;
    for (i, name) in SESSIONS.into_iter().enumerate() {
        let session = device.create_session(name)?;
        put_all(&recorder, &session, i)?;
        ctx.keep(session);
    }
    let wanted = [
        &made[..],
        &each("preserve", 0, ""),
        &each("preserve", 1, ""),
    ]
    .concat();
    recorder.expect("PRESERVE_FD", &wanted.join(", "))?;
    ctx.set("value", recorder.value("outgoing")?);
    ctx.keep(recorder);
    Ok(())
}

/// Takes all out and finishes it.
fn take(ctx: &Ctx, recorder: &Recorder, device: &Device) -> Result<()> {
    let value = recorder.value("incoming")?;
    ensure!(value.to_string() == ctx.get("value")?, "FLB x is {value}");
    // The orchestrator in C miscounts an FLB that nobody asks for before its files are finished.
    recorder.value("incoming-y")?;
    recorder.expect("asking a first time", "x.retrieve, y.retrieve")?;
    for (i, name) in SESSIONS.into_iter().enumerate() {
        let session = device.retrieve_session(name)?;
        for (token, _) in FILES {
            let file = session
                .retrieve(token)
                .with_context(|| format!("{name}, token {token}"))?;
            ensure!(id_of(&file)? == id(i, token), "{name}, token {token}");
        }
        let file = session.retrieve(MEMFD)?;
        data::check(&file, i as u64, SIZE, &[data::whole(SIZE)])?;
        recorder.expect("RETRIEVE_FD", &each("retrieve", i, "").join(", "))?;
        session.finish()?;
        let mut wanted = each("can_finish", i, " 1");
        let mut finished = each("finish", i, " 1");
        finished.reverse();
        wanted.extend(finished);
        if i + 1 == SESSIONS.len() {
            wanted.extend(["y.finish", "x.finish"].map(String::from));
        }
        recorder.expect("FINISH", &wanted.join(", "))?;
    }
    refused("finished", recorder.value("incoming"), Errno::ENODATA)
}

fn pass_on(ctx: &mut Ctx) -> Result<()> {
    let recorder = Recorder::new(ctx)?;
    let device = Device::open()?;
    take(ctx, &recorder, &device)?;
    preserve(ctx, recorder, &device)
}

fn arrive(ctx: &mut Ctx) -> Result<()> {
    let recorder = Recorder::new(ctx)?;
    take(ctx, &recorder, &Device::open()?)?;
    recorder.nothing_left()?;
    recorder.remove()
}

/// Without the handler all else is usable, and loading it makes the rest so: the orchestrator in C knew nothing of this.
fn arrive_late(ctx: &mut Ctx) -> Result<()> {
    let device = Device::open()?;
    let second = device.retrieve_session(SESSIONS[1])?;
    refused("no handler", second.retrieve(1), Errno::ENOENT)?;
    let file = second.retrieve(MEMFD)?;
    data::check(&file, 1, SIZE, &[data::whole(SIZE)])?;
    refused("not without it", second.finish(), Errno::EBUSY)?;
    drop(second);
    let recorder = Recorder::new(ctx)?;
    take(ctx, &recorder, &device)?;
    recorder.remove()
}

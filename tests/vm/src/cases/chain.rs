// SPDX-License-Identifier: GPL-2.0

//! Ten live updates in a row: after each, number, data and order are right, and what all files of a type share is there.

use super::common::luo::{Device, Session};
use super::common::modules::{id_of, Kind, Recorder};
use super::common::{data, memfd, refused};
use crate::ctx::Ctx;
use crate::test::{Config, StageFn, Test};
use anyhow::{ensure, Context, Result};
use nix::errno::Errno;
use std::fs::File;
use std::os::unix::fs::FileExt;

/// The cases.
pub const TESTS: &[Test] = &[Test::new("ten", Config::new(), &STAGES)];

const UPDATES: usize = 10;
const STAGES: [StageFn; UPDATES + 1] = {
    let mut stages: [StageFn; UPDATES + 1] = [middle; UPDATES + 1];
    stages[0] = first;
    stages[UPDATES] = last;
    stages
};

/// What is in each of the two sessions at first.
const NAMES: [&str; 2] = ["alpha", "beta"];
const MEMFDS: u64 = 3;
/// Token and number of the recorder's file.
const RECORDED: u64 = 50;
/// Each kernel adds a memfd; its token is this and the kernel's number.
const ADDED: u64 = 100;
const SIZE: u64 = 40_000;

/// The tokens that a session arrives with in a kernel, in order: as many as there are, turned by one in each.
fn tokens(kernel: usize) -> Vec<u64> {
    let before = kernel as u64 - 1;
    let mut tokens: Vec<_> = (0..MEMFDS)
        .chain([RECORDED])
        .chain((1..=before).map(|kernel| ADDED + kernel))
        .collect();
    let count = tokens.len();
    tokens.rotate_left(before as usize % count);
    tokens
}

/// The first kernel that a memfd was in.
fn first_kernel(token: u64) -> usize {
    (token.saturating_sub(ADDED)).max(1) as usize
}

/// The bytes of a memfd when it arrives in a kernel: each one before has left its number in it.
fn contents(session: usize, token: u64, kernel: usize) -> Vec<u8> {
    let mut bytes = data::bytes(seed(session, token), 0, SIZE as usize);
    for before in first_kernel(token)..kernel {
        let at = mark_at(before) as usize;
        bytes[at..at + 8].copy_from_slice(&(before as u64).to_le_bytes());
    }
    bytes
}

fn seed(session: usize, token: u64) -> u64 {
    1000 * session as u64 + token
}

/// Where a kernel leaves its number: on a page of its own, now and then.
fn mark_at(kernel: usize) -> u64 {
    kernel as u64 * 3001
}

fn leave_mark(file: &File, kernel: usize) -> Result<()> {
    Ok(file.write_all_at(&(kernel as u64).to_le_bytes(), mark_at(kernel))?)
}

fn new_memfd(session: usize, token: u64) -> Result<File> {
    let file = memfd::create(SIZE)?;
    data::fill(&file, seed(session, token), data::whole(SIZE))?;
    Ok(file)
}

fn first(ctx: &mut Ctx) -> Result<()> {
    let recorder = Recorder::new(ctx)?;
    let device = Device::open()?;
    refused("a cold boot", recorder.value("incoming"), Errno::ENODATA)?;
    ensure!(device.info()?.liveupdate_num == 0);
    let mut files: [Vec<_>; 2] = Default::default();
    for (i, files) in files.iter_mut().enumerate() {
        for token in 0..MEMFDS {
            files.push((token, new_memfd(i, token)?));
        }
        files.push((RECORDED, recorder.open(Kind::A, RECORDED + i as u64)?));
    }
    hand_on(ctx, recorder, &device, files)
}

fn middle(ctx: &mut Ctx) -> Result<()> {
    let recorder = Recorder::new(ctx)?;
    let device = Device::open()?;
    let files = arrive(ctx, &recorder, &device)?;
    hand_on(ctx, recorder, &device, files)
}

fn last(ctx: &mut Ctx) -> Result<()> {
    let recorder = Recorder::new(ctx)?;
    drop(arrive(ctx, &recorder, &Device::open()?)?);
    recorder.nothing_left()?;
    recorder.remove()
}

/// Leaves a mark everywhere, adds a memfd, and hands all on, in an order turned by one.
fn hand_on(
    ctx: &mut Ctx,
    recorder: Recorder,
    device: &Device,
    files: [Vec<(u64, File)>; 2],
) -> Result<()> {
    let kernel = ctx.stage();
    for (i, mut files) in files.into_iter().enumerate() {
        let added = ADDED + kernel as u64;
        files.push((added, new_memfd(i, added)?));
        let session = device.create_session(NAMES[i])?;
        for wanted in tokens(kernel + 1) {
            let found = files.iter().find(|(token, _)| *token == wanted);
            let (token, file) = found.with_context(|| format!("token {wanted}"))?;
            session.preserve(file, *token)?;
            // After it was preserved, as a guest's memory is written to.
            if *token != RECORDED {
                leave_mark(file, kernel)?;
            }
        }
        ctx.keep(session);
    }
    ctx.set("flb", recorder.value("outgoing")?);
    ctx.keep(recorder);
    Ok(())
}

/// Takes all that the previous kernel handed over, and checks it.
fn arrive(ctx: &mut Ctx, recorder: &Recorder, device: &Device) -> Result<[Vec<(u64, File)>; 2]> {
    let kernel = ctx.stage();
    let number = device.info()?.liveupdate_num;
    ensure!(
        number == kernel as u64 - 1,
        "live update {number} in kernel {kernel}"
    );
    let (entries, _) = device.list_sessions(0, 9)?;
    let names: Vec<_> = entries.iter().map(|entry| entry.name()).collect();
    ensure!(names == NAMES, "{names:?}");
    let shared = recorder.value("incoming")?;
    ensure!(shared.to_string() == ctx.get("flb")?, "FLB x is {shared}");

    let mut files: [Vec<_>; 2] = Default::default();
    for (i, files) in files.iter_mut().enumerate() {
        let session = device.retrieve_session(NAMES[i])?;
        session.set_flags(1)?;
        let wanted = tokens(kernel);
        let there = session.tokens()?;
        ensure!(there == wanted, "{there:?} instead of {wanted:?}");
        for token in wanted {
            let file = take(&session, i, token, kernel)
                .with_context(|| format!("{}, token {token}", NAMES[i]))?;
            files.push((token, file));
        }
        session.finish()?;
    }
    refused("finished", recorder.value("incoming"), Errno::ENODATA)?;
    ensure!(device.list_sessions(0, 0)?.1 == 0);
    Ok(files)
}

fn take(session: &Session, i: usize, token: u64, kernel: usize) -> Result<File> {
    let file = session.retrieve(token)?;
    if token == RECORDED {
        let id = id_of(&file)?;
        ensure!(id == RECORDED + i as u64, "file {id}");
        return Ok(file);
    }
    let mut got = vec![0; SIZE as usize];
    file.read_exact_at(&mut got, 0)?;
    let wanted = contents(i, token, kernel);
    if let Some(at) = (0..got.len()).find(|&at| got[at] != wanted[at]) {
        anyhow::bail!("byte {at} is {:#x} instead of {:#x}", got[at], wanted[at]);
    }
    let size = file.metadata()?.len();
    ensure!(size == SIZE, "{size} bytes");
    Ok(file)
}

// SPDX-License-Identifier: GPL-2.0

//! Seals through a kexec: none lost, none added, each in force.

use super::common::data::{self, whole};
use super::common::luo::{Device, Session};
use super::common::memfd::{self, Mapping};
use super::common::{only_ours, refused};
use crate::ctx::Ctx;
use crate::test::{Config, Test};
use anyhow::{ensure, Context, Result};
use nix::errno::Errno;
use std::fs::File;

/// The cases.
pub const TESTS: &[Test] = &[
    Test::new("each_and_all", Config::new(), &[preserve_all, check_all]),
    Test::new(
        "made_unsealable",
        Config::new(),
        &[preserve_plain, check_plain],
    ),
    Test::new(
        "not_executable",
        Config::new(),
        &[preserve_noexec, check_noexec],
    ),
    Test::new("preserved_and_let_go", Config::new(), &[let_go]),
];

const SEAL: i32 = libc::F_SEAL_SEAL;
const SHRINK: i32 = libc::F_SEAL_SHRINK;
const GROW: i32 = libc::F_SEAL_GROW;
const WRITE: i32 = libc::F_SEAL_WRITE;
const FUTURE_WRITE: i32 = libc::F_SEAL_FUTURE_WRITE;
const EXEC: i32 = 0x20;

const SIZE: u64 = 10_001;

/// All combinations of the seals that can be set one by one; EXEC brings others with it.
fn combinations() -> impl Iterator<Item = i32> {
    (0..32).map(|bits| {
        let all = [SEAL, SHRINK, GROW, WRITE, FUTURE_WRITE];
        let chosen = (0..5).filter(|i| bits >> i & 1 == 1);
        chosen.fold(0, |seals, i| seals | all[i])
    })
}

fn sealed(seed: u64, seals: i32) -> Result<File> {
    let file = memfd::create(SIZE)?;
    data::fill(&file, seed, whole(SIZE))?;
    memfd::add_seals(&file, seals).with_context(|| format!("seals {seals:#x}"))?;
    Ok(file)
}

/// Fails unless the seals are these, and do what they say.
fn are_in_force(file: &File, seed: u64, seals: i32) -> Result<()> {
    let actual = memfd::seals(file)?;
    ensure!(actual == seals, "seals {actual:#x}");
    data::check(file, seed, SIZE, &[whole(SIZE)])?;

    let answers = |what: &str, result: Result<(), Errno>, sealed: bool| match sealed {
        true => refused(what, result, Errno::EPERM),
        false => result.with_context(|| what.to_string()),
    };
    let no_write = seals & (WRITE | FUTURE_WRITE) != 0;
    let byte = data::bytes(seed, 0, 1);
    answers(
        "writing",
        memfd::write_at(file, 0, &byte).map(drop),
        no_write,
    )?;
    let writable = Mapping::new(file, SIZE as usize).map(drop);
    answers("mapping it to write", writable, no_write)?;
    Mapping::with_protection(file, SIZE as usize, libc::PROT_READ).context("mapping it to read")?;
    let grown = memfd::truncate(file, SIZE + 5000);
    answers("growing", grown, seals & GROW != 0)?;
    let size = file.metadata()?.len();
    let shrunk = memfd::truncate(file, SIZE - 1);
    answers("shrinking", shrunk, seals & SHRINK != 0)?;
    let punched = memfd::punch(file, 0, 4096);
    answers("punching", punched, no_write)?;
    let added = memfd::add_seals(file, SHRINK | GROW);
    answers("adding seals", added, seals & SEAL != 0)?;
    ensure!(size == SIZE || seals & GROW == 0, "it grew");
    Ok(())
}

fn preserve_all(ctx: &mut Ctx) -> Result<()> {
    let session = Device::open()?.create_session("seals")?;
    for seals in combinations() {
        let token = seals as u64;
        session
            .preserve(&sealed(token, seals)?, token)
            .with_context(|| format!("seals {seals:#x}"))?;
    }
    ctx.keep(session);
    Ok(())
}

fn check_all(_: &mut Ctx) -> Result<()> {
    let session = Device::open()?.retrieve_session("seals")?;
    for seals in combinations() {
        let file = session.retrieve(seals as u64)?;
        are_in_force(&file, seals as u64, seals).with_context(|| format!("seals {seals:#x}"))?;
    }
    session.finish()?;
    Ok(())
}

fn preserve_plain(ctx: &mut Ctx) -> Result<()> {
    let file = memfd::create_with(libc::MFD_CLOEXEC, SIZE)?;
    data::fill(&file, 1, whole(SIZE))?;
    ensure!(memfd::seals(&file)? == SEAL);
    let session = Device::open()?.create_session("plain")?;
    session.preserve(&file, 1)?;
    ctx.keep(session);
    Ok(())
}

fn check_plain(_: &mut Ctx) -> Result<()> {
    let session = Device::open()?.retrieve_session("plain")?;
    are_in_force(&session.retrieve(1)?, 1, SEAL)?;
    session.finish()?;
    Ok(())
}

/// Files made as not executable, which is a seal that leaves them writable, with every combination of other seals but
/// one: with all four of them it cannot be told from a file that was executable when it was sealed, which gets them all.
fn not_executable() -> impl Iterator<Item = i32> {
    let others = SHRINK | GROW | WRITE | FUTURE_WRITE;
    combinations()
        .filter(move |seals| seals & others != others)
        .map(|seals| seals | EXEC)
}

const EXECUTABLE: u64 = 1000;

fn preserve_noexec(ctx: &mut Ctx) -> Result<()> {
    const MFD_NOEXEC_SEAL: u32 = 8;
    let session = Device::open()?.create_session("exec")?;
    for seals in not_executable() {
        let file = memfd::create_with(libc::MFD_CLOEXEC | MFD_NOEXEC_SEAL, SIZE)?;
        data::fill(&file, 1, whole(SIZE))?;
        ensure!(memfd::seals(&file)? == EXEC);
        memfd::add_seals(&file, seals)?;
        ensure!(memfd::seals(&file)? == seals);
        session.preserve(&file, seals as u64)?;
    }
    let file = sealed(2, EXEC)?;
    let seals = memfd::seals(&file)?;
    ensure!(
        seals == EXEC | SHRINK | GROW | WRITE | FUTURE_WRITE,
        "{seals:#x}"
    );
    session.preserve(&file, EXECUTABLE)?;
    ctx.keep(session);
    Ok(())
}

fn check_noexec(ctx: &mut Ctx) -> Result<()> {
    let session = Device::open()?.retrieve_session("exec")?;
    let all = EXEC | SHRINK | GROW | WRITE | FUTURE_WRITE;
    are_in_force(&session.retrieve(EXECUTABLE)?, 2, all).context("executable")?;
    only_ours(ctx, "makes it executable, and by that seals it entirely")?;
    for seals in not_executable() {
        let file = session.retrieve(seals as u64)?;
        are_in_force(&file, 1, seals).with_context(|| format!("seals {seals:#x}"))?;
    }
    session.finish()?;
    Ok(())
}

/// Being preserved for a while neither adds nor takes seals.
fn let_go(_: &mut Ctx) -> Result<()> {
    let device = Device::open()?;
    for seals in combinations() {
        let file = sealed(7, seals)?;
        let session: Session = device.create_session("for a while")?;
        session
            .preserve(&file, 1)
            .with_context(|| format!("seals {seals:#x}"))?;
        drop(session);
        are_in_force(&file, 7, seals).with_context(|| format!("seals {seals:#x}"))?;
    }
    Ok(())
}

// SPDX-License-Identifier: GPL-2.0

//! A retrieved memfd is a memfd as any other, be its pages in the page cache yet or not: what is done to it is done to
//! one of this kernel, too, and both must look alike.

use super::common::luo::{Device, Session};
use super::common::memfd_ops::{self, Op, OPS, POPULATED, SIZE};
use super::common::modules::Recorder;
use super::common::pages::PAGE;
use super::common::seen::{self, Outline};
use super::common::{memfd, refused};
use crate::ctx::Ctx;
use crate::test::{Config, Test};
use anyhow::{ensure, Context, Result};
use nix::errno::Errno;
use std::fs::File;

/// The cases.
pub const TESTS: &[Test] = &[
    Test::new(
        "everything",
        CONFIG,
        &[preserve, do_everything, check_again],
    ),
    Test::new(
        "everything_from_v2",
        CONFIG.params("memfd_v2=1"),
        &[preserve, do_everything, check_again],
    ),
    Test::new(
        "everything_from_tables",
        STAYING,
        &[preserve_shuffled, do_everything, check_again],
    ),
    Test::new(
        "everything_from_singles",
        STAYING,
        &[preserve_scattered, do_everything, check_again],
    ),
    Test::new(
        "everything_from_large",
        CONFIG,
        &[preserve_large, do_everything, check_again],
    ),
    Test::new(
        "everything_from_huge",
        CONFIG.look_for_leaks(),
        &[preserve_huge, do_everything, check_again],
    ),
    Test::new("swapoff", CONFIG, &[preserve_two, swap_off]),
];

const CONFIG: Config = Config::new().swap_mib(256).timeout_s(400);
/// A scratch area so small that memory is not from there, and would be moved into large folios.
const STAYING: Config = CONFIG.cmdline("kho_scratch=64M,16M,16M");

/// Sessions: of files that are used before FINISH, and of such that are used after it.
const SESSIONS: [&str; 2] = ["early", "late"];

fn preserve(ctx: &mut Ctx) -> Result<()> {
    preserve_all(ctx, memfd_ops::file)
}

/// Pages that are in any order in memory are handed over as a table.
fn preserve_shuffled(ctx: &mut Ctx) -> Result<()> {
    has_a_table(ctx, memfd_ops::shuffled)?;
    preserve_all(ctx, memfd_ops::shuffled)
}

/// The same, and each of them is preserved by itself.
fn preserve_scattered(ctx: &mut Ctx) -> Result<()> {
    has_a_table(ctx, memfd_ops::scattered)?;
    preserve_all(ctx, memfd_ops::scattered)
}

/// Fails unless such a file is handed over by a table, as can be told by the memory that it takes.
fn has_a_table(ctx: &mut Ctx, file: fn(u64) -> Result<File>) -> Result<()> {
    let recorder = Recorder::new(ctx)?;
    let pages = || Ok::<_, anyhow::Error>(recorder.kept()?.context("KHO's debugfs")?.1);
    let session = Device::open()?.create_session("first")?;
    let file = file(0)?;
    // The session has a page of its own as soon as it has a file.
    session.preserve(&memfd::create(0)?, 1)?;
    let before = pages()?;
    session.preserve(&file, 2)?;
    let more = pages()? - before;
    // The description and the table: a list of them would take two pages behind the description.
    ensure!(
        more == POPULATED + 2,
        "{more} pages for a file of {POPULATED}"
    );
    drop(session);
    recorder.remove()
}

/// Folios are made of their pages when somebody wants them.
fn preserve_large(ctx: &mut Ctx) -> Result<()> {
    preserve_all(ctx, |seed| memfd_ops::in_folios(seed, 16))
}

fn preserve_huge(ctx: &mut Ctx) -> Result<()> {
    preserve_all(ctx, |seed| memfd_ops::in_folios(seed, 2048))
}

fn preserve_all(ctx: &mut Ctx, file: fn(u64) -> Result<File>) -> Result<()> {
    let device = Device::open()?;
    for name in SESSIONS {
        let session = device.create_session(name)?;
        for token in 0..OPS.len() as u64 {
            session.preserve(&file(token)?, token)?;
        }
        ctx.keep(session);
    }
    Ok(())
}

/// Takes out a file that nobody has touched, and fails unless it looks as it did.
fn retrieve(session: &Session, token: u64, wanted: &Outline) -> Result<File> {
    let file = session.retrieve(token)?;
    let outline = Outline::of(&file)?;
    ensure!(outline == *wanted, "{outline:?} instead of {wanted:?}");
    let resident = seen::resident(&file)?;
    ensure!(resident == 0, "{resident} pages are there already");
    Ok(file)
}

/// Does the same to an arrived file and to one of this kernel, and compares.
fn compare(file: &File, seed: u64, op: &Op) -> Result<()> {
    let wanted = memfd_ops::file(seed)?;
    let (answer, wish) = (op.run(file)?, op.run(&wanted)?);
    ensure!(answer == wish, "answered {answer}, instead of {wish}");
    seen::alike(file, &wanted)
}

fn do_everything(ctx: &mut Ctx) -> Result<()> {
    let device = Device::open()?;
    let [early, late] = SESSIONS.map(|name| device.retrieve_session(name));
    let (early, late) = (early?, late?);
    let outgoing = device.create_session("again")?;
    let outline = Outline::of(&memfd_ops::file(0)?)?;

    let mut files = Vec::new();
    for (token, (name, op)) in (0..).zip(OPS) {
        let test = || -> Result<File> {
            let file = retrieve(&early, token, &outline)?;
            let busy = outgoing.preserve(&file, token);
            refused("preserving it", busy, Errno::EBUSY)?;
            compare(&file, token, op)?;
            Ok(file)
        };
        files.push(test().with_context(|| format!("{name:?} before FINISH"))?);
    }
    early.finish()?;

    let arrived: Vec<_> = (0..OPS.len() as u64)
        .map(|token| retrieve(&late, token, &outline))
        .collect::<Result<_>>()?;
    late.finish()?;
    for (token, (file, (name, op))) in (0..).zip(arrived.iter().zip(OPS)) {
        let test = || -> Result<()> {
            let resident = seen::resident(file)? as u64;
            ensure!(resident == POPULATED, "only {resident} pages are there");
            ensure!(Outline::of(file)? == outline, "{:?}", Outline::of(file)?);
            compare(file, token, op)
        };
        test().with_context(|| format!("{name:?} after FINISH"))?;
    }

    // All of it on to the next kernel, at once.
    for (token, file) in (0..).zip(files.iter().chain(&arrived)) {
        outgoing
            .preserve(file, token)
            .with_context(|| format!("file {token} again"))?;
    }
    ctx.keep(outgoing);
    Ok(())
}

fn check_again(_: &mut Ctx) -> Result<()> {
    let session = Device::open()?.retrieve_session("again")?;
    for token in 0..2 * OPS.len() {
        let seed = token % OPS.len();
        let (name, op) = &OPS[seed];
        let test = || -> Result<()> {
            let file = session.retrieve(token as u64)?;
            let wanted = memfd_ops::file(seed as u64)?;
            op.run(&wanted)?;
            if *name == "fallocate" {
                // To preserve what was only allocated is to make it data.
                let map = memfd::Mapping::new(&wanted, wanted.metadata()?.len() as usize)?;
                map.advise(libc::MADV_POPULATE_READ)?;
            }
            let pages = |file: &File| -> Result<_> { Ok(Outline::of(file)?.data) };
            let (are, wanted_are) = (pages(&file)?, pages(&wanted)?);
            // A hole that was only read is one again when its page is dropped, which the kernel does or does not.
            let is_as_made = || -> Result<_> {
                let made = pages(&memfd_ops::file(seed as u64)?)?;
                Ok(*name == "MADV_PAGEOUT" && are == made)
            };
            ensure!(
                are == wanted_are || is_as_made()?,
                "{are:?} instead of {wanted_are:?}"
            );
            ensure!(memfd::seals(&file)? == memfd::seals(&wanted)?, "its seals");
            seen::same_bytes(&file, &wanted)
        };
        test().with_context(|| format!("{name:?}, file {token}"))?;
    }
    session.finish()?;
    Ok(())
}

const SWAP: &std::ffi::CStr = c"/dev/zram0";

fn preserve_two(ctx: &mut Ctx) -> Result<()> {
    let session = Device::open()?.create_session("swap")?;
    for token in 0..2 {
        session.preserve(&memfd_ops::file(token)?, token)?;
    }
    ctx.keep(session);
    Ok(())
}

/// The swap device goes while files have pages in it, pages in memory, and such as nobody has touched yet.
fn swap_off(ctx: &mut Ctx) -> Result<()> {
    let session = Device::open()?.retrieve_session("swap")?;
    let untouched = session.retrieve(0)?;
    let file = session.retrieve(1)?;
    let map = memfd::Mapping::new(&file, SIZE as usize)?;
    let total = ctx.meminfo_kib("SwapTotal")?;
    for round in 0..3 {
        // Each round brings in some more pages, and swaps out all that are there.
        for page in 0..50 {
            map.read((round * 60 + page) * PAGE);
        }
        map.advise(libc::MADV_PAGEOUT).context("MADV_PAGEOUT")?;
        let used = total - ctx.meminfo_kib("SwapFree")?;
        ensure!(used >= 100, "only {used} KiB were swapped out");
        // SAFETY: a string that ends in NUL.
        Errno::result(unsafe { libc::swapoff(SWAP.as_ptr()) }).context("swapoff")?;
        let resident = seen::resident(&file)?;
        ensure!(
            (50..500).contains(&resident),
            "{resident} pages are there after swapoff"
        );
        ensure!(seen::resident(&untouched)? == 0, "swapoff brought all in");
        // SAFETY: as above.
        Errno::result(unsafe { libc::swapon(SWAP.as_ptr(), 0) }).context("swapon")?;
    }
    drop(map);
    seen::alike(&file, &memfd_ops::file(1)?)?;
    session.finish()?;
    seen::alike(&untouched, &memfd_ops::file(0)?)
}

// SPDX-License-Identifier: GPL-2.0

//! memfds whose pages are not plain pages in memory: swapped out, in large folios, in scattered frames.

use super::common::cgroup::Cgroup;
use super::common::data::{self, whole, Extent};
use super::common::luo::Device;
use super::common::memfd::{self, Mapping};
use super::common::pages::PAGE;
use super::races::LONG;
use crate::ctx::Ctx;
use crate::process::Child;
use crate::test::{Config, Test};
use anyhow::{ensure, Context, Result};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Barrier;

/// The cases.
pub const TESTS: &[Test] = &[
    Test::new("swapped_out", SWAP, &[preserve_swapped, check_swapped]),
    Test::new("swapped_and_let_go", SWAP, &[swap_and_let_go]),
    Test::new("swapped_after_arrival", SWAP, &[hand_on, swap_arrived]),
    Test::new("cut_in_swap", SWAP, &[cut_in_swap, check_cut]),
    Test::new("cut_in_full_cgroup", SWAP, &[cut_in_full_cgroup]),
    Test::new("huge_folios", Config::new(), &[preserve_huge, check_huge]),
    Test::new(
        "huge_by_advice",
        Config::new(),
        &[preserve_advised, check_huge],
    ),
    Test::new(
        "huge_wanted_by_all",
        Config::new(),
        &[preserve_wanted, want_at_once],
    ),
    Test::new(
        "small_folios_mixed",
        Config::new(),
        &[preserve_mixed, check_mixed],
    ),
    Test::new(
        "scattered",
        Config::new(),
        &[preserve_scattered, check_scattered],
    ),
];

const SWAP: Config = Config::new().swap_mib(256);
const SHMEM_ENABLED: &str = "/sys/kernel/mm/transparent_hugepage/shmem_enabled";
const HUGE: u64 = 2 << 20;
const SIZE: u64 = 24 << 20;

fn swap_used_kib(ctx: &Ctx) -> Result<u64> {
    Ok(ctx.meminfo_kib("SwapTotal")? - ctx.meminfo_kib("SwapFree")?)
}

/// Puts all of a file out to swap, and fails if less than half of it went.
fn swap_out(ctx: &Ctx, file: &File, size: u64) -> Result<()> {
    let before = swap_used_kib(ctx)?;
    memfd::swap_out(file)?;
    let swapped = swap_used_kib(ctx)? - before;
    ensure!(
        swapped > size >> 11,
        "only {swapped} KiB of {size} bytes went to swap"
    );
    Ok(())
}

fn preserve_swapped(ctx: &mut Ctx) -> Result<()> {
    let session = Device::open()?.create_session("swap")?;
    let full = memfd::create(SIZE)?;
    data::fill(&full, 1, whole(SIZE))?;
    swap_out(ctx, &full, SIZE)?;
    session.preserve(&full, 1).context("all swapped out")?;
    data::check(&full, 1, SIZE, &[whole(SIZE)])?;

    // Partly swapped out, partly in memory, partly hole.
    let partly = memfd::create(SIZE)?;
    data::fill(&partly, 2, whole(SIZE / 3))?;
    swap_out(ctx, &partly, SIZE / 3)?;
    data::fill(&partly, 2, tail())?;
    session.preserve(&partly, 2).context("partly swapped out")?;
    // As much pressure as the machine has cannot put preserved pages out.
    for file in [&full, &partly] {
        let _ = Mapping::new(file, SIZE as usize)?.advise(libc::MADV_PAGEOUT);
    }
    ctx.keep(session);
    Ok(())
}

fn tail() -> Extent {
    Extent {
        start: SIZE - SIZE / 3,
        len: SIZE / 3,
    }
}

fn check_swapped(_: &mut Ctx) -> Result<()> {
    let session = Device::open()?.retrieve_session("swap")?;
    let full = session.retrieve(1)?;
    data::check(&full, 1, SIZE, &[whole(SIZE)]).context("all swapped out")?;
    let partly = session.retrieve(2)?;
    data::check(&partly, 2, SIZE, &[whole(SIZE / 3), tail()]).context("partly swapped out")?;
    session.finish()?;
    Ok(())
}

/// Pages that were preserved can be swapped out again once they are not.
fn swap_and_let_go(ctx: &mut Ctx) -> Result<()> {
    let file = memfd::create(SIZE)?;
    data::fill(&file, 3, whole(SIZE))?;
    swap_out(ctx, &file, SIZE)?;
    let session = Device::open()?.create_session("swap")?;
    session.preserve(&file, 1)?;
    drop(session);
    data::check(&file, 3, SIZE, &[whole(SIZE)])?;
    swap_out(ctx, &file, SIZE).context("after it was let go")?;
    data::check(&file, 3, SIZE, &[whole(SIZE)])
}

/// Puts a file of this size out to swap, some of its folios of 64 KiB as such.
fn swap_out_folios(ctx: &Ctx, file: &File) -> Result<()> {
    let before = memfd::folios_swapped_out(64)?;
    swap_out(ctx, file, SIZE)?;
    ensure!(
        memfd::folios_swapped_out(64)? > before,
        "no folio was swapped out as a whole"
    );
    Ok(())
}

const FOLIO: u64 = 64 << 10;

/// Where [`cut_in_swap`] cuts: at a page, within a folio of 64 KiB.
const CUT: u64 = SIZE / 2 + 5 * PAGE as u64;

/// The new end of a file lies within a folio that is swapped out: the kernel is done with it, and what was cut off is gone.
fn cut_in_swap(ctx: &mut Ctx) -> Result<()> {
    let file = memfd::create(SIZE)?;
    memfd::fill_with_folios(&file, whole(SIZE), 64)?;
    data::fill(&file, 5, whole(SIZE))?;
    swap_out_folios(ctx, &file)?;
    memfd::truncate(&file, CUT)?;
    memfd::truncate(&file, SIZE)?;
    data::check(&file, 5, SIZE, &[whole(CUT)])?;
    swap_out(ctx, &file, CUT)?;
    let session = Device::open()?.create_session("swap")?;
    session.preserve(&file, 1)?;
    ctx.keep(session);
    Ok(())
}

/// The same where who pays for the file may have no memory: nobody could end that, neither. But nobody is killed for a page
/// of which a part goes.
fn cut_in_full_cgroup(ctx: &mut Ctx) -> Result<()> {
    let cgroup = Cgroup::new("full")?;
    let file = memfd::create(SIZE)?;
    cgroup.run(LONG, || {
        memfd::fill_with_folios(&file, whole(SIZE), 64)?;
        data::fill(&file, 5, whole(SIZE))
    })?;
    swap_out_folios(ctx, &file)?;
    let bystander = Child::holder(|| cgroup.enter())?;
    let refused = cgroup.events("max")?;
    // Nothing goes with it that would make room.
    let mut cut = SIZE - 11 * PAGE as u64;
    loop {
        cgroup.fill_up()?;
        Child::run(LONG, || Ok(memfd::truncate(&file, cut)?)).context("cutting it")?;
        if cgroup.events("max")? > refused {
            break;
        }
        // What the child before had is given back late.
        cut -= FOLIO;
        ensure!(cut > SIZE / 2, "there was memory");
    }
    ensure!(cgroup.events("oom_kill")? == 0 && !bystander.has_ended()?);
    cgroup.limit(None)?;
    memfd::truncate(&file, SIZE)?;
    data::check(&file, 5, SIZE, &[whole(cut)])?;
    bystander.kill()?;
    Ok(())
}

fn check_cut(_: &mut Ctx) -> Result<()> {
    let session = Device::open()?.retrieve_session("swap")?;
    data::check(&session.retrieve(1)?, 5, SIZE, &[whole(CUT)])?;
    session.finish()?;
    Ok(())
}

fn hand_on(ctx: &mut Ctx) -> Result<()> {
    let file = memfd::create(SIZE)?;
    data::fill(&file, 4, whole(SIZE))?;
    let session = Device::open()?.create_session("swap")?;
    session.preserve(&file, 1)?;
    ctx.keep(session);
    Ok(())
}

fn swap_arrived(ctx: &mut Ctx) -> Result<()> {
    let session = Device::open()?.retrieve_session("swap")?;
    let file = session.retrieve(1)?;
    session.finish()?;
    swap_out(ctx, &file, SIZE).context("an arrived file")?;
    data::check(&file, 4, SIZE, &[whole(SIZE)])?;
    memfd::truncate(&file, 1)?;
    memfd::truncate(&file, SIZE)?;
    data::check(&file, 4, SIZE, &[whole(1)])
}

/// Lets new memfds have huge folios. The setting lasts for the life of this kernel.
fn set_huge(mode: &str) -> Result<()> {
    std::fs::write(SHMEM_ENABLED, mode).with_context(|| format!("{SHMEM_ENABLED} = {mode}"))
}

/// A filled file, of which at least one folio is huge.
fn huge_file(ctx: &Ctx, size: u64, fill: impl FnOnce(&File) -> Result<()>) -> Result<File> {
    let before = ctx.meminfo_kib("ShmemHugePages")?;
    let file = memfd::create(size)?;
    fill(&file)?;
    let huge = ctx.meminfo_kib("ShmemHugePages")? - before;
    ensure!(huge >= HUGE >> 10, "only {huge} KiB are in huge folios");
    Ok(file)
}

/// Sizes: whole folios, and ones that end within a folio.
const HUGE_SIZES: [u64; 4] = [HUGE, 4 * HUGE, 3 * HUGE + 5000, 2 * HUGE - 1];

fn preserve_huge(ctx: &mut Ctx) -> Result<()> {
    set_huge("always")?;
    let session = Device::open()?.create_session("huge")?;
    for (token, size) in (0..).zip(HUGE_SIZES) {
        let file = huge_file(ctx, size, |file| data::fill(file, token, whole(size)))?;
        session.preserve(&file, token)?;
        data::check(&file, token, size, &[whole(size)])?;
    }
    set_huge("never")?;
    ctx.keep(session);
    Ok(())
}

fn preserve_advised(ctx: &mut Ctx) -> Result<()> {
    set_huge("advise")?;
    let session = Device::open()?.create_session("huge")?;
    for (token, size) in (0..).zip(HUGE_SIZES) {
        let file = huge_file(ctx, size.next_multiple_of(HUGE), |file| {
            let map = Mapping::new(file, size.next_multiple_of(HUGE) as usize)?;
            map.advise(libc::MADV_HUGEPAGE).context("MADV_HUGEPAGE")?;
            for (index, byte) in data::bytes(token, 0, size as usize).iter().enumerate() {
                map.write(index, *byte);
            }
            Ok(())
        })?;
        memfd::truncate(&file, size)?;
        session.preserve(&file, token)?;
    }
    set_huge("never")?;
    ctx.keep(session);
    Ok(())
}

fn check_huge(_: &mut Ctx) -> Result<()> {
    let session = Device::open()?.retrieve_session("huge")?;
    for (token, size) in (0..).zip(HUGE_SIZES) {
        let file = session.retrieve(token)?;
        data::check(&file, token, size, &[whole(size)])
            .with_context(|| format!("of {size} bytes"))?;
        memfd::truncate(&file, size + 5000)?;
        data::check(&file, token, size + 5000, &[whole(size)])
            .with_context(|| format!("of {size} bytes, grown"))?;
        // A part of a huge folio is taken away.
        memfd::punch(&file, PAGE as u64, PAGE as u64)?;
        let rest = Extent {
            start: 2 * PAGE as u64,
            len: size - 2 * PAGE as u64,
        };
        data::check(&file, token, size + 5000, &[whole(PAGE as u64), rest])
            .with_context(|| format!("of {size} bytes, punched"))?;
    }
    session.finish()?;
    Ok(())
}

const WANTED: u64 = 24;

fn preserve_wanted(ctx: &mut Ctx) -> Result<()> {
    let size = WANTED * HUGE;
    let file = memfd::create(size)?;
    memfd::fill_with_folios(&file, whole(size), HUGE >> 10)?;
    data::fill(&file, 8, whole(size))?;
    let session = Device::open()?.create_session("wanted")?;
    session.preserve(&file, 1)?;
    ctx.keep(session);
    Ok(())
}

/// Several threads want different pages of the same folio at the same time, of which each is made once; one that is
/// truncated meanwhile is gone for all.
fn want_at_once(_: &mut Ctx) -> Result<()> {
    const THREADS: usize = 4;
    let size = WANTED * HUGE;
    let session = Device::open()?.retrieve_session("wanted")?;
    let file = session.retrieve(1)?;
    let map = Mapping::new(&file, size as usize)?;
    let start = Barrier::new(THREADS);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (map, start, file) = (&map, &start, &file);
            scope.spawn(move || {
                for folio in 0..WANTED {
                    let place = folio * HUGE + (thread * 100 * PAGE) as u64;
                    start.wait();
                    if folio % 3 == 2 && thread == 0 {
                        let all = memfd::punch(file, folio * HUGE, HUGE);
                        assert!(all.is_ok(), "{all:?}");
                    } else {
                        map.read(place as usize);
                    }
                }
            });
        }
    });
    let gone = |folio: &u64| folio % 3 == 2;
    for folio in (0..WANTED).filter(gone) {
        let mut bytes = vec![1; HUGE as usize];
        file.read_exact_at(&mut bytes, folio * HUGE)?;
        ensure!(
            bytes.iter().all(|&byte| byte == 0),
            "folio {folio} is not empty"
        );
        memfd::punch(&file, folio * HUGE, HUGE)?;
    }
    let there = (0..WANTED)
        .filter(|folio| !gone(folio))
        .map(|folio| Extent {
            start: folio * HUGE,
            len: HUGE,
        });
    data::check(&file, 8, size, &there.collect::<Vec<_>>())?;
    Ok(session.finish()?)
}

const MIXED: u64 = 6 * HUGE;
const MIXED_EXTENTS: [Extent; 3] = [
    // in small folios, in huge ones, and in a huge one again of which a part was punched
    Extent {
        start: 0,
        len: 100 * PAGE as u64 + 5,
    },
    Extent {
        start: 2 * HUGE,
        len: HUGE + 300_000,
    },
    Extent {
        start: 5 * HUGE,
        len: HUGE / 2,
    },
];

fn preserve_mixed(ctx: &mut Ctx) -> Result<()> {
    let file = memfd::create(MIXED)?;
    set_huge("never")?;
    data::fill(&file, 5, MIXED_EXTENTS[0])?;
    set_huge("always")?;
    data::fill(&file, 5, MIXED_EXTENTS[1])?;
    data::fill(&file, 5, MIXED_EXTENTS[2])?;
    ensure!(ctx.meminfo_kib("ShmemHugePages")? > 0, "no huge folio");
    memfd::punch(&file, 5 * HUGE + HUGE / 2, HUGE / 2)?;
    let session = Device::open()?.create_session("mixed")?;
    session.preserve(&file, 1)?;
    data::check(&file, 5, MIXED, &MIXED_EXTENTS)?;
    set_huge("never")?;
    ctx.keep(session);
    Ok(())
}

fn check_mixed(_: &mut Ctx) -> Result<()> {
    let session = Device::open()?.retrieve_session("mixed")?;
    let file = session.retrieve(1)?;
    data::check(&file, 5, MIXED, &MIXED_EXTENTS)?;
    session.finish()?;
    Ok(())
}

const PIECES: u64 = 2000;

/// Two files whose pages are allocated by turns: no two neighbours of one lie side by side in memory.
fn preserve_scattered(ctx: &mut Ctx) -> Result<()> {
    let files = [memfd::create(PIECES * 4096)?, memfd::create(PIECES * 4096)?];
    for page in 0..PIECES {
        for (seed, file) in (0..).zip(&files) {
            // Backwards in one of them.
            let index = if seed == 0 { page } else { PIECES - 1 - page };
            let extent = Extent {
                start: index * 4096,
                len: 4096,
            };
            data::fill(file, seed, extent)?;
        }
    }
    let session = Device::open()?.create_session("scattered")?;
    session.preserve(&files[0], 0)?;
    session.preserve(&files[1], 1)?;
    ctx.keep(session);
    Ok(())
}

fn check_scattered(_: &mut Ctx) -> Result<()> {
    let session = Device::open()?.retrieve_session("scattered")?;
    for token in [1, 0] {
        let file = session.retrieve(token)?;
        data::check(&file, token, PIECES * 4096, &[whole(PIECES * 4096)])?;
    }
    session.finish()?;
    Ok(())
}

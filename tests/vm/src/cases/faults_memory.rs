// SPDX-License-Identifier: GPL-2.0

//! Every step of PRESERVE_FD fails once where the memory of a memfd is not just single pages that may stay where they
//! are: it is in large folios, swapped out, or in the way of the next kernel; and where they are so scattered that they
//! are listed in tables.

use super::common::data::{self, whole, Extent};
use super::common::faults::Sweep;
use super::common::in_the_way::{self, Layout, BLOCK};
use super::common::memfd::{self, Mapping};
use super::common::pages::PAGE;
use super::common::scene::{free, Scene};
use super::common::seen;
use crate::ctx::Ctx;
use crate::test::{Config, Test};
use anyhow::{bail, ensure, Context, Result};
use std::cell::RefCell;
use std::fs::File;

/// The cases.
pub const TESTS: &[Test] = &[
    Test::new("large_folios", STAYING, &[large_folios]),
    Test::new("tables", STAYING, &[tables]),
    Test::new("swapped", SWAP, &[swapped]),
    Test::new("moved", ROOMY, &[moved]),
];

const CONFIG: Config = Config::new().timeout_s(1800).with_faults();
/// A scratch area so small that memory is not from there, and would have to be moved.
const STAYING: Config = CONFIG.cmdline("kho_scratch=32M,16M,16M");
/// One CPU, on which all waits that has to be on an LRU list to be swapped out.
const SWAP: Config = CONFIG.swap_mib(64).cpus(1);
const ROOMY: Config = CONFIG.memory_mib(1536);
const P: u64 = PAGE as u64;
/// Its own file's contents.
const SEED: u64 = 17;
/// Of the one that is moved: a large folio.
const SIZE_MOVED: u64 = BLOCK as u64 * P;

/// The size of folios that are larger than a page.
const FOLIO: u64 = 16 << 10;
/// More of these than are preserved at a time, and than there is room for in the page of the description.
const LARGE: Extent = whole(300 * FOLIO);
/// Where there are none at first, and pages behind.
const LATE: Extent = Extent {
    start: LARGE.len,
    len: 70 * FOLIO,
};
const TAIL: u64 = LATE.start + LATE.len;
const LARGE_SIZE: u64 = TAIL + 40 * P;

/// Every other page behind the large folios, or those in between.
fn tail(first: u64) -> impl Iterator<Item = Extent> {
    let page = |i| Extent {
        start: TAIL + i * P,
        len: P,
    };
    (first..40).step_by(2).map(page)
}

/// Fills a part of a file with large folios.
fn fill_large(file: &File, extent: Extent) -> Result<()> {
    memfd::fill_with_folios(file, extent, FOLIO >> 10)?;
    data::fill(file, SEED, extent)
}

fn check_large(file: &File, late: bool) -> Result<()> {
    let late = late.then_some([LATE].into_iter().chain(tail(1)));
    let extents = [LARGE].into_iter().chain(tail(0));
    let mut extents: Vec<_> = extents.chain(late.into_iter().flatten()).collect();
    extents.sort_by_key(|extent| extent.start);
    data::check(file, SEED, LARGE_SIZE, &extents)
}

/// Large folios are preserved many at a time, and before the pages that a file has beside them.
fn large_folios(ctx: &mut Ctx) -> Result<()> {
    let scene = Scene::new(ctx)?;
    let session = scene.device.create_session("one")?;
    let file = memfd::create(LARGE_SIZE)?;
    fill_large(&file, LARGE)?;
    tail(0).try_for_each(|page| data::fill(&file, SEED, page))?;
    let kept = || scene.recorder.kept()?.context("KHO's debugfs");
    let before = kept()?;
    Sweep::new("PRESERVE_FD of large folios", || session.preserve(&file, 1))
        .check(|()| {
            let now = kept()?;
            let (keys, pages) = (now.0 - before.0, now.1 - before.1);
            let folios = LARGE.len / FOLIO;
            ensure!(
                (folios..folios + 60).contains(&keys) && pages > LARGE.len / P,
                "that proves nothing: {keys} keys, {pages} pages"
            );
            check_large(&file, false)
        })
        .undo(|()| Ok(session.unpreserve(1)?))
        .run(ctx, &scene.faults, || {
            check_large(&file, false)?;
            Ok(format!("{}, {}", scene.state_with(&session)?, free(&file)?))
        })?;

    let put = || -> Result<()> {
        session.preserve(&file, 1)?;
        fill_large(&file, LATE)?;
        tail(1).try_for_each(|page| data::fill(&file, SEED, page))
    };
    put()?;
    Sweep::new("PREPARE, with large folios", || {
        session.prepare().map_err(|(errno, _)| errno)
    })
    .check(|()| check_large(&file, true))
    .undo(|()| {
        session.cancel()?;
        session.unpreserve(1)?;
        memfd::punch(&file, LATE.start, LATE.len)?;
        tail(1).try_for_each(|page| memfd::punch(&file, page.start, page.len))?;
        put()
    })
    .run(ctx, &scene.faults, || {
        check_large(&file, true)?;
        scene.state_with(&session)
    })?;
    drop((session, file));
    scene.close(ctx)
}

/// What a table has.
const TABLE: u64 = BLOCK as u64 * P;
/// Of these the next kernel gets a run in memory, and where in the file each page of it is.
const RUN: Extent = whole(TABLE);
/// Each of these is preserved by itself.
const SINGLES: Extent = Extent {
    start: TABLE,
    len: TABLE,
};
/// Where there is nothing at first.
const LATER: Extent = Extent {
    start: 2 * TABLE,
    len: TABLE,
};

/// Pages in no order of memory, before the freeze and in it.
fn tables(ctx: &mut Ctx) -> Result<()> {
    let scene = Scene::new(ctx)?;
    let session = scene.device.create_session("one")?;
    let other = memfd::create(3 * TABLE)?;
    let file = memfd::create(3 * TABLE)?;
    memfd::scatter(&[&file], RUN)?;
    memfd::scatter(&[&file, &other], SINGLES)?;
    let early = whole(2 * TABLE);
    data::fill(&file, SEED, early)?;
    let is = |extent| data::check(&file, SEED, 3 * TABLE, &[extent]);
    let pages = || Ok::<_, anyhow::Error>(scene.recorder.kept()?.context("KHO's debugfs")?.1);
    // The session has a page of its own as soon as it has a file.
    let with_one_page = memfd::create(P)?;
    data::fill(&with_one_page, SEED, whole(P))?;
    session.preserve(&with_one_page, 2)?;
    let before = pages()?;
    Sweep::new("PRESERVE_FD with tables", || session.preserve(&file, 1))
        .check(|()| {
            // The description, and a table for each 512 pages: a list of them would take two for as many.
            let now = pages()? - before;
            ensure!(now == 1 + 2 * (BLOCK as u64 + 1), "{now} pages more");
            is(early)
        })
        .undo(|()| Ok(session.unpreserve(1)?))
        .run(ctx, &scene.faults, || {
            is(early)?;
            Ok(format!("{}, {}", scene.state_with(&session)?, free(&file)?))
        })?;

    let put = || -> Result<()> {
        session.preserve(&file, 1)?;
        memfd::scatter(&[&file, &other], LATER)?;
        data::fill(&file, SEED, LATER)
    };
    put()?;
    Sweep::new("PREPARE, with a table", || {
        session.prepare().map_err(|(errno, _)| errno)
    })
    .check(|()| {
        let now = pages()? - before;
        ensure!(now == 1 + 3 * (BLOCK as u64 + 1), "{now} pages more");
        is(whole(3 * TABLE))
    })
    .undo(|()| {
        session.cancel()?;
        session.unpreserve(1)?;
        for file in [&file, &other] {
            memfd::punch(file, LATER.start, LATER.len)?;
        }
        put()
    })
    .run(ctx, &scene.faults, || {
        is(whole(3 * TABLE))?;
        scene.state_with(&session)
    })?;
    drop((session, file, other));
    scene.close(ctx)
}

/// What is swapped out is brought back, each page with steps that may fail.
fn swapped(ctx: &mut Ctx) -> Result<()> {
    const PAGES: u64 = 12;
    let scene = Scene::new(ctx)?;
    let session = scene.device.create_session("one")?;
    let file = memfd::create(PAGES * P)?;
    data::fill(&file, SEED, whole(PAGES * P))?;
    let swap_out = || {
        memfd::swap_out(&file)?;
        let resident = seen::resident(&file)?;
        ensure!(resident < PAGES as usize / 2, "{resident} pages are there");
        Ok(())
    };
    swap_out()?;
    let points = Sweep::new("PRESERVE_FD of what is swapped out", || {
        session.preserve(&file, 1)
    })
    .check(|()| data::check(&file, SEED, PAGES * P, &[whole(PAGES * P)]))
    .undo(|()| Ok(session.unpreserve(1)?))
    .run(ctx, &scene.faults, || {
        swap_out()?;
        scene.state_with(&session)
    })?;
    // It is tried again to bring a page in.
    ensure!(points.absorbed() >= PAGES as u32, "{points}");
    data::check(&file, SEED, PAGES * P, &[whole(PAGES * P)])?;
    drop((session, file));
    scene.close(ctx)
}

/// A memfd in memory that has to be moved, and a mapping of it.
fn file_in_the_way() -> Result<(File, Mapping)> {
    let mut others = Vec::new();
    for _ in 0..20 {
        let file = memfd::create(SIZE_MOVED)?;
        data::fill(&file, SEED, whole(SIZE_MOVED))?;
        let map = Mapping::aligned(&file, BLOCK * PAGE, BLOCK * PAGE)?;
        if Layout::of(&map, BLOCK)?.in_the_way > BLOCK / 2 {
            return Ok((file, map));
        }
        // Holds what was freed a moment ago, elsewhere.
        others.push(file);
    }
    bail!("no memory that has to be moved is to be had")
}

/// Where one step to move memory fails, another way is found to move it.
fn moved(ctx: &mut Ctx) -> Result<()> {
    let scene = Scene::new(ctx)?;
    let session = scene.device.create_session("one")?;
    let crowd = in_the_way::crowd(32 << 20, 64 << 20)?;
    let file = RefCell::new(file_in_the_way()?);
    let same = || data::check(&file.borrow().0, SEED, SIZE_MOVED, &[whole(SIZE_MOVED)]);
    let blocks = RefCell::new([0; 2]);
    let points = Sweep::new("PRESERVE_FD of what has to be moved", || {
        session.preserve(&file.borrow().0, 1)
    })
    .check(|()| {
        let layout = Layout::of(&file.borrow().1, BLOCK)?;
        ensure!(layout.in_the_way == 0, "{layout:?}");
        blocks.borrow_mut()[layout.whole_blocks] += 1;
        same()
    })
    .undo(|()| {
        session.unpreserve(1)?;
        file.replace(file_in_the_way()?);
        Ok(())
    })
    .run(ctx, &scene.faults, || {
        same()?;
        scene.state_with(&session)
    })?;
    let [by_page, as_a_whole] = blocks.into_inner();
    ctx.figure(&format!(
        "moved as a whole {as_a_whole} times, page by page {by_page} times"
    ));
    ensure!(
        as_a_whole > 0 && by_page > 0 && points.absorbed() > 0,
        "not all of it was tried: {points}"
    );
    drop((session, file, crowd));
    scene.close(ctx)
}

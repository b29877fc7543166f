// SPDX-License-Identifier: GPL-2.0

//! A preserved memfd keeps its shape and takes new contents; let go, it is a memfd like any other.

use super::common::luo::Device;
use super::common::memfd::{self, Mapping};
use super::common::pages::PAGE;
use super::common::{data, only_ours, refused};
use crate::ctx::Ctx;
use crate::test::{Config, Test};
use anyhow::{ensure, Context, Result};
use nix::errno::Errno;
use std::fs::File;

/// The cases.
pub const TESTS: &[Test] = &[
    Test::new("shape", Config::new(), &[shape]),
    Test::new("shape_of_sparse", Config::new(), &[shape_of_sparse]),
    Test::new("written", Config::new(), &[write_before, written_after]),
    Test::new("holes_filled", Config::new(), &[fill_holes, holes_filled]),
    Test::new("sealed_late", Config::new(), &[seal_late, sealed_after]),
    Test::new("open_elsewhere", Config::new(), &[close_ours, not_lost]),
];

const SIZE: u64 = 4 * PAGE as u64 + 100;

/// Everything that would change the shape is refused, and does nothing.
fn keeps_its_shape(file: &File, size: u64) -> Result<()> {
    let page = PAGE as u64;
    let before = file.metadata()?;
    for smaller in [0, 1, page, size - 1] {
        let what = format!("truncating to {smaller}");
        refused(&what, memfd::truncate(file, smaller), Errno::EPERM)?;
    }
    for larger in [size + 1, size + page, 1 << 30] {
        let what = format!("growing to {larger}");
        refused(&what, memfd::truncate(file, larger), Errno::EPERM)?;
    }
    for (start, len) in [(0, page), (0, size), (page, 2 * page), (10, 20)] {
        let what = format!("punching {len} bytes at {start}");
        refused(&what, memfd::punch(file, start, len), Errno::EPERM)?;
    }
    let more = memfd::fallocate(file, 0, size, page);
    refused("fallocate behind the end", more, Errno::EPERM)?;
    let within = memfd::fallocate(file, 0, 0, page);
    refused("fallocate within", within, Errno::EPERM)?;
    for start in [size, size + 10, 1 << 30] {
        let what = format!("writing at {start}");
        refused(&what, memfd::write_at(file, start, b"more"), Errno::EPERM)?;
    }
    let after = file.metadata()?;
    ensure!(after.len() == before.len(), "the size changed");
    memfd::truncate(file, size).context("truncating to the size it has")
}

/// All of that works on a file that is not preserved.
fn changes_its_shape(file: &File, size: u64) -> Result<()> {
    memfd::write_at(file, size, b"more").context("writing at the end")?;
    memfd::truncate(file, 1 << 20).context("growing")?;
    memfd::punch(file, 0, PAGE as u64).context("punching")?;
    memfd::fallocate(file, 0, 0, 2 << 20).context("fallocate")?;
    memfd::truncate(file, 0).context("truncating")?;
    memfd::truncate(file, size).context("restoring the size")
}

fn shape(_: &mut Ctx) -> Result<()> {
    let file = memfd::create(SIZE)?;
    data::fill(&file, 1, data::whole(SIZE))?;
    let session = Device::open()?.create_session("frozen")?;
    session.preserve(&file, 1)?;
    for _ in 0..3 {
        keeps_its_shape(&file, SIZE)?;
        keeps_its_shape(&memfd::reopen(&file, true)?, SIZE)?;
        data::check(&file, 1, SIZE, &[data::whole(SIZE)])?;
    }
    drop(session);
    data::check(&file, 1, SIZE, &[data::whole(SIZE)])?;
    changes_its_shape(&file, SIZE)
}

fn shape_of_sparse(_: &mut Ctx) -> Result<()> {
    const LARGE: u64 = 1 << 20;
    let extent = data::Extent {
        start: 300_000,
        len: 5000,
    };
    let file = memfd::create(LARGE)?;
    data::fill(&file, 2, extent)?;
    let session = Device::open()?.create_session("frozen")?;
    session.preserve(&file, 1)?;
    keeps_its_shape(&file, LARGE)?;
    data::check(&file, 2, LARGE, &[extent])?;
    drop(session);
    data::check(&file, 2, LARGE, &[extent])?;
    changes_its_shape(&file, LARGE)?;

    let empty = memfd::create(0)?;
    let session = Device::open()?.create_session("frozen")?;
    session.preserve(&empty, 1)?;
    refused("growing it", memfd::truncate(&empty, 1), Errno::EPERM)?;
    refused(
        "writing to it",
        memfd::write_at(&empty, 0, b"x"),
        Errno::EPERM,
    )?;
    drop(session);
    memfd::write_at(&empty, 0, b"x").context("writing to it")?;
    Ok(())
}

fn write_before(ctx: &mut Ctx) -> Result<()> {
    let file = memfd::create(SIZE)?;
    data::fill(&file, 3, data::whole(SIZE))?;
    let map = Mapping::new(&file, SIZE as usize)?;
    let session = Device::open()?.create_session("written")?;
    session.preserve(&file, 1)?;
    // By a call, by a mapping from before, by one made since, and by another open file.
    data::fill(&file, 4, data::Extent { start: 0, len: 10 })?;
    map.write(PAGE, 0x5a);
    Mapping::new(&file, SIZE as usize)?.write(2 * PAGE + 1, 0xa5);
    memfd::write_at(&memfd::reopen(&file, true)?, SIZE - 1, b"!")?;
    memfd::seek(&file, 1234)?;
    ctx.keep((session, file, map));
    Ok(())
}

fn written_after(_: &mut Ctx) -> Result<()> {
    let session = Device::open()?.retrieve_session("written")?;
    let file = session.retrieve(1)?;
    ensure!(
        memfd::position(&file)? == 1234,
        "the position is an old one"
    );
    let mut wanted = data::bytes(3, 0, SIZE as usize);
    wanted[..10].copy_from_slice(&data::bytes(4, 0, 10));
    wanted[PAGE] = 0x5a;
    wanted[2 * PAGE + 1] = 0xa5;
    wanted[SIZE as usize - 1] = b'!';
    let map = Mapping::new(&file, SIZE as usize)?;
    for (i, byte) in wanted.iter().enumerate() {
        ensure!(map.read(i) == *byte, "byte {i} is {:#x}", map.read(i));
    }
    session.finish()?;
    changes_its_shape(&file, SIZE)
}

const HOLES: u64 = 64 * PAGE as u64;
const LATE: [data::Extent; 3] = [
    data::Extent {
        start: 0,
        len: 3 * PAGE as u64,
    },
    data::Extent {
        start: 20 * PAGE as u64 + 5,
        len: 7,
    },
    data::Extent {
        start: HOLES - 1,
        len: 1,
    },
];

fn fill_holes(ctx: &mut Ctx) -> Result<()> {
    let file = memfd::create(HOLES)?;
    let session = Device::open()?.create_session("holes")?;
    session.preserve(&file, 1)?;
    for extent in LATE {
        data::fill(&file, 5, extent)?;
    }
    // A page that is only read is still a hole, or zero.
    let map = Mapping::new(&file, HOLES as usize)?;
    ensure!(map.read(40 * PAGE) == 0);
    ctx.keep((session, map));
    Ok(())
}

fn holes_filled(_: &mut Ctx) -> Result<()> {
    let session = Device::open()?.retrieve_session("holes")?;
    let file = session.retrieve(1)?;
    data::check(&file, 5, HOLES, &LATE)?;
    session.finish()?;
    data::check(&file, 5, HOLES, &LATE)
}

fn seal_late(ctx: &mut Ctx) -> Result<()> {
    let file = memfd::create(SIZE)?;
    data::fill(&file, 6, data::whole(SIZE))?;
    let session = Device::open()?.create_session("sealed")?;
    session.preserve(&file, 1)?;
    memfd::add_seals(&file, libc::F_SEAL_SHRINK | libc::F_SEAL_FUTURE_WRITE)?;
    ctx.keep(session);
    Ok(())
}

fn sealed_after(ctx: &mut Ctx) -> Result<()> {
    only_ours(ctx, "looks at the seals when the file is preserved, only")?;
    let session = Device::open()?.retrieve_session("sealed")?;
    let file = session.retrieve(1)?;
    let seals = memfd::seals(&file)?;
    let wanted = libc::F_SEAL_SHRINK | libc::F_SEAL_FUTURE_WRITE;
    ensure!(seals == wanted, "seals {seals:#x} instead of {wanted:#x}");
    data::check(&file, 6, SIZE, &[data::whole(SIZE)])?;
    session.finish()?;
    Ok(())
}

fn close_ours(ctx: &mut Ctx) -> Result<()> {
    let session = Device::open()?.create_session("held")?;
    for token in 0..20 {
        let file = memfd::create(SIZE)?;
        data::fill(&file, token, data::whole(SIZE))?;
        session.preserve(&file, token)?;
        // Dropped here: only the session holds it from now on.
    }
    ctx.keep(session);
    Ok(())
}

fn not_lost(_: &mut Ctx) -> Result<()> {
    let session = Device::open()?.retrieve_session("held")?;
    for token in (0..20).rev() {
        let file = session.retrieve(token)?;
        data::check(&file, token, SIZE, &[data::whole(SIZE)])
            .with_context(|| format!("token {token}"))?;
    }
    session.finish()?;
    Ok(())
}

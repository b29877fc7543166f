// SPDX-License-Identifier: GPL-2.0

//! A hole is punched into a memfd that was retrieved, while somebody reads it, by which its untouched pages are brought in:
//! nothing is left in the hole.

use super::common::data::{self, whole, Extent};
use super::common::luo::Device;
use super::common::memfd;
use super::common::pages::PAGE;
use crate::ctx::Ctx;
use crate::test::{Config, Test};
use anyhow::{Context, Result};
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Barrier;

/// The cases.
pub const TESTS: &[Test] = &[Test::new("read_meanwhile", CONFIG, &[preserve, punch])];

const CONFIG: Config = Config::new().memory_mib(1536).timeout_s(400);
const SEED: u64 = 3;
const BLOCK: u64 = 2 << 20;
const BLOCKS: u64 = 256;
const SIZE: u64 = BLOCKS * BLOCK;
/// Pages of a block that are punched: not all of them, or there would be nothing to be split.
const HOLE: Range<u64> = 10..500;
/// Pages of it that are read: one in each piece that there comes to be.
const READ: Range<u64> = 70..448;
const STEP: usize = 33;

fn preserve(ctx: &mut Ctx) -> Result<()> {
    let file = memfd::create(SIZE)?;
    data::fill(&file, SEED, whole(SIZE))?;
    let session = Device::open()?.create_session("punched")?;
    session.preserve(&file, 1)?;
    ctx.keep((session, file));
    Ok(())
}

fn at(block: u64, page: u64) -> u64 {
    block * BLOCK + page * PAGE as u64
}

fn extent(block: u64, pages: Range<u64>) -> Extent {
    let start = at(block, pages.start);
    Extent {
        start,
        len: at(block, pages.end) - start,
    }
}

/// Does something to each block, when the other one comes to it.
fn each_block(begin: &Barrier, act: impl Fn(u64) -> Result<()>) -> Result<()> {
    let mut done = Ok(());
    for block in 0..BLOCKS {
        // To all of them, or the other one would wait for ever.
        begin.wait();
        let now = act(block);
        done = done.and(now);
    }
    done
}

/// Reads some pages of a block.
fn read(file: &File, block: u64) -> Result<()> {
    let mut page = [0; PAGE];
    READ.step_by(STEP)
        .try_for_each(|number| file.read_exact_at(&mut page, at(block, number)))
        .context("reading")
}

fn punch(_: &mut Ctx) -> Result<()> {
    let session = Device::open()?.retrieve_session("punched")?;
    let file = session.retrieve(1)?;
    let begin = Barrier::new(2);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| each_block(&begin, |block| read(&file, block)));
        let punched = each_block(&begin, |block| {
            let hole = extent(block, HOLE);
            memfd::punch(&file, hole.start, hole.len).context("punching")
        });
        reader.join().expect("no panic").and(punched)
    })?;
    // What could not be split, as it was just being read, is there, and zero.
    let ends =
        |block| [0..HOLE.start, HOLE.end..at(1, 0) / PAGE as u64].map(|pages| extent(block, pages));
    let wanted: Vec<_> = (0..BLOCKS).flat_map(ends).collect();
    data::check(&file, SEED, SIZE, &wanted).context("in the holes, or beside them")?;
    session.finish()?;
    Ok(())
}

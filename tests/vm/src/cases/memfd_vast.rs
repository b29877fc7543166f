// SPDX-License-Identifier: GPL-2.0

//! A memfd of many TiB, nearly all of it hole: it takes what its pages take.

use super::common::data::{self, Extent};
use super::common::luo::Device;
use super::common::memfd;
use super::common::only_ours;
use super::common::pages::PAGE;
use super::common::seen;
use crate::ctx::Ctx;
use crate::test::{Config, Test};
use anyhow::{ensure, Result};
use std::os::unix::fs::FileExt;

/// The cases.
pub const TESTS: &[Test] = &[
    Test::new("extents", Config::new(), &[preserve, check]),
    Test::new("v2", Config::new().params("memfd_v2=1"), &[preserve, check]),
];

const P: u64 = PAGE as u64;
/// A file of as many pages as can be described.
const SIZE: u64 = (16 << 40) - P - 77;
/// What it has: its beginning, what is around the middle, where an index of a page has its 32nd bit, and its end.
const EXTENTS: [Extent; 3] = [
    Extent { start: 5, len: 1 },
    Extent {
        start: (8 << 40) - 3 * P,
        len: 6 * P,
    },
    Extent {
        start: SIZE - P,
        len: P,
    },
];
const SEED: u64 = 20;

fn preserve(ctx: &mut Ctx) -> Result<()> {
    only_ours(ctx, "it fills holes")?;
    let session = Device::open()?.create_session("vast")?;
    let file = memfd::create(SIZE)?;
    for extent in EXTENTS {
        data::fill(&file, SEED, extent)?;
    }
    session.preserve(&file, 0)?;
    ctx.keep((session, file));
    Ok(())
}

fn check(_: &mut Ctx) -> Result<()> {
    let session = Device::open()?.retrieve_session("vast")?;
    let file = session.retrieve(0)?;
    session.finish()?;
    ensure!(file.metadata()?.len() == SIZE, "its size");
    let data = seen::data_ranges(&file)?;
    let pages = |extent: Extent| {
        let end = (extent.start + extent.len).next_multiple_of(P);
        extent.start / P * P..end.min(SIZE)
    };
    let wanted = EXTENTS.map(pages);
    ensure!(data == wanted, "{data:?} instead of {wanted:?}");
    for extent in EXTENTS {
        let mut bytes = vec![0; extent.len as usize];
        file.read_exact_at(&mut bytes, extent.start)?;
        let wanted = data::bytes(SEED, extent.start, extent.len as usize);
        ensure!(bytes == wanted, "bytes at {}", extent.start);
    }
    Ok(())
}

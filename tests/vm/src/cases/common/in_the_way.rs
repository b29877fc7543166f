// SPDX-License-Identifier: GPL-2.0

//! Memory that lies where the next kernel boots, in KHO's scratch areas: what is preserved has to be moved from there.

use super::memfd::{self, Mapping};
use super::pages::PAGE;
use crate::frames;
use crate::procfs::number_in;
use anyhow::{bail, ensure, Result};
use std::ops::Range;

/// Pages of a large folio.
pub const BLOCK: usize = 512;

/// Takes so much memory that what is allocated next comes from there, until this is dropped: the first `all` bytes from
/// there alone, then about every other page. As much as `left` bytes stay free elsewhere.
pub fn crowd(all: usize, left: usize) -> Result<Mapping> {
    // The kernel takes from there as soon as more of it is free than of all else.
    let free = |word| Ok::<_, anyhow::Error>(number_in("/proc/meminfo", word)? as usize * 1024);
    let (free, there) = (free("MemFree:")?, free("CmaFree:")?);
    let size = (free + all).saturating_sub(2 * there);
    ensure!(size > 0 && there > all + left, "only {there} bytes there");
    let size = size.next_multiple_of(BLOCK * PAGE);
    let taken = Mapping::new(&memfd::create(free as u64)?, free)?;
    let take = |page: usize| taken.write(page * PAGE, 1);
    (0..size / PAGE).for_each(take);
    // It does so in each zone by itself, and above 4 GiB first: where a VM has memory there, what has to be taken is more.
    let blocks = size / PAGE..free / PAGE - BLOCK;
    for page in blocks.step_by(BLOCK) {
        if Layout::of_pages(&taken, page - BLOCK..page)?.in_the_way > BLOCK / 4 {
            return Ok(taken);
        }
        (page..page + BLOCK).for_each(take);
    }
    bail!("all memory was taken, and nearly none of it was there")
}

/// Whether the page at byte `start` of a mapping, which is touched, is in the way of the next kernel.
pub fn is_page(map: &Mapping, start: usize) -> Result<bool> {
    map.read(start);
    let frame = frames::of_mapping(map.address() + start, 1)?[0];
    ensure!(frame != 0, "a page is not mapped");
    Ok(frames::scratch()?.iter().any(|area| area.contains(&frame)))
}

/// How a memfd lies in memory.
#[derive(Debug)]
pub struct Layout {
    /// Pages that are in the way of the next kernel.
    pub in_the_way: usize,
    /// Blocks of the file that are one piece of memory, as a large folio is.
    pub whole_blocks: usize,
}

impl Layout {
    /// That of the first `count` pages of a mapping, all of which are touched.
    pub fn of(map: &Mapping, count: usize) -> Result<Self> {
        Self::of_pages(map, 0..count)
    }

    fn of_pages(map: &Mapping, pages: Range<usize>) -> Result<Self> {
        for page in pages.clone() {
            map.read(page * PAGE);
        }
        let frames = frames::of_mapping(map.address() + pages.start * PAGE, pages.len())?;
        ensure!(!frames.contains(&0), "a page is not mapped");
        let scratch = frames::scratch()?;
        let is_in_the_way = |frame: &&u64| scratch.iter().any(|area| area.contains(frame));
        let is_whole = |block: &&[u64]| {
            block[0] % BLOCK as u64 == 0 && block.windows(2).all(|pair| pair[0] + 1 == pair[1])
        };
        Ok(Self {
            in_the_way: frames.iter().filter(is_in_the_way).count(),
            whole_blocks: frames.chunks_exact(BLOCK).filter(is_whole).count(),
        })
    }
}

// SPDX-License-Identifier: GPL-2.0

//! Memory that lies where the next kernel boots, in KHO's scratch areas: what is preserved has to be moved from there.

use super::memfd::{self, Mapping};
use super::pages::PAGE;
use crate::frames;
use crate::procfs::number_in;
use anyhow::{ensure, Result};

/// Pages of a large folio.
pub const BLOCK: usize = 512;

/// Takes so much memory that what is allocated next comes from there, until this is dropped: the first `all` bytes from
/// there alone, then about every other page. As much as `left` bytes stay free elsewhere.
pub fn crowd(all: usize, left: usize) -> Result<Mapping> {
    // The kernel takes from there as soon as more of it is free than of all else.
    let free = |word| Ok::<_, anyhow::Error>(number_in("/proc/meminfo", word)? as usize * 1024);
    let there = free("CmaFree:")?;
    let size = (free("MemFree:")? + all).saturating_sub(2 * there);
    ensure!(size > 0 && there > all + left, "only {there} bytes there");
    let size = size.next_multiple_of(BLOCK * PAGE);
    let taken = Mapping::new(&memfd::create(size as u64)?, size)?;
    for page in 0..size / PAGE {
        taken.write(page * PAGE, 1);
    }
    Ok(taken)
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
        for page in 0..count {
            map.read(page * PAGE);
        }
        let frames = frames::of_mapping(map.address(), count)?;
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

// SPDX-License-Identifier: GPL-2.0

//! A file and a journal of what is written to it, itself a memfd: whenever everything stops, at a kexec too, the journal
//! tells what the file must hold.
//!
//! The file is blocks of 512 bytes. Each has a version, 0 being all zeroes, which says what its bytes are. Before a block
//! is changed its next version goes into the journal, and after it the same as its current one. Where both differ, the
//! change was under way, and each byte may be of the one or the other: what copies them may do so one by one.

use super::memfd::{self, Mapping};
use super::pages::PAGE;
use anyhow::{bail, Result};
use std::fs::File;
use std::os::unix::fs::FileExt;

/// Size of a block.
pub const BLOCK: usize = 512;
/// Blocks of a page.
pub const PER_PAGE: usize = PAGE / BLOCK;
const WORDS: usize = BLOCK / 8;
/// Where the file is mapped: it gets large folios only where these are aligned in memory, too.
const ALIGN: usize = 2 << 20;

/// Random numbers of which all come from the seed.
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    /// Begins a sequence.
    pub fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        mix(self.0)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }
}

fn mix(mut x: u64) -> u64 {
    x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}

/// The bytes of a block in this version.
fn content(seed: u64, block: usize, version: u32) -> [u64; WORDS] {
    let start = mix(seed ^ (block as u64) << 32 ^ u64::from(version));
    std::array::from_fn(|i| match version {
        0 => 0,
        _ => mix(start.wrapping_add(i as u64)),
    })
}

/// A file, its journal, and mappings of both. Several threads may use it, each for blocks of its own.
#[derive(Debug)]
pub struct Journaled {
    /// The file.
    pub file: File,
    /// The journal.
    pub journal: File,
    blocks: usize,
    seed: u64,
    data: Mapping,
    versions: Mapping,
}

impl Journaled {
    /// A new file, all hole.
    pub fn create(pages: usize, seed: u64) -> Result<Self> {
        let file = memfd::create((pages * PAGE) as u64)?;
        let journal = memfd::create((pages * PER_PAGE * 8) as u64)?;
        // It must not have holes, which could be filled too late for the kexec.
        memfd::fallocate(&journal, 0, 0, (pages * PER_PAGE * 8) as u64)?;
        Self::open(file, journal, pages, seed)
    }

    /// A file that has arrived with its journal.
    pub fn open(file: File, journal: File, pages: usize, seed: u64) -> Result<Self> {
        let blocks = pages * PER_PAGE;
        let data = Mapping::aligned(&file, pages * PAGE, ALIGN)?;
        let versions = Mapping::new(&journal, blocks * 8)?;
        Ok(Self {
            file,
            journal,
            blocks,
            seed,
            data,
            versions,
        })
    }

    /// The version of a block, and what it is on its way to.
    pub fn versions(&self, block: usize) -> (u32, u32) {
        let word = self.versions.load(block);
        (word as u32, (word >> 32) as u32)
    }

    fn set_next(&self, block: usize, next: u32) {
        let (current, _) = self.versions(block);
        self.versions
            .store(block, u64::from(next) << 32 | u64::from(current));
    }

    fn set_done(&self, block: usize, version: u32) {
        self.versions
            .store(block, u64::from(version) << 32 | u64::from(version));
    }

    /// Changes blocks to these versions by `change`; if it fails, they stay what they were.
    pub fn change(
        &self,
        blocks: std::ops::Range<usize>,
        version: impl Fn(usize) -> u32,
        change: impl FnOnce() -> Result<bool>,
    ) -> Result<bool> {
        let before: Vec<_> = blocks.clone().map(|block| self.versions(block).0).collect();
        blocks
            .clone()
            .for_each(|block| self.set_next(block, version(block)));
        let done = change()?;
        for (block, before) in blocks.zip(before) {
            self.set_done(block, if done { version(block) } else { before });
        }
        Ok(done)
    }

    /// Writes the next version of blocks, by their mapping or by a system call.
    pub fn write(&self, blocks: std::ops::Range<usize>, mapped: bool) -> Result<()> {
        let next = |block: usize| self.versions(block).0 % (u32::MAX - 1) + 1;
        let versions: Vec<_> = blocks.clone().map(next).collect();
        let first = blocks.start;
        self.change(
            blocks.clone(),
            |block| versions[block - first],
            || {
                let words = blocks
                    .clone()
                    .flat_map(|block| content(self.seed, block, versions[block - first]));
                if mapped {
                    for (i, word) in words.enumerate() {
                        self.data.store(first * WORDS + i, word);
                    }
                } else {
                    let bytes: Vec<u8> = words.flat_map(u64::to_ne_bytes).collect();
                    self.file.write_all_at(&bytes, (first * BLOCK) as u64)?;
                }
                Ok(true)
            },
        )
        .map(drop)
    }

    /// Fails unless a block, read by its mapping or by a system call, is what the journal says.
    pub fn check(&self, block: usize, mapped: bool) -> Result<()> {
        let mut words = [0; WORDS];
        if mapped {
            words = std::array::from_fn(|i| self.data.load(block * WORDS + i));
        } else {
            let mut bytes = [0; BLOCK];
            self.file
                .read_exact_at(&mut bytes, (block * BLOCK) as u64)?;
            for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(8)) {
                *word = u64::from_ne_bytes(bytes.try_into()?);
            }
        }
        let (current, next) = self.versions(block);
        let (old, new) = (
            content(self.seed, block, current),
            content(self.seed, block, next),
        );
        let is_of = |i: usize| {
            let bytes = [words[i], old[i], new[i]].map(u64::to_ne_bytes);
            let mut bytes = (0..8).map(|byte| bytes.map(|word| word[byte]));
            bytes.all(|[is, old, new]| is == old || is == new)
        };
        if let Some(i) = (0..WORDS).find(|&i| !is_of(i)) {
            let zero = words[i] == 0;
            bail!(
                "word {i} of block {} of page {} is {}, and not of version {current} or {next}",
                block % PER_PAGE,
                block / PER_PAGE,
                if zero { "zero" } else { "other than zero" }
            );
        }
        Ok(())
    }

    /// Fails unless all blocks are what the journal says.
    pub fn check_all(&self) -> Result<()> {
        (0..self.blocks).try_for_each(|block| self.check(block, block / PER_PAGE % 2 == 0))
    }

    /// Checks all changes that were under way, and ends them by a new version.
    pub fn settle(&self) -> Result<()> {
        for block in 0..self.blocks {
            let (current, next) = self.versions(block);
            if current != next {
                self.check(block, true)?;
                self.set_done(block, current.max(next));
                self.write(block..block + 1, true)?;
            }
        }
        Ok(())
    }

    /// madvise(2) of some pages of the mapping.
    pub fn advise(&self, pages: std::ops::Range<usize>, advice: libc::c_int) -> Result<()> {
        let (start, len) = (pages.start * PAGE, pages.len() * PAGE);
        Ok(self.data.advise_part(start, len, advice)?)
    }
}

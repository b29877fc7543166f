// SPDX-License-Identifier: GPL-2.0

//! A session that is forged and then damaged.

use super::super::common::data;
use super::super::common::forger::Forger;
use super::format::Format;
use super::pages::Pages;
use anyhow::{ensure, Result};
use luo_handover::locate::{self, flags, Place};
use luo_handover::memory::Memory;
use luo_handover::write::{File, Session};

/// The token of the file that is damaged.
pub const VICTIM: u64 = 1;
/// The token of another one beside it.
pub const BYSTANDER: u64 = 2;

/// A good session of two files.
pub fn session(name: &str, format: Format) -> Session {
    session_of(name, format, [VICTIM, BYSTANDER])
}

/// A good session of files with these tokens.
pub fn session_of(name: &str, format: Format, tokens: impl IntoIterator<Item = u64>) -> Session {
    let file = |token| File {
        token,
        kind: Ok(format.of(token).memfd()),
    };
    Session {
        name: name.into(),
        files: tokens.into_iter().map(file).collect(),
    }
}

/// Pages that are no part of what is forged.
#[derive(Clone, Copy, Default)]
pub struct Strangers {
    /// Not preserved.
    pub lost: u64,
    /// Of the kernel itself.
    pub kernel: u64,
    /// KHO's own device tree, which it preserves.
    pub tree: u64,
    /// Of `reserve_mem=`: preserved, and in use in the next kernel.
    pub reserved: u64,
}

/// The session that is damaged, and what there is around it.
pub struct Victim<'a> {
    /// All of it.
    pub memory: &'a mut Memory,
    format: Format,
    /// The root of the handover.
    pub root: Place,
    /// A page that is not preserved.
    pub lost: u64,
    /// A page of the kernel itself.
    pub kernel: u64,
    /// The page of KHO's own device tree.
    pub tree: u64,
    /// The page of `reserve_mem=`.
    pub reserved: u64,
    /// Its entry.
    pub session: Place,
    /// The entry of its file.
    pub file: Place,
    /// The description of that.
    pub memfd: Place,
    /// The entries of the description: those of the array, if there is one.
    pub entries: Place,
    /// The entry of another session, which is good and comes before this one.
    pub good: Place,
    /// The entry of the session behind this one, which was not damaged yet.
    pub next: Place,
}

impl<'a> Victim<'a> {
    /// Finds session number `i` of those that were written.
    pub fn find(
        memory: &'a mut Memory,
        root_pa: u64,
        i: usize,
        format: Format,
        strangers: Strangers,
    ) -> Self {
        Self::find_file(memory, root_pa, (i, 0), format, strangers)
    }

    /// The same for any of the session's files.
    pub fn find_file(
        memory: &'a mut Memory,
        root_pa: u64,
        (i, j): (usize, usize),
        format: Format,
        strangers: Strangers,
    ) -> Self {
        let session = locate::session(memory, root_pa, i);
        let file = locate::file(memory, session, j);
        let memfd = file.follow(memory, locate::file::DATA);
        let entries = match format {
            Format::V2 | Format::Many => {
                memfd.follow(memory, locate::memfd::CHUNK).follow(memory, 1)
            }
            _ => Place {
                offset: 8 * locate::memfd::ENTRIES,
                ..memfd
            },
        };
        let good = locate::session(memory, root_pa, 0);
        let next = locate::session(memory, root_pa, i + 1);
        Self {
            memory,
            format,
            root: Place::page(root_pa),
            lost: strangers.lost,
            kernel: strangers.kernel,
            tree: strangers.tree,
            reserved: strangers.reserved,
            session,
            file,
            memfd,
            entries,
            good,
            next,
        }
    }

    /// Replaces a word.
    pub fn set(&mut self, place: Place, word: usize, value: u64) {
        place.set(self.memory, word, value);
    }

    /// Changes a word.
    pub fn change(&mut self, place: Place, word: usize, change: impl FnOnce(u64) -> u64) {
        let value = change(place.get(self.memory, word));
        place.set(self.memory, word, value);
    }

    /// Replaces the frame of an entry of the description, which keeps its flags.
    pub fn set_frame(&mut self, entry: usize, pa: u64) {
        self.change(self.entries, 2 * entry, |word| {
            word & !flags::FRAME | pa >> 12
        });
    }

    /// The address of the frame of an entry of the description.
    pub fn frame(&self, entry: usize) -> u64 {
        (self.entries.get(self.memory, 2 * entry) & flags::FRAME) << 12
    }

    /// The first chunk of its array.
    pub fn chunk(&self) -> Place {
        self.memfd.follow(self.memory, locate::memfd::CHUNK)
    }

    /// Fills that chunk with pages of an array, all zero but for its own first one, and lets this one follow it.
    pub fn fill_chunk(&mut self, next: u64) {
        let chunk = self.chunk();
        let more = self.memory.allocate_single_pages(510);
        for i in 0..510 {
            self.set(chunk, 2 + i as usize, more + i * 4096);
        }
        self.set(chunk, locate::block::NEXT, next);
        self.change(self.memfd, locate::memfd::ARRAY, |word| {
            word & !0xffff_ffff | 512
        });
    }

    /// Makes a range of its own of [`Format::Many`]'s last extent, of this page.
    pub fn set_last(&mut self, pa: u64) {
        self.set(self.entries, 2, pa >> 12 | flags::RANGE);
    }

    /// The address of a page of its data that is preserved by itself.
    pub fn single_page(&self) -> u64 {
        match self.format {
            format if format.has_table() => self.slot(7),
            _ => self.frame(0),
        }
    }

    /// Its table.
    pub fn table(&self) -> Place {
        let entry = match self.format.placed() {
            Some(_) => Self::TABLE,
            None => Self::RANGE,
        };
        Place::page(self.frame(entry))
    }

    /// Replaces the frame in a slot of its table, which keeps its flags.
    pub fn set_slot(&mut self, slot: usize, pa: u64) {
        self.change(self.table(), slot, |word| word & !flags::FRAME | pa >> 12);
    }

    /// The address of the frame in a slot of its table.
    pub fn slot(&self, slot: usize) -> u64 {
        (self.table().get(self.memory, slot) & flags::FRAME) << 12
    }

    /// Lists its table once more, for the beginning of the file.
    pub fn second_table(&mut self) {
        let entry = self.entries.get(self.memory, 2 * Self::TABLE);
        self.set(self.entries, 2 * Self::TABLE + 2, entry);
        self.set(self.entries, 2 * Self::TABLE + 3, 512 << 32);
        self.change(self.memfd, locate::memfd::NR_ENTRIES, |nr_entries| {
            nr_entries + 1
        });
    }

    /// Lists one more placed range, of this page alone, and the page in a slot of the table, instead of its own.
    pub fn place(&mut self, slot: usize, pa: u64) {
        let entry = pa >> 12 | flags::RANGE | flags::PLACED;
        self.set(self.entries, 2 * Self::TABLE + 2, entry);
        self.set(self.entries, 2 * Self::TABLE + 3, 1 << 32);
        self.change(self.memfd, locate::memfd::NR_ENTRIES, |nr_entries| {
            nr_entries + 1
        });
        self.set(self.table(), slot, pa >> 12 | flags::FRAME_PLACED);
    }

    /// How many extents there are beside a description.
    pub const IN_HEAD: u64 = 253;
    /// The number of the entry of the placed range, where there is one.
    pub const RANGE: usize = 2;
    /// The number of the entry of the table that has pages of it.
    pub const TABLE: usize = 3;
    /// A slot with a page of the placed range.
    pub const PLACED: usize = 511;

    /// The block of this session's files.
    pub fn block(&self) -> Place {
        self.session.follow(self.memory, locate::session::FILES)
    }

    /// The description of the good session's first file.
    pub fn good_memfd(&self) -> Place {
        locate::file(self.memory, self.good, 0).follow(self.memory, locate::file::DATA)
    }

    /// An address far beyond this machine's memory.
    pub const BEYOND: u64 = 1 << 45;
    /// One between what is memory, of which there is a structure in the kernel: that of the VGA.
    pub const VGA: u64 = 0xb_8000;
    /// One of a device, below 4 GiB.
    pub const APIC: u64 = 0xfee0_0000;
    /// The last page that there is an address for.
    pub const LAST: u64 = u64::MAX << 12;
}

/// What a file holds is made of this.
pub fn seed(session: usize, token: u64) -> u64 {
    (session as u64) << 8 | token
}

/// Fails unless the file with this token in session number `session` has what was written into it.
pub fn check(file: &std::fs::File, format: Format, session: usize, token: u64) -> Result<()> {
    check_but(file, format, session, token, None)
}

/// The same, but for one of its extents, which is to read as zeroes.
pub fn check_but(
    file: &std::fs::File,
    format: Format,
    session: usize,
    token: u64,
    zeroes: Option<usize>,
) -> Result<()> {
    let format = format.of(token);
    let extent = |&(index, nr_pages): &(u64, u64)| data::Extent {
        start: index * 4096,
        len: nr_pages * 4096,
    };
    let mut extents: Vec<_> = format.extents().iter().map(extent).collect();
    if let Some(zeroes) = zeroes {
        extents.remove(zeroes);
    }
    data::check(file, seed(session, token), format.size(), &extents)
}

/// What is in pages, made for several neighbours in a file at once.
#[derive(Default)]
struct Pattern {
    of: (u64, u64),
    bytes: Vec<u8>,
}

impl Pattern {
    const PAGES: u64 = 16;

    /// The bytes of a page of what is made of this seed.
    fn page(&mut self, seed: u64, index: u64) -> &[u8] {
        let of = (seed, index / Self::PAGES);
        if self.of != of || self.bytes.is_empty() {
            let start = of.1 * Self::PAGES * 4096;
            self.bytes = data::bytes(seed, start, Self::PAGES as usize * 4096);
            self.of = of;
        }
        let at = (index % Self::PAGES) as usize * 4096;
        &self.bytes[at..at + 4096]
    }
}

/// Fills every page of data of a handover that is still good. Returns all of its pages.
pub fn fill(memory: &Memory, forger: &Forger, root_pa: u64) -> Result<Pages> {
    let found = luo_handover::reader::read(memory, root_pa);
    ensure!(found.refused.is_empty(), "{:?}", found.refused);
    let mut pattern = Pattern::default();
    for &(session, token, frames) in &found.data {
        for i in 0..frames.nr_pages {
            // Not by way of `memory`: that would take the space of all of them once more.
            let page = pattern.page(seed(session, token), frames.index + i);
            forger.write((frames.pfn + i) * 4096, page)?;
        }
    }
    Ok(Pages::find(memory, root_pa, &found))
}

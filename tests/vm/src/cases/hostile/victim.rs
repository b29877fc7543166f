// SPDX-License-Identifier: GPL-2.0

//! A session that is forged and then damaged.

use super::super::common::data;
use anyhow::{ensure, Result};
use luo_handover::locate::{self, flags, Place};
use luo_handover::memory::Memory;
use luo_handover::write::{Contents, File, Memfd, Range, Session, Slot, Table};

/// The token of the file that is damaged.
pub const VICTIM: u64 = 1;
/// The token of another one beside it.
pub const BYSTANDER: u64 = 2;

/// How a memfd is written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Format {
    V2,
    Extents,
    /// Extents, and a table among them.
    Tables,
    /// The same, with so many extents that the last of them and the table are in an array.
    Many,
    /// Extents of large folios: more than are claimed at a time, and one of another size.
    Folios,
}

/// Number of small ones among the large folios, and their order.
const FOLIOS: (u64, u32) = (70, 2);

/// Number of pages of the placed range of a memfd with a table: its last ones, in reverse.
const PLACED: u64 = 32;

/// How many extents there are of which two, and a table of the last, have no room beside the description.
const NR_MANY: usize = Victim::IN_HEAD as usize + 3;

/// These extents.
const MANY: [(u64, u64); NR_MANY] = {
    let mut extents = [(512, 512); NR_MANY];
    let mut i = 0;
    while i < NR_MANY - 1 {
        // With a hole behind each: or they were one.
        extents[i] = (2 * i as u64, 1);
        i += 1;
    }
    extents
};

impl Format {
    /// Whether it has a table.
    pub fn has_table(self) -> bool {
        matches!(self, Self::Tables | Self::Many)
    }

    /// Size of each memfd.
    fn size(self) -> u64 {
        match self {
            Self::V2 | Self::Extents => 16 * 4096,
            Self::Tables | Self::Many | Self::Folios => 1024 * 4096,
        }
    }

    /// Where its memfds have pages: index and number.
    pub fn extents(self) -> &'static [(u64, u64)] {
        match self {
            Self::V2 => &[(0, 1), (1, 1), (4, 4)],
            Self::Extents => &[(0, 3), (5, 2), (8, 4)],
            Self::Tables => &[(0, 3), (5, 2), (512, 512)],
            Self::Many => &MANY,
            Self::Folios => &[(0, FOLIOS.0 << FOLIOS.1), (512, 512)],
        }
    }

    fn contents(self) -> Contents {
        let extent = |i: usize| self.extents()[i];
        match self {
            Self::V2 => Contents::Folios {
                folios: vec![(extent(0).0, 0), (extent(1).0, 0), (extent(2).0, 2)],
                array_order: 0,
            },
            Self::Extents => Contents::Ranges(vec![
                Range {
                    order: 0,
                    extents: vec![extent(0), extent(1)],
                },
                Range {
                    order: 2,
                    extents: vec![extent(2)],
                },
            ]),
            Self::Folios => {
                let (count, order) = FOLIOS;
                let small = (0..count).map(|i| Range {
                    order,
                    extents: vec![(i << order, 1 << order)],
                });
                let large = Range {
                    order: 9,
                    extents: vec![extent(1)],
                };
                Contents::Ranges(small.chain([large]).collect())
            }
            Self::Tables | Self::Many => {
                let (&table, extents) = self.extents().split_last().expect("a table");
                Contents::Tables {
                    ranges: vec![Range {
                        order: 0,
                        extents: extents.to_vec(),
                    }],
                    placed: vec![PLACED],
                    tables: vec![Table {
                        index: table.0,
                        slots: (0..table.1)
                            .rev()
                            .map(|left| match left {
                                ..PLACED => Slot::Placed(0, left),
                                _ => Slot::Single,
                            })
                            .collect(),
                    }],
                }
            }
        }
    }

    /// The encoding of the file with this token: a bystander has nothing that takes much memory.
    fn of(self, token: u64) -> Self {
        match (self, token) {
            (Self::Tables | Self::Many | Self::Folios, BYSTANDER) => Self::Extents,
            (format, _) => format,
        }
    }

    fn memfd(self) -> Memfd {
        Memfd {
            pos: 5,
            size: self.size(),
            seals: 0,
            contents: self.contents(),
        }
    }
}

/// A good session of two files.
pub fn session(name: &str, format: Format) -> Session {
    let file = |token| File {
        token,
        kind: Ok(format.of(token).memfd()),
    };
    Session {
        name: name.into(),
        files: vec![file(VICTIM), file(BYSTANDER)],
    }
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
    /// Its entry.
    pub session: Place,
    /// The entry of its first file.
    pub file: Place,
    /// The description of that.
    pub memfd: Place,
    /// The entries of the description: those of the array, if there is one.
    pub entries: Place,
    /// The entry of another session, which is good and comes before this one.
    pub good: Place,
}

impl<'a> Victim<'a> {
    /// Finds session number `i` of those that were written.
    pub fn find(
        memory: &'a mut Memory,
        root_pa: u64,
        i: usize,
        format: Format,
        (lost, kernel): (u64, u64),
    ) -> Self {
        let session = locate::session(memory, root_pa, i);
        let file = locate::file(memory, session, 0);
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
        Self {
            memory,
            format,
            root: Place::page(root_pa),
            lost,
            kernel,
            session,
            file,
            memfd,
            entries,
            good,
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

    /// The address of a page of its data that is preserved by itself.
    pub fn single_page(&self) -> u64 {
        match self.format {
            Format::Tables | Format::Many => self.slot(7),
            _ => self.frame(0),
        }
    }

    /// Its table, which the last of its entries tells of.
    pub fn table(&self) -> Place {
        let pfn = self.entries.get(self.memory, 2 * Self::TABLE) & flags::FRAME;
        Place::page(pfn << 12)
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

    /// How many extents there are beside a description.
    pub const IN_HEAD: u64 = 253;
    /// The number of the entry of the placed range.
    pub const RANGE: usize = 2;
    /// The number of the entry of the table.
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
}

/// What a file holds is made of this.
pub fn seed(session: usize, token: u64) -> u64 {
    (session as u64) << 8 | token
}

/// Fails unless the file with this token in session number `session` has what was written into it.
pub fn check(file: &std::fs::File, format: Format, session: usize, token: u64) -> Result<()> {
    let format = format.of(token);
    let extent = |&(index, nr_pages): &(u64, u64)| data::Extent {
        start: index * 4096,
        len: nr_pages * 4096,
    };
    let extents: Vec<_> = format.extents().iter().map(extent).collect();
    data::check(file, seed(session, token), format.size(), &extents)
}

/// Fills every page of data of a handover that is still good. Returns where they are: address, seed, and index.
pub fn fill(memory: &mut Memory, root_pa: u64) -> Result<Vec<(u64, u64, u64)>> {
    let report = luo_handover::reader::read(memory, root_pa);
    ensure!(report.refused.is_empty(), "{:?}", report.refused);
    let mut pages = Vec::new();
    for (session, token, frames) in report.data {
        let seed = seed(session, token);
        for i in 0..frames.nr_pages {
            let (pa, index) = ((frames.pfn + i) * 4096, frames.index + i);
            let bytes = data::bytes(seed, index * 4096, 4096);
            memory.put(pa, 0, &bytes);
            pages.push((pa, seed, index));
        }
    }
    Ok(pages)
}

// SPDX-License-Identifier: GPL-2.0

//! The encodings of a memfd, and what is in one of each.

use super::victim::{Victim, BYSTANDER};
use luo_handover::write::{Contents, Memfd, Range, Slot, Table};

/// How a memfd is written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Format {
    V2,
    Extents,
    /// Extents, and a table among them.
    Tables,
    /// The same, with all pages of the table preserved by themselves.
    Singles,
    /// The same, with so many extents that the last of them and the table are in an array.
    Many,
    /// Extents of large folios: more than are claimed at a time, and one of another size.
    Folios,
    /// One extent of pages that are preserved one by one.
    Run,
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
    /// Number of pages of [`Self::Run`].
    pub const RUN: u64 = 31;

    /// Whether it has a table.
    pub fn has_table(self) -> bool {
        matches!(self, Self::Tables | Self::Singles | Self::Many)
    }

    /// Size of each memfd.
    pub fn size(self) -> u64 {
        match self {
            Self::V2 | Self::Extents => 16 * 4096,
            Self::Run => Self::RUN * 4096,
            _ => 1024 * 4096,
        }
    }

    /// Where its memfds have pages: index and number.
    pub fn extents(self) -> &'static [(u64, u64)] {
        match self {
            Self::V2 => &[(0, 1), (1, 1), (4, 4)],
            Self::Extents => &[(0, 3), (5, 2), (8, 4)],
            Self::Tables | Self::Singles => &[(0, 3), (5, 2), (512, 512)],
            Self::Many => &MANY,
            Self::Run => &[(0, Self::RUN)],
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
            Self::Run => Contents::Ranges(vec![Range {
                order: 0,
                extents: vec![extent(0)],
            }]),
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
            Self::Tables | Self::Singles | Self::Many => {
                let placed = self.placed();
                let (&table, extents) = self.extents().split_last().expect("a table");
                Contents::Tables {
                    ranges: vec![Range {
                        order: 0,
                        extents: extents.to_vec(),
                    }],
                    placed: placed.into_iter().collect(),
                    tables: vec![Table {
                        index: table.0,
                        slots: (0..table.1)
                            .rev()
                            .map(|left| match placed {
                                Some(nr_pages) if left < nr_pages => Slot::Placed(0, left),
                                _ => Slot::Single,
                            })
                            .collect(),
                    }],
                }
            }
        }
    }

    /// Number of pages of the placed range.
    pub fn placed(self) -> Option<u64> {
        (self.has_table() && self != Self::Singles).then_some(PLACED)
    }

    /// The encoding of the file with this token: a bystander has nothing that takes much memory.
    pub fn of(self, token: u64) -> Self {
        match (self, token) {
            (Self::V2, _) => self,
            (_, BYSTANDER) => Self::Extents,
            _ => self,
        }
    }

    pub fn memfd(self) -> Memfd {
        Memfd {
            pos: 5,
            size: self.size(),
            seals: 0,
            contents: self.contents(),
        }
    }
}

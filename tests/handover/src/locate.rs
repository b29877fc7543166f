// SPDX-License-Identifier: GPL-2.0

//! Where things are in a handover, as long as they can be followed: what damages a field has to find it.

use crate::memory::Memory;

/// A structure in a memory, whose fields are told by words of 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Physical address of its page.
    pub pa: u64,
    /// Where in the page it starts.
    pub offset: usize,
}

impl Place {
    /// What starts with a page.
    pub const fn page(pa: u64) -> Self {
        Self { pa, offset: 0 }
    }

    /// Word number `word`.
    pub fn get(&self, memory: &Memory, word: usize) -> u64 {
        memory.word(self.pa, self.offset + 8 * word)
    }

    /// Replaces word number `word`.
    pub fn set(&self, memory: &mut Memory, word: usize, value: u64) {
        memory.put(self.pa, self.offset + 8 * word, &value.to_ne_bytes());
    }

    /// Where word number `word` points to.
    pub fn follow(&self, memory: &Memory, word: usize) -> Self {
        Self::page(self.get(memory, word))
    }

    /// Entry number `slot`, of `words` words, of the block that starts here.
    const fn entry(&self, slot: usize, words: usize) -> Self {
        Self {
            pa: self.pa,
            offset: 8 * (block::ENTRIES + slot * words),
        }
    }
}

/// Words of the root.
pub mod root {
    /// The compatible string.
    pub const COMPATIBLE: usize = 0;
    /// How many live updates there have been.
    pub const LIVEUPDATE_NUM: usize = 1;
    /// The first block of sessions.
    pub const SESSIONS: usize = 2;
    /// The FLBs.
    pub const FLBS: usize = 3;
}

/// Words of a block.
pub mod block {
    /// The next block.
    pub const NEXT: usize = 0;
    /// Number of entries.
    pub const COUNT: usize = 1;
    /// The first word of the first entry.
    pub const ENTRIES: usize = 2;
}

/// Words of the table of FLBs.
pub mod flbs {
    /// Number of pages.
    pub const NR_PAGES: usize = 0;
    /// Number of entries.
    pub const COUNT: usize = 1;
    /// The first word of the first entry.
    pub const ENTRIES: usize = 2;
}

/// Words of an entry of that table.
pub mod flb {
    /// What the FLB finds its data by.
    pub const DATA: usize = 6;
    /// Number of files.
    pub const COUNT: usize = 7;
    /// How many there are.
    pub const WORDS: usize = 8;
}

/// Words of a session.
pub mod session {
    /// The first word of its name.
    pub const NAME: usize = 0;
    /// Number of words of its name.
    pub const NAME_WORDS: usize = 8;
    /// The first block of files.
    pub const FILES: usize = 8;
    /// Number of files.
    pub const NR_FILES: usize = 9;
    /// How many there are.
    pub const WORDS: usize = 10;
}

/// Words of a file.
pub mod file {
    /// The first word of the compatible string.
    pub const COMPATIBLE: usize = 0;
    /// Number of words of the compatible string.
    pub const COMPATIBLE_WORDS: usize = 6;
    /// What the handler finds it by.
    pub const DATA: usize = 6;
    /// The user's name for it.
    pub const TOKEN: usize = 7;
}

/// Words of the description of a memfd.
pub mod memfd {
    /// The file position.
    pub const POS: usize = 0;
    /// The size.
    pub const SIZE: usize = 1;
    /// The seals, and in the upper half flags.
    pub const SEALS: usize = 2;
    /// Number of entries.
    pub const NR_ENTRIES: usize = 3;
    /// The first chunk of the array.
    pub const CHUNK: usize = 4;
    /// The array's number of pages, above it flags of 16 bits and an order of 16 bits.
    pub const ARRAY: usize = 5;
    /// The first entry that is not in the array: frame and flags, then the place in the file.
    pub const ENTRIES: usize = 6;
}

/// Flags of an entry of a memfd, of folios or of extents, and of a frame of a table, above the 52 bits of the frame.
pub mod flags {
    /// The bits of the frame.
    pub const FRAME: u64 = (1 << 52) - 1;
    /// The data of the folio is valid.
    pub const UPTODATE: u64 = 1 << 53;
    /// The entry starts a range.
    pub const RANGE: u64 = 1 << 56;
    /// The entry is a placed range.
    pub const PLACED: u64 = 1 << 57;
    /// The entry is a table.
    pub const TABLE: u64 = 1 << 58;
    /// The frame of a table is in a placed range.
    pub const FRAME_PLACED: u64 = 1 << 52;
}

/// How many sessions a block holds.
const SESSIONS_IN_BLOCK: usize = 51;

/// Session number `i`.
pub fn session(memory: &Memory, root_pa: u64, i: usize) -> Place {
    let mut block = Place::page(root_pa).follow(memory, root::SESSIONS);
    for _ in 0..i / SESSIONS_IN_BLOCK {
        block = block.follow(memory, block::NEXT);
    }
    block.entry(i % SESSIONS_IN_BLOCK, session::WORDS)
}

/// The blocks of the chain that begins at `head`, if there are any.
pub fn chain(memory: &Memory, head: Place) -> impl Iterator<Item = Place> + '_ {
    let exists = |it: &Place| it.pa != 0;
    std::iter::successors(Some(head).filter(exists), move |it| {
        Some(it.follow(memory, block::NEXT)).filter(exists)
    })
}

/// Entry number `i` of a table of FLBs.
pub const fn flb(table: Place, i: usize) -> Place {
    Place {
        offset: 8 * (flbs::ENTRIES + i * flb::WORDS),
        ..table
    }
}

/// File number `j`, of the first block, of a session.
pub fn file(memory: &Memory, session: Place, j: usize) -> Place {
    let block = session.follow(memory, session::FILES);
    block.entry(j, file::COMPATIBLE_WORDS + 2)
}

// SPDX-License-Identifier: GPL-2.0

//! What may be wrong with a session that the previous kernel handed over, and what has to come of it.

use super::victim::{Format, Victim, VICTIM};
use luo_handover::locate::{block, file, flags, memfd, session, Place};
use nix::errno::Errno;

/// What the log says of this is found out in the file: not of a memfd that nobody wants.
pub const ONE_PLACE: &str = "two pages in one place";

/// What has to come of it.
#[derive(Clone, Copy, Debug)]
pub enum Outcome {
    /// The session is not there, and the log says this of it when the module is inserted.
    Gone(&'static str),
    /// The session is there, but its first file fails with this error, and the log says this.
    Lost(Errno, &'static str),
    /// The first file is there, but not the second, and the log says this when the module is inserted.
    Alone(&'static str),
    /// All of it is there.
    Good,
}

/// One way of being damaged.
pub struct Class {
    /// The name of the session.
    pub name: &'static str,
    /// The encoding of its files.
    pub format: Format,
    /// Does the damage.
    pub damage: fn(&mut Victim<'_>),
    /// What has to come of it.
    pub outcome: Outcome,
}

const fn gone(name: &'static str, why: &'static str, damage: fn(&mut Victim<'_>)) -> Class {
    Class {
        name,
        format: Format::Extents,
        damage,
        outcome: Outcome::Gone(why),
    }
}

const fn lost(
    name: &'static str,
    format: Format,
    why: &'static str,
    damage: fn(&mut Victim<'_>),
) -> Class {
    let errno = Errno::EINVAL;
    let outcome = Outcome::Lost(errno, why);
    Class {
        name,
        format,
        damage,
        outcome,
    }
}

const fn v2(name: &'static str, why: &'static str, damage: fn(&mut Victim<'_>)) -> Class {
    lost(name, Format::V2, why, damage)
}

const fn extents(name: &'static str, why: &'static str, damage: fn(&mut Victim<'_>)) -> Class {
    lost(name, Format::Extents, why, damage)
}

const fn folios(name: &'static str, why: &'static str, damage: fn(&mut Victim<'_>)) -> Class {
    lost(name, Format::Folios, why, damage)
}

const fn tables(name: &'static str, why: &'static str, damage: fn(&mut Victim<'_>)) -> Class {
    lost(name, Format::Tables, why, damage)
}

/// Another errno.
const fn with(errno: Errno, class: Class) -> Class {
    let outcome = match class.outcome {
        Outcome::Lost(_, why) => Outcome::Lost(errno, why),
        other => other,
    };
    Class { outcome, ..class }
}

const fn good(name: &'static str, format: Format) -> Class {
    Class {
        name,
        format,
        damage: |_| {},
        outcome: Outcome::Good,
    }
}

/// Each of them, among good ones. The first one is good.
pub const CLASSES: &[&[Class]] = &[
    &[good("first", Format::Extents)],
    SESSIONS,
    &[good("among sessions", Format::V2)],
    FILES,
    &[good("among files", Format::Extents)],
    DESCRIPTIONS,
    &[good("among descriptions", Format::V2)],
    FRAMES,
    &[good("among frames", Format::Tables)],
    TABLES,
    &[good("among tables", Format::Folios)],
    FOLIOS,
    &[good("last", Format::V2)],
];

const SESSIONS: &[Class] = &[
    gone("a name that does not end", "String", |it| {
        for word in 0..session::NAME_WORDS {
            it.set(it.session, word, u64::from_ne_bytes([b'x'; 8]));
        }
    }),
    gone("no name", "String", |it| {
        it.set(it.session, session::NAME, 0)
    }),
    gone("the name of another", "two sessions [first]", |it| {
        for word in 0..session::NAME_WORDS {
            let name = it.good.get(it.memory, word);
            it.set(it.session, word, name);
        }
    }),
    gone("more files than there are", "Count(3)", |it| {
        it.set(it.session, session::NR_FILES, 3);
    }),
    gone("fewer files than there are", "Count(1)", |it| {
        it.set(it.session, session::NR_FILES, 1);
    }),
    gone("files but none", "Count(0)", |it| {
        it.set(it.session, session::NR_FILES, 0);
    }),
    gone("files not preserved", "NotPreserved", |it| {
        it.set(it.session, session::FILES, it.lost);
    }),
    gone("files beyond memory", "NotPreserved", |it| {
        it.set(it.session, session::FILES, Victim::BEYOND);
    }),
    gone("files at the last address", "NotPreserved", |it| {
        it.set(it.session, session::FILES, u64::MAX);
    }),
    gone("files not aligned", "NotPreserved", |it| {
        it.change(it.session, session::FILES, |pa| pa + 8);
    }),
    gone("files in the kernel", "NotPreserved", |it| {
        it.set(it.session, session::FILES, it.kernel);
    }),
    gone("files that do not end", "Endless", |it| {
        it.set(it.block(), block::NEXT, it.block().pa);
    }),
    gone("a block of none", "Count(0)", |it| {
        it.set(it.block(), block::COUNT, 0);
    }),
    gone("a block of too many", "Count(64)", |it| {
        it.set(it.block(), block::COUNT, 64);
    }),
    gone(
        "a block of far too many",
        "Count(18446744073709551615)",
        |it| {
            it.set(it.block(), block::COUNT, u64::MAX);
        },
    ),
    gone("a next block not preserved", "NotPreserved", |it| {
        it.set(it.block(), block::NEXT, it.lost);
    }),
    gone("the root for files", "Shared", |it| {
        it.set(it.session, session::FILES, it.root.pa);
    }),
    gone("the sessions for files", "Shared", |it| {
        it.set(it.session, session::FILES, it.session.pa);
    }),
    gone("the files of another", "Shared", |it| {
        let files = it.good.get(it.memory, session::FILES);
        it.set(it.session, session::FILES, files);
    }),
    gone("data for files", "", |it| {
        let data = it.frame(0);
        it.set(it.session, session::FILES, data);
    }),
];

const FILES: &[Class] = &[
    Class {
        name: "a token twice",
        format: Format::Extents,
        damage: |it| {
            let second = Place {
                offset: it.file.offset + 64,
                ..it.file
            };
            it.set(second, file::TOKEN, VICTIM);
        },
        outcome: Outcome::Alone("token 0x1 twice"),
    },
    with(
        Errno::ENOENT,
        extents("an unknown type", "of type [unknown]", |it| {
            it.set(it.file, 0, u64::from_ne_bytes(*b"unknown\0"));
            it.set(it.file, 1, 0);
        }),
    ),
    with(
        Errno::ENOENT,
        extents("a type that does not end", "of type [xxx", |it| {
            for word in 0..file::COMPATIBLE_WORDS {
                it.set(it.file, word, u64::from_ne_bytes([b'x'; 8]));
            }
        }),
    ),
    with(
        Errno::ENOENT,
        extents("no type", "of type []", |it| {
            for word in 0..file::COMPATIBLE_WORDS {
                it.set(it.file, word, 0);
            }
        }),
    ),
    Class {
        name: "a memfd from before tables",
        format: Format::Extents,
        damage: |it| {
            it.set(it.file, 0, u64::from_ne_bytes(*b"memfd-ex"));
            it.set(it.file, 1, u64::from_ne_bytes(*b"tents-v1"));
        },
        outcome: Outcome::Good,
    },
    v2("folios that are called extents", "extent", |it| {
        it.set(it.file, 0, u64::from_ne_bytes(*b"memfd-ex"));
        it.set(it.file, 1, u64::from_ne_bytes(*b"tents-v2"));
    }),
    extents("extents that are called folios", "", |it| {
        it.set(it.file, 0, u64::from_ne_bytes(*b"memfd-v2"));
        it.set(it.file, 1, 0);
    }),
    extents("data at zero", "NotPreserved(0)", |it| {
        it.set(it.file, file::DATA, 0);
    }),
    extents("data not preserved", "NotPreserved", |it| {
        it.set(it.file, file::DATA, it.lost);
    }),
    v2("data beyond memory", "NotPreserved", |it| {
        it.set(it.file, file::DATA, Victim::BEYOND);
    }),
    v2("data in the kernel", "NotPreserved", |it| {
        it.set(it.file, file::DATA, it.kernel);
    }),
    extents("data not aligned", "NotPreserved", |it| {
        it.change(it.file, file::DATA, |pa| pa + 16);
    }),
    extents("the root for a memfd", "", |it| {
        it.set(it.file, file::DATA, it.root.pa);
    }),
    v2("files for a memfd", "", |it| {
        it.set(it.file, file::DATA, it.block().pa);
    }),
    extents("data for a memfd", "", |it| {
        let data = it.frame(0);
        it.set(it.file, file::DATA, data);
    }),
    v2("the memfd of another", "NotPreserved", |it| {
        let others = it.good_memfd().pa;
        it.set(it.file, file::DATA, others);
    }),
    // Each encoding has entries of 16 bytes, but none is the other.
    extents("folios for extents", "extent", |it| {
        // The flags of a folio, which is dirty and has data.
        it.change(it.entries, 0, |word| word & ((1 << 52) - 1) | 3 << 52);
    }),
];

const DESCRIPTIONS: &[Class] = &[
    extents("a position too large", "memfd position", |it| {
        it.set(it.memfd, memfd::POS, 1 << 63);
    }),
    v2("a size too large", "memfd size", |it| {
        it.set(it.memfd, memfd::SIZE, u64::MAX);
    }),
    extents("a size of zero", "extent index", |it| {
        it.set(it.memfd, memfd::SIZE, 0);
    }),
    v2("flags", "memfd flags", |it| {
        it.set(it.memfd, memfd::SEALS, 1 << 32);
    }),
    with(
        Errno::EOPNOTSUPP,
        extents("unknown seals", "unknown seals: 0x40", |it| {
            it.set(it.memfd, memfd::SEALS, 0x40);
        }),
    ),
    v2("more entries than there is room", "Count(257)", |it| {
        it.set(it.memfd, memfd::NR_ENTRIES, 257);
    }),
    extents("as many entries as can be", "Count", |it| {
        it.set(it.memfd, memfd::NR_ENTRIES, u64::MAX);
    }),
    // A page's worth beside the description, but all zero.
    extents("entries of nothing", "extent frame", |it| {
        it.set(it.memfd, memfd::NR_ENTRIES, 4);
    }),
    v2("an array of order 11", "vmalloc order", |it| {
        it.change(it.memfd, memfd::ARRAY, |word| word | 11 << 48);
    }),
    v2("an array of order 1", "", |it| {
        it.change(it.memfd, memfd::ARRAY, |word| word | 1 << 48);
    }),
    v2("flags of an array", "vmalloc flags", |it| {
        it.change(it.memfd, memfd::ARRAY, |word| word | 8 << 32);
    }),
    v2("an array of too many pages", "Count", |it| {
        it.change(it.memfd, memfd::ARRAY, |word| word | 0xffff_ffff);
    }),
    v2("a chunk not preserved", "NotPreserved", |it| {
        it.set(it.memfd, memfd::CHUNK, it.lost);
    }),
    v2("a chunk that is the description", "NotPreserved", |it| {
        it.set(it.memfd, memfd::CHUNK, it.memfd.pa);
    }),
    v2("a chunk that follows itself", "vmalloc chunk", |it| {
        let chunk = it.memfd.follow(it.memory, memfd::CHUNK);
        it.set(chunk, block::NEXT, chunk.pa);
    }),
    v2("a full chunk that follows itself", "", |it| {
        let chunk = it.memfd.follow(it.memory, memfd::CHUNK);
        for word in 0..512 {
            it.set(chunk, word, chunk.pa);
        }
    }),
    v2("an array in the kernel", "NotPreserved", |it| {
        let chunk = it.memfd.follow(it.memory, memfd::CHUNK);
        it.set(chunk, 1, it.kernel);
    }),
    v2("an array page twice", "NotPreserved", |it| {
        let chunk = it.memfd.follow(it.memory, memfd::CHUNK);
        it.set(chunk, 2, it.entries.pa);
        it.change(it.memfd, memfd::ARRAY, |word| word + 1);
    }),
];

const FRAMES: &[Class] = &[
    v2("a folio not preserved", "NotPreserved", |it| {
        it.set_frame(1, it.lost)
    }),
    extents("an extent not preserved", "NotPreserved", |it| {
        it.set_frame(2, it.lost)
    }),
    v2("a folio in the kernel", "NotPreserved", |it| {
        it.set_frame(0, it.kernel)
    }),
    extents("an extent in the kernel", "NotPreserved", |it| {
        it.set_frame(2, it.kernel)
    }),
    v2("a folio beyond memory", "NotPreserved", |it| {
        it.set_frame(0, Victim::BEYOND)
    }),
    extents("an extent beyond memory", "NotPreserved", |it| {
        it.set_frame(2, Victim::BEYOND)
    }),
    extents("an extent at frame zero", "extent frame", |it| {
        it.set_frame(0, 0)
    }),
    v2("a folio within another", "NotPreserved", |it| {
        let folio = it.frame(2);
        it.set_frame(1, folio + 4096);
    }),
    v2("a folio twice", "", |it| {
        let first = it.frame(0);
        it.set_frame(1, first);
    }),
    extents("an extent twice", "", |it| {
        let entry = [0, 1].map(|word| it.entries.get(it.memory, word));
        it.set(it.entries, 4, entry[0]);
        it.set(it.entries, 5, entry[1] + 8);
    }),
    v2("a folio of another", "NotPreserved", |it| {
        let taken = it.good_memfd().get(it.memory, memfd::ENTRIES) << 12;
        it.set_frame(1, taken);
    }),
    extents("an extent of another", "NotPreserved", |it| {
        let folio = it.good_memfd().get(it.memory, memfd::ENTRIES + 4) << 12;
        it.set_frame(2, folio);
    }),
    v2("its own description for a folio", "NotPreserved", |it| {
        it.set_frame(0, it.memfd.pa);
    }),
    v2("its own array for a folio", "NotPreserved", |it| {
        it.set_frame(0, it.entries.pa)
    }),
    v2("flags of a folio", "folio flags", |it| {
        it.change(it.entries, 0, |word| word | 1 << 55);
    }),
    extents("flags of an extent", "extent flags", |it| {
        it.change(it.entries, 0, |word| word | 1 << 62);
    }),
    v2("a folio beyond the file", "folio index", |it| {
        it.set(it.entries, 1, 16)
    }),
    v2("a folio far beyond the file", "folio index", |it| {
        it.set(it.entries, 1, u64::MAX)
    }),
    v2("a folio not aligned", "folio index", |it| {
        it.set(it.entries, 5, 5)
    }),
    extents("an extent beyond the file", "extent index", |it| {
        it.change(it.entries, 1, |word| word & !0xffff_ffff | 14);
    }),
    extents("an extent of none", "extent index", |it| {
        it.change(it.entries, 1, |word| word & 0xffff_ffff);
    }),
    extents("an extent of too many", "extent index", |it| {
        it.change(it.entries, 1, |word| word | u64::from(u32::MAX) << 32);
    }),
    extents("an extent longer than its keys", "", |it| {
        it.change(it.entries, 1, |word| word & 0xffff_ffff | 4 << 32);
    }),
    extents("a range that begins nowhere", "extent range", |it| {
        it.change(it.entries, 0, |word| word & !(1 << 56));
    }),
    extents("an order of one key over several", "", |it| {
        // Four pages of their own, preserved one by one, as one folio.
        it.set(it.memfd, memfd::NR_ENTRIES, 1);
        it.change(it.entries, 0, |word| word | 2 << 52);
        it.set(it.entries, 1, 4 << 32);
    }),
    extents("pages of one folio", "", |it| {
        it.change(it.entries, 4, |word| word & !(15 << 52));
        it.change(it.entries, 5, |word| word & 0xffff_ffff | 2 << 32);
    }),
    v2("two folios in one place", ONE_PLACE, |it| {
        it.set(it.entries, 3, 0)
    }),
    extents("two extents in one place", ONE_PLACE, |it| {
        it.change(it.entries, 3, |word| word & !0xffff_ffff | 1);
    }),
];

const FOLIOS: &[Class] = &[
    folios("one of many not preserved", "NotPreserved", |it| {
        it.set_frame(40, it.lost);
    }),
    folios("one of many in the kernel", "NotPreserved", |it| {
        it.set_frame(64, it.kernel);
    }),
    folios("two of many the same", "NotPreserved", |it| {
        let folio = it.frame(9);
        it.set_frame(41, folio);
    }),
    folios("two of many the same, far apart", "NotPreserved", |it| {
        let folio = it.frame(3);
        it.set_frame(68, folio);
    }),
    folios("one of many of another order", "NotPreserved", |it| {
        let folio = it.frame(70);
        it.set_frame(69, folio);
    }),
    folios("the large one within itself", "NotPreserved", |it| {
        let folio = it.frame(70);
        it.set_frame(70, folio + (256 << 12));
    }),
    folios("one of many in the place of another", ONE_PLACE, |it| {
        it.set(it.entries, 2 * 65 + 1, 4 << 32);
    }),
];

const TABLES: &[Class] = &[
    tables("a slot of nothing", "frame of a table", |it| {
        it.set_slot(7, 0)
    }),
    tables("a slot not preserved", "NotPreserved", |it| {
        it.set_slot(7, it.lost)
    }),
    tables("a slot in the kernel", "NotPreserved", |it| {
        it.set_slot(7, it.kernel)
    }),
    tables("a slot beyond memory", "NotPreserved", |it| {
        it.set_slot(7, Victim::BEYOND)
    }),
    tables("a slot at the last frame", "NotPreserved", |it| {
        it.set_slot(7, u64::MAX)
    }),
    tables("a slot of an extent", "NotPreserved", |it| {
        let extent = it.frame(0);
        it.set_slot(7, extent);
    }),
    tables("a slot of the description", "NotPreserved", |it| {
        it.set_slot(7, it.memfd.pa)
    }),
    tables("a slot of its table", "NotPreserved", |it| {
        let table = it.table().pa;
        it.set_slot(7, table);
    }),
    tables("a slot of another", "NotPreserved", |it| {
        let taken = it.good_memfd().get(it.memory, memfd::ENTRIES) & flags::FRAME;
        it.set_slot(7, taken << 12);
    }),
    tables("a slot twice", "NotPreserved", |it| {
        let first = it.slot(7);
        it.set_slot(8, first);
    }),
    tables("a slot of a placed range", "NotPreserved", |it| {
        let page = it.slot(Victim::PLACED);
        it.set_slot(7, page);
    }),
    tables("a placed slot not preserved", "NotPreserved", |it| {
        it.set_slot(Victim::PLACED, it.lost)
    }),
    tables("a placed slot in the kernel", "NotPreserved", |it| {
        it.set_slot(Victim::PLACED, it.kernel)
    }),
    tables("a placed slot beyond memory", "NotPreserved", |it| {
        it.set_slot(Victim::PLACED, Victim::BEYOND)
    }),
    tables("a placed slot at the last frame", "NotPreserved", |it| {
        it.set_slot(Victim::PLACED, u64::MAX)
    }),
    tables("a placed slot twice", "NotPreserved", |it| {
        let first = it.slot(Victim::PLACED);
        it.set_slot(Victim::PLACED - 1, first);
    }),
    tables("a placed slot of the description", "NotPreserved", |it| {
        it.set_slot(Victim::PLACED, it.memfd.pa)
    }),
    tables("a placed slot of its table", "NotPreserved", |it| {
        let table = it.table().pa;
        it.set_slot(Victim::PLACED, table);
    }),
    tables("a placed slot of a single page", "NotPreserved", |it| {
        let single = it.slot(7);
        it.set_slot(Victim::PLACED, single);
    }),
    tables("flags of a slot", "flags of a frame", |it| {
        it.change(it.table(), 7, |word| word | 1 << 53)
    }),
    tables("a placed page left out", "Count(1)", |it| {
        // An extent of one page gives its place to another one.
        it.change(it.entries, 1, |word| word & 0xffff_ffff | 2 << 32);
        it.change(it.entries, 2, |word| word | flags::RANGE);
        let pfn = it.entries.get(it.memory, 2) & flags::FRAME;
        it.set(it.table(), Victim::PLACED, pfn - 1);
    }),
    tables(
        "a placed range shorter than its keys",
        "extent range",
        |it| it.change(it.entries, 2 * Victim::RANGE + 1, |word| word - (1 << 32)),
    ),
    tables("a placed range of none", "placed pages", |it| {
        it.set(it.entries, 2 * Victim::RANGE + 1, 0)
    }),
    tables("a placed range in the kernel", "NotPreserved", |it| {
        it.set_frame(Victim::RANGE, it.kernel)
    }),
    tables("a placed range with a place", "placed pages", |it| {
        it.change(it.entries, 2 * Victim::RANGE + 1, |word| word | 16)
    }),
    tables("a placed range and no table", "Count(32)", |it| {
        it.change(it.memfd, memfd::NR_ENTRIES, |nr_entries| nr_entries - 1)
    }),
    tables("a table not preserved", "NotPreserved", |it| {
        it.set_frame(Victim::TABLE, it.lost)
    }),
    tables("a table in the kernel", "NotPreserved", |it| {
        it.set_frame(Victim::TABLE, it.kernel)
    }),
    tables("a table beyond memory", "NotPreserved", |it| {
        it.set_frame(Victim::TABLE, Victim::BEYOND)
    }),
    tables("a table that is the description", "NotPreserved", |it| {
        it.set_frame(Victim::TABLE, it.memfd.pa)
    }),
    tables("a table twice", "NotPreserved", |it| {
        let entry = it.entries.get(it.memory, 2 * Victim::TABLE);
        it.set(it.entries, 2 * Victim::TABLE + 2, entry);
        it.set(it.entries, 2 * Victim::TABLE + 3, 512 << 32);
        it.change(it.memfd, memfd::NR_ENTRIES, |nr_entries| nr_entries + 1);
    }),
    tables("a table not aligned", "index of a table", |it| {
        it.change(it.entries, 2 * Victim::TABLE + 1, |word| word - 1)
    }),
    tables("a table beyond the file", "index of a table", |it| {
        it.change(it.entries, 2 * Victim::TABLE + 1, |word| word + 512)
    }),
    tables("a table of too many", "index of a table", |it| {
        it.change(it.entries, 2 * Victim::TABLE + 1, |word| word + (512 << 32))
    }),
    tables("a table that is placed", "flags of a table", |it| {
        it.change(it.entries, 2 * Victim::TABLE, |word| word | flags::PLACED)
    }),
    tables("a table over an extent", ONE_PLACE, |it| {
        it.set(it.entries, 2 * Victim::TABLE + 1, 512 << 32)
    }),
];

// SPDX-License-Identifier: GPL-2.0

//! Damage of the array of a description, which has all folios, or the extents and tables that have no room beside it.

use super::super::format::Format;
use super::super::victim::Victim;
use super::{lost, many, Class, ONE_PLACE, REFUSED};
use luo_handover::locate::{block, flags, memfd};

/// What the log says of [`Victim::BEYOND`].
const BEYOND: &str = "NotPreserved(35184372088832)";

/// What is the same whatever the entries are.
const fn arrays(format: Format) -> [Class; 29] {
    [
        lost("an array of order 11", format, "vmalloc order", |it| {
            it.change(it.memfd, memfd::ARRAY, |word| word | 11 << 48);
        }),
        lost("an array of order 1", format, REFUSED, |it| {
            it.change(it.memfd, memfd::ARRAY, |word| word | 1 << 48);
        }),
        lost("flags of an array", format, "vmalloc flags", |it| {
            it.change(it.memfd, memfd::ARRAY, |word| word | 8 << 32);
        }),
        lost("an array of no pages", format, "Count", |it| {
            it.change(it.memfd, memfd::ARRAY, |word| word & !0xffff_ffff);
        }),
        lost(
            "an array of too many pages",
            format,
            "Count(4294967295)",
            |it| {
                it.change(it.memfd, memfd::ARRAY, |word| word | 0xffff_ffff);
            },
        ),
        lost("no chunk", format, "Count(1)", |it| {
            it.set(it.memfd, memfd::CHUNK, 0);
        }),
        lost("a chunk not preserved", format, "NotPreserved", |it| {
            it.set(it.memfd, memfd::CHUNK, it.lost);
        }),
        lost("a chunk beyond memory", format, "NotPreserved", |it| {
            it.set(it.memfd, memfd::CHUNK, Victim::BEYOND);
        }),
        lost("a chunk in the kernel", format, "NotPreserved", |it| {
            it.set(it.memfd, memfd::CHUNK, it.kernel);
        }),
        lost("a chunk not aligned", format, "NotPreserved", |it| {
            it.change(it.memfd, memfd::CHUNK, |pa| pa + 8);
        }),
        lost(
            "a chunk that is the description",
            format,
            "NotPreserved",
            |it| {
                it.set(it.memfd, memfd::CHUNK, it.memfd.pa);
            },
        ),
        lost("a chunk that is the array", format, REFUSED, |it| {
            it.set(it.memfd, memfd::CHUNK, it.entries.pa);
        }),
        lost("a chunk that is data", format, "NotPreserved", |it| {
            let data = it.single_page();
            it.set(it.memfd, memfd::CHUNK, data);
        }),
        lost(
            "a chunk that follows itself",
            format,
            "vmalloc chunk",
            |it| {
                let chunk = it.chunk();
                it.set(chunk, block::NEXT, chunk.pa);
            },
        ),
        lost("a full chunk that follows itself", format, REFUSED, |it| {
            let chunk = it.chunk();
            for word in 0..512 {
                it.set(chunk, word, chunk.pa);
            }
        }),
        lost(
            "a full chunk before one not preserved",
            format,
            "NotPreserved",
            |it| {
                it.fill_chunk(it.lost);
            },
        ),
        lost(
            "a full chunk before one in the kernel",
            format,
            "NotPreserved",
            |it| {
                it.fill_chunk(it.kernel);
            },
        ),
        lost(
            "a full chunk before one beyond memory",
            format,
            BEYOND,
            |it| {
                it.fill_chunk(Victim::BEYOND);
            },
        ),
        lost("a chunk of nothing", format, "Count(1)", |it| {
            it.set(it.chunk(), 1, 0);
        }),
        lost("an array in the kernel", format, "NotPreserved", |it| {
            it.set(it.chunk(), 1, it.kernel);
        }),
        lost("an array not preserved", format, "NotPreserved", |it| {
            it.set(it.chunk(), 1, it.lost);
        }),
        lost("an array beyond memory", format, BEYOND, |it| {
            it.set(it.chunk(), 1, Victim::BEYOND);
        }),
        lost(
            "an array at the last address",
            format,
            "NotPreserved",
            |it| {
                it.set(it.chunk(), 1, u64::MAX);
            },
        ),
        lost("an array not aligned", format, "NotPreserved", |it| {
            it.change(it.chunk(), 1, |pa| pa + 16);
        }),
        lost(
            "an array that is the description",
            format,
            "NotPreserved",
            |it| {
                it.set(it.chunk(), 1, it.memfd.pa);
            },
        ),
        lost("an array that is its chunk", format, "NotPreserved", |it| {
            let chunk = it.chunk();
            it.set(chunk, 1, chunk.pa);
        }),
        lost(
            "an array that is another memfd",
            format,
            "NotPreserved",
            |it| {
                let others = it.good_memfd().pa;
                it.set(it.chunk(), 1, others);
            },
        ),
        lost("an array that is data", format, REFUSED, |it| {
            let data = it.single_page();
            it.set(it.chunk(), 1, data);
        }),
        lost("an array page twice", format, "NotPreserved", |it| {
            it.set(it.chunk(), 2, it.entries.pa);
            it.change(it.memfd, memfd::ARRAY, |word| word + 1);
        }),
    ]
}

/// Of folios.
pub const ARRAYS_V2: &[Class] = &arrays(Format::V2);

/// Of extents and tables.
pub const ARRAYS_EXTENTS: &[Class] = &arrays(Format::Many);

/// Of what only extents and tables have.
pub const ARRAYS_MANY: &[Class] = &[
    many("more than there is room in the array", "Count(510)", |it| {
        it.set(it.memfd, memfd::NR_ENTRIES, Victim::IN_HEAD + 257);
    }),
    // A page's worth, but all zero.
    many("an array full of nothing", "extent frame", |it| {
        it.set(it.memfd, memfd::NR_ENTRIES, Victim::IN_HEAD + 256);
    }),
    many("an array of entries but none", "extent range", |it| {
        it.set(it.memfd, memfd::NR_ENTRIES, Victim::IN_HEAD);
    }),
    many("an array without its table", "Count(32)", |it| {
        it.change(it.memfd, memfd::NR_ENTRIES, |nr_entries| nr_entries - 1);
    }),
    many("an array without what is placed", "extent frame", |it| {
        it.set(it.entries, 2 * Victim::RANGE, 0);
    }),
    many("an extent of an array elsewhere", "extent range", |it| {
        it.set_frame(0, it.lost);
    }),
    many(
        "an extent of an array that begins nowhere",
        "extent range",
        |it| {
            it.change(it.entries, 2, |word| word + 1);
        },
    ),
    many("an extent of an array twice", REFUSED, |it| {
        let entry = [0, 1].map(|word| it.entries.get(it.memory, word));
        it.set(it.entries, 2, entry[0] | flags::RANGE);
        it.set(it.entries, 3, entry[1]);
    }),
    many(
        "its own description for an extent of an array",
        "NotPreserved",
        |it| {
            it.set_last(it.memfd.pa);
        },
    ),
    many("its own chunk for an extent", "NotPreserved", |it| {
        let chunk = it.chunk().pa;
        it.set_last(chunk);
    }),
    many("its own array for an extent", "NotPreserved", |it| {
        it.set_last(it.entries.pa);
    }),
    many(
        "an extent of an array beyond the file",
        "extent index",
        |it| {
            it.change(it.entries, 3, |word| word & !0xffff_ffff | 1024);
        },
    ),
    many("flags of an extent of an array", "extent flags", |it| {
        it.change(it.entries, 2, |word| word | 1 << 62);
    }),
    many(
        "a placed range of an array in the kernel",
        "NotPreserved",
        |it| {
            it.set_frame(Victim::RANGE, it.kernel);
        },
    ),
    many("a table of an array not preserved", "NotPreserved", |it| {
        it.set_frame(Victim::TABLE, it.lost);
    }),
    many("a table that is its array", "NotPreserved", |it| {
        it.set_frame(Victim::TABLE, it.entries.pa);
    }),
    many("a table of an array twice", "NotPreserved", |it| {
        it.second_table();
    }),
    many("a slot of an array", "NotPreserved", |it| {
        it.set_slot(7, it.entries.pa);
    }),
    many("a slot of a chunk", "NotPreserved", |it| {
        let chunk = it.chunk().pa;
        it.set_slot(7, chunk);
    }),
    many("a placed slot of an array", "NotPreserved", |it| {
        it.set_slot(Victim::PLACED, it.entries.pa);
    }),
    many("a table of an array over an extent", ONE_PLACE, |it| {
        it.set(it.entries, 2 * Victim::TABLE + 1, 512 << 32);
    }),
];

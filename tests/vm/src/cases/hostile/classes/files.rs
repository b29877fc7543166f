// SPDX-License-Identifier: GPL-2.0

//! Damage of the entry of a file.

use super::super::format::Format;
use super::super::victim::{Victim, VICTIM};
use super::{extents, v2, with, Class, Outcome, REFUSED};
use luo_handover::locate::{file, Place};
use nix::errno::Errno;

pub const FILES: &[Class] = &[
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
        extents("no type", "of type []: ENOENT; no handler can", |it| {
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
    extents("extents that are called folios", REFUSED, |it| {
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
    extents(
        "data at the last address",
        "NotPreserved(18446744073709551615)",
        |it| {
            it.set(it.file, file::DATA, u64::MAX);
        },
    ),
    v2(
        "data in the last page",
        "NotPreserved(18446744073709547520)",
        |it| {
            it.set(it.file, file::DATA, Victim::LAST);
        },
    ),
    extents("data in a hole of memory", "NotPreserved(753664)", |it| {
        it.set(it.file, file::DATA, Victim::VGA);
    }),
    v2("data in the kernel", "NotPreserved", |it| {
        it.set(it.file, file::DATA, it.kernel);
    }),
    extents("data not aligned", "NotPreserved", |it| {
        it.change(it.file, file::DATA, |pa| pa + 16);
    }),
    v2(
        "the files of its session for a memfd",
        "NotPreserved",
        |it| {
            it.set(it.file, file::DATA, it.block().pa);
        },
    ),
    extents("data for a memfd", REFUSED, |it| {
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

// SPDX-License-Identifier: GPL-2.0

//! Damage of the entries of a description: of folios, and of extents.

use super::super::victim::Victim;
use super::{extents, v2, Class, Format, Outcome, ONE_PLACE, REFUSED};
use luo_handover::locate::memfd;

/// Of an entry of a folio: its data is valid.
const UPTODATE: u64 = 1 << 53;

/// The order of an extent.
const ORDER: u64 = 15 << 52;

/// A folio without valid data: there may be anything in its pages.
const fn zeroes(name: &'static str, extent: usize, damage: fn(&mut Victim<'_>)) -> Class {
    Class {
        name,
        format: Format::V2,
        damage,
        outcome: Outcome::Zeroes(extent),
    }
}

pub const FRAMES: &[Class] = &[
    v2("a folio not preserved", "NotPreserved", |it| {
        it.set_frame(1, it.lost)
    }),
    extents("an extent not preserved", "NotPreserved", |it| {
        it.set_frame(2, it.lost)
    }),
    v2("a folio of another user", "NotPreserved", |it| {
        it.set_frame(1, it.reserved)
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
    v2(
        "a folio in a hole of memory",
        "NotPreserved(4276092928)",
        |it| it.set_frame(0, Victim::APIC),
    ),
    extents(
        "an extent in a hole of memory",
        "NotPreserved(753664)",
        |it| it.set_frame(0, Victim::VGA),
    ),
    extents(
        "a large extent in a hole of memory",
        "NotPreserved(4276092928)",
        |it| it.set_frame(2, Victim::APIC),
    ),
    extents("an extent at frame zero", "extent frame", |it| {
        it.set_frame(0, 0)
    }),
    v2("a folio within another", "NotPreserved", |it| {
        let folio = it.frame(2);
        it.set_frame(1, folio + 4096);
    }),
    v2("a folio twice", REFUSED, |it| {
        let first = it.frame(0);
        it.set_frame(1, first);
    }),
    extents("an extent twice", REFUSED, |it| {
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
    extents("its own description for an extent", "NotPreserved", |it| {
        it.set_frame(0, it.memfd.pa);
    }),
    extents(
        "its own description for a large extent",
        "NotPreserved",
        |it| {
            it.set_frame(2, it.memfd.pa);
        },
    ),
    v2("a folio of order 10", "folio order", |it| {
        let folio = it.memory.allocate(10);
        it.set_frame(0, folio);
    }),
    extents("an extent of order 10", "extent order", |it| {
        it.change(it.entries, 4, |word| word & !ORDER | 10 << 52);
    }),
    extents("an extent of order 15", "extent order", |it| {
        it.change(it.entries, 4, |word| word | ORDER);
    }),
    v2("flags of a folio", "folio flags", |it| {
        it.change(it.entries, 0, |word| word | 1 << 55);
    }),
    extents("flags of an extent", "extent flags", |it| {
        it.change(it.entries, 0, |word| word | 1 << 62);
    }),
    zeroes("a page that was never filled", 1, |it| {
        it.change(it.entries, 2, |word| word & !UPTODATE)
    }),
    zeroes("a large folio that was never filled", 2, |it| {
        it.change(it.entries, 4, |word| word & !UPTODATE)
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
    extents("an extent longer than its keys", REFUSED, |it| {
        it.change(it.entries, 1, |word| word & 0xffff_ffff | 4 << 32);
    }),
    extents("a range that begins nowhere", "extent range", |it| {
        it.change(it.entries, 0, |word| word & !(1 << 56));
    }),
    extents("an order of one key over several", REFUSED, |it| {
        // Four pages of their own, preserved one by one, as one folio.
        it.set(it.memfd, memfd::NR_ENTRIES, 1);
        it.change(it.entries, 0, |word| word | 2 << 52);
        it.set(it.entries, 1, 4 << 32);
    }),
    extents("pages of one folio", REFUSED, |it| {
        it.change(it.entries, 4, |word| word & !ORDER);
        it.change(it.entries, 5, |word| word & 0xffff_ffff | 2 << 32);
    }),
    v2("two folios in one place", ONE_PLACE, |it| {
        it.set(it.entries, 3, 0)
    }),
    extents("two extents in one place", ONE_PLACE, |it| {
        it.change(it.entries, 3, |word| word & !0xffff_ffff | 1);
    }),
];

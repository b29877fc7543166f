// SPDX-License-Identifier: GPL-2.0

//! Damage of tables, and of the placed ranges that they list pages of.

use super::super::victim::Victim;
use super::{singles, tables, Class, ONE_PLACE};
use luo_handover::locate::{self, file, flags, memfd};

pub const TABLES: &[Class] = &[
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
    tables("a slot in a hole of memory", "NotPreserved", |it| {
        it.set_slot(7, Victim::VGA)
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
    tables("a placed slot in a hole of memory", "NotPreserved", |it| {
        it.set_slot(Victim::PLACED, Victim::VGA)
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
    tables("a table in a hole of memory", "NotPreserved", |it| {
        it.set_frame(Victim::TABLE, Victim::APIC)
    }),
    tables("a table that is the description", "NotPreserved", |it| {
        it.set_frame(Victim::TABLE, it.memfd.pa)
    }),
    tables("a table twice", "NotPreserved", |it| it.second_table()),
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

/// Of tables whose frames are read and taken over as they are, in one go.
pub const SINGLES: &[Class] = &[
    singles("a slot of nothing", "NotPreserved(0)", |it| {
        it.set_slot(7, 0)
    }),
    singles("the first slot not preserved", "NotPreserved", |it| {
        it.set_slot(0, it.lost)
    }),
    singles("the last slot not preserved", "NotPreserved", |it| {
        it.set_slot(511, it.lost)
    }),
    singles("a slot in the kernel", "NotPreserved", |it| {
        it.set_slot(7, it.kernel)
    }),
    singles("a slot beyond memory", "NotPreserved", |it| {
        it.set_slot(7, Victim::BEYOND)
    }),
    singles("a slot in a hole of memory", "NotPreserved", |it| {
        it.set_slot(7, Victim::VGA)
    }),
    singles("a slot at the last frame", "NotPreserved", |it| {
        it.set_slot(7, u64::MAX)
    }),
    singles("a slot twice", "NotPreserved", |it| {
        let first = it.slot(7);
        it.set_slot(300, first);
    }),
    singles("a slot of an extent", "NotPreserved", |it| {
        let extent = it.frame(0);
        it.set_slot(7, extent);
    }),
    singles("a slot of the description", "NotPreserved", |it| {
        it.set_slot(7, it.memfd.pa)
    }),
    singles("a slot of its table", "NotPreserved", |it| {
        let table = it.table().pa;
        it.set_slot(7, table);
    }),
    singles("a slot of another", "NotPreserved", |it| {
        let taken = it.good_memfd().get(it.memory, memfd::ENTRIES) & flags::FRAME;
        it.set_slot(7, taken << 12);
    }),
    singles("a slot of a large folio", "NotPreserved", |it| {
        // Of a bystander, which nobody has taken yet.
        let bystander = locate::file(it.memory, it.next, 1).follow(it.memory, file::DATA);
        let folio = bystander.get(it.memory, memfd::ENTRIES + 4) & flags::FRAME;
        it.set_slot(7, folio << 12);
    }),
    singles(
        "a slot in a range that is not placed",
        "NotPreserved",
        |it| it.change(it.table(), 7, |word| word | flags::FRAME_PLACED),
    ),
    singles("flags of a slot", "flags of a frame", |it| {
        it.change(it.table(), 7, |word| word | 1 << 53)
    }),
    singles("the highest flag of a slot", "flags of a frame", |it| {
        it.change(it.table(), 7, |word| word | 1 << 63)
    }),
];

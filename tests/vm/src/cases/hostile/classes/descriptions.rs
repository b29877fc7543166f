// SPDX-License-Identifier: GPL-2.0

//! Damage of the description of a memfd.

use super::{extents, v2, with, Class};
use luo_handover::locate::memfd;
use nix::errno::Errno;

pub const DESCRIPTIONS: &[Class] = &[
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
];

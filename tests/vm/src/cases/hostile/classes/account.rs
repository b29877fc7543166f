// SPDX-License-Identifier: GPL-2.0

//! What the account of the handover is in, and KHO's own tree, named as what is in a memfd, or as parts of one. All of
//! it is preserved as pages are, and read again by a module that is loaded later.

use super::super::victim::Victim;
use super::{extents, tables, v2, Class};
use luo_handover::locate::{file, flags, root, session};

/// The address that `$find` finds, in every way in which the page of a memfd is named.
macro_rules! named {
    ($what:literal, $find:expr) => {{
        const FIND: fn(&Victim<'_>) -> u64 = $find;
        [
            v2(concat!($what, " for a memfd"), "NotPreserved", |it| {
                it.set(it.file, file::DATA, FIND(it));
            }),
            v2(concat!($what, " for a folio"), "NotPreserved", |it| {
                it.set_frame(1, FIND(it));
            }),
            extents(concat!($what, " for an extent"), "NotPreserved", |it| {
                it.set(it.entries, 4, FIND(it) >> 12 | flags::RANGE);
                it.set(it.entries, 5, 1 << 32 | 8);
            }),
            tables(concat!($what, " for a table"), "NotPreserved", |it| {
                it.set_frame(Victim::TABLE, FIND(it));
            }),
            tables(concat!($what, " in a slot"), "NotPreserved", |it| {
                it.set_slot(7, FIND(it));
            }),
            tables(concat!($what, " in a placed slot"), "NotPreserved", |it| {
                it.place(7, FIND(it));
            }),
        ]
    }};
}

/// In how many ways each is named.
pub const WAYS: usize = 6;

pub const ROOT: &[Class; WAYS] = &named!("the root", |it| it.root.pa);
pub const SESSIONS: &[Class; WAYS] = &named!("the sessions", |it| it.session.pa);
pub const FILES: &[Class; WAYS] = &named!("the files of the next session", |it| {
    it.next.get(it.memory, session::FILES)
});
pub const FLBS: &[Class; WAYS] = &named!("the FLBs", |it| it.root.get(it.memory, root::FLBS));
pub const TREE: &[Class; WAYS] = &named!("the tree of KHO", |it| it.tree);

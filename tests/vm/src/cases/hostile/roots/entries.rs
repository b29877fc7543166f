// SPDX-License-Identifier: GPL-2.0

//! What KHO's entry says of the root, and what there is.

use super::super::victim::Victim;
use super::{Kind, REFUSED};
use luo_handover::locate::root;

/// Of the root: four words.
const ROOT_SIZE: u64 = 32;

/// What the log says of an address at which nothing is preserved.
const NOT_PRESERVED: &[&str] = &["state is refused: NotPreserved"];
/// What it says of something that is no root.
const INCOMPATIBLE: &[&str] = &["state is refused: Incompatible"];

pub const ENTRIES: &[Kind] = &[
    // The first one: only the first kernel tells where the entry is.
    Kind {
        size: None,
        says: &["state is refused: Field(\"KHO's entry\")"],
        ..REFUSED
    },
    Kind {
        size: Some(0),
        says: &["state is refused: Count(0)"],
        ..REFUSED
    },
    Kind {
        size: Some(ROOT_SIZE - 1),
        says: &["state is refused: Count(31)"],
        ..REFUSED
    },
    Kind {
        root: |it| it.root.pa + 16,
        says: NOT_PRESERVED,
        ..REFUSED
    },
    Kind {
        root: |it| it.lost,
        says: NOT_PRESERVED,
        ..REFUSED
    },
    Kind {
        root: |_| 0,
        says: &["state is refused: NotPreserved(0)"],
        ..REFUSED
    },
    Kind {
        root: |it| it.kernel,
        says: NOT_PRESERVED,
        ..REFUSED
    },
    Kind {
        root: |_| Victim::BEYOND,
        says: NOT_PRESERVED,
        ..REFUSED
    },
    Kind {
        root: |_| Victim::VGA,
        says: NOT_PRESERVED,
        ..REFUSED
    },
    Kind {
        root: |_| u64::MAX,
        says: &["state is refused: NotPreserved(18446744073709551615)"],
        ..REFUSED
    },
    Kind {
        root: |it| it.list().pa,
        says: INCOMPATIBLE,
        ..REFUSED
    },
    Kind {
        root: |it| it.memfd().pa,
        says: INCOMPATIBLE,
        ..REFUSED
    },
    Kind {
        damage: |it| {
            it.set(
                it.root,
                root::COMPATIBLE,
                u64::from_ne_bytes(*b"luo-v6\0\0"),
            )
        },
        says: INCOMPATIBLE,
        ..REFUSED
    },
    // As short as can be, and longer than all there is: no more than the root is read.
    Kind {
        size: Some(ROOT_SIZE),
        damage: |it| it.set(it.root, root::LIVEUPDATE_NUM, u64::MAX),
        says: &["live update number 18446744073709551615: 2 sessions"],
        usable: 2,
        ..REFUSED
    },
    Kind {
        size: Some(u64::MAX),
        says: &["live update number 1: 2 sessions"],
        usable: 2,
        ..REFUSED
    },
];

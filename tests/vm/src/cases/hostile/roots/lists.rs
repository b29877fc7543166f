// SPDX-License-Identifier: GPL-2.0

//! The headers of blocks of sessions, and of the table of FLBs.

use super::super::victim::Victim;
use super::{Kind, IN_FIRST, MANY, REFUSED};
use luo_handover::locate::{block, flbs, root};

/// What the log says where the next block is not there.
const NO_NEXT: &str = "list of sessions is damaged: NotPreserved";

pub const LISTS: &[Kind] = &[
    Kind {
        damage: |it| {
            it.set(it.list(), block::NEXT, it.list().pa);
            it.set(it.flbs(), flbs::NR_PAGES, 0);
        },
        says: &[
            "list of sessions is damaged: Endless; 0 before",
            "FLBs are refused: Count(0)",
        ],
        ..REFUSED
    },
    Kind {
        sessions: MANY,
        damage: |it| {
            it.set(it.second(), block::NEXT, it.list().pa);
            it.set(it.flbs(), flbs::NR_PAGES, 2);
        },
        says: &[
            "list of sessions is damaged: Endless; 0 before",
            "FLBs are refused: Count(2)",
        ],
        ..REFUSED
    },
    Kind {
        sessions: MANY,
        damage: |it| {
            it.set(it.second(), block::COUNT, 0);
            it.set(it.flbs(), flbs::NR_PAGES, u64::MAX);
        },
        says: &[
            "list of sessions is damaged: Count(0); 51 before",
            "FLBs are refused: Count(18446744073709551615)",
        ],
        usable: IN_FIRST,
        ..REFUSED
    },
    Kind {
        sessions: MANY,
        damage: |it| {
            it.set(it.second(), block::COUNT, 52);
            it.set(it.flbs(), flbs::COUNT, 64);
        },
        says: &[
            "list of sessions is damaged: Count(52); 51 before",
            "FLBs are refused: Count(64)",
        ],
        usable: IN_FIRST,
        ..REFUSED
    },
    Kind {
        damage: |it| {
            it.set(it.list(), block::COUNT, u64::MAX);
            it.set(it.flbs(), flbs::COUNT, u64::MAX);
        },
        says: &[
            "list of sessions is damaged: Count(18446744073709551615); 0 before",
            "FLBs are refused: Count(18446744073709551615)",
        ],
        ..REFUSED
    },
    Kind {
        sessions: MANY,
        damage: |it| {
            it.set(it.list(), block::NEXT, it.lost);
            it.set(it.root, root::FLBS, it.memfd().pa);
        },
        says: &[NO_NEXT, "FLBs are refused: Count(5)"],
        usable: IN_FIRST,
        ..REFUSED
    },
    Kind {
        sessions: MANY,
        damage: |it| {
            it.set(it.list(), block::NEXT, it.kernel);
            it.set(it.root, root::FLBS, it.files(0).pa);
        },
        says: &[NO_NEXT, "FLBs are refused: Count(0)"],
        usable: IN_FIRST,
        ..REFUSED
    },
    Kind {
        sessions: MANY,
        damage: |it| it.set(it.list(), block::NEXT, Victim::BEYOND),
        says: &[NO_NEXT],
        usable: IN_FIRST,
        ..REFUSED
    },
    // The memfd is what it was for all that.
    Kind {
        sessions: MANY,
        damage: |it| it.set(it.list(), block::NEXT, it.memfd().pa),
        says: &["list of sessions is damaged: Count(65536); 51 before"],
        usable: IN_FIRST,
        ..REFUSED
    },
    // Of a session that is lost with the second block: two files make one session, and one that is gone.
    Kind {
        sessions: MANY,
        damage: |it| it.set(it.list(), block::NEXT, it.files(IN_FIRST).pa),
        says: &["session [memfd-extents-v2] of the previous kernel is refused: NotPreserved"],
        usable: IN_FIRST,
        ..REFUSED
    },
];

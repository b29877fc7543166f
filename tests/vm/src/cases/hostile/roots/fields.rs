// SPDX-License-Identifier: GPL-2.0

//! What the root leads to: sessions and FLBs, each without the other.

use super::super::victim::Victim;
use super::{Kind, REFUSED};

/// What the log says where at neither address anything is preserved.
const NEITHER: &[&str] = &[
    "list of sessions is damaged: NotPreserved",
    "FLBs are refused: NotPreserved",
];

pub const FIELDS: &[Kind] = &[
    // The first one: only the first kernel tells where the tree is.
    Kind {
        damage: |it| it.lead(it.tree, it.tree),
        says: NEITHER,
        ..REFUSED
    },
    Kind {
        damage: |it| it.lead(it.lost, it.lost),
        says: NEITHER,
        ..REFUSED
    },
    Kind {
        damage: |it| it.lead(it.kernel, it.kernel),
        says: NEITHER,
        ..REFUSED
    },
    Kind {
        damage: |it| it.lead(Victim::BEYOND, Victim::BEYOND),
        says: NEITHER,
        ..REFUSED
    },
    Kind {
        damage: |it| it.lead(Victim::APIC, Victim::VGA),
        says: NEITHER,
        ..REFUSED
    },
    Kind {
        damage: |it| it.lead(Victim::LAST, u64::MAX),
        says: NEITHER,
        ..REFUSED
    },
    Kind {
        damage: |it| it.lead(it.list().pa + 16, it.flbs().pa + 16),
        says: NEITHER,
        ..REFUSED
    },
    Kind {
        damage: |it| it.lead(it.root.pa, it.root.pa),
        says: &[
            "list of sessions is damaged: Shared",
            "FLBs are refused: Count(",
        ],
        ..REFUSED
    },
    // Good ones: such a page is nothing else.
    Kind {
        damage: |it| it.lead(it.flbs().pa, it.flbs().pa),
        says: &["list of sessions is damaged: Shared"],
        ..REFUSED
    },
    Kind {
        damage: |it| it.lead(it.memfd().pa, it.list().pa),
        says: &[
            "list of sessions is damaged: Count(65536)",
            "FLBs are refused: Count(0)",
        ],
        ..REFUSED
    },
    Kind {
        damage: |it| it.lead(it.data(), it.data()),
        says: &[
            "list of sessions is damaged: Count(",
            "FLBs are refused: Count(",
        ],
        ..REFUSED
    },
];

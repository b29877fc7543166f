// SPDX-License-Identifier: GPL-2.0

//! Damage of a session and of the list of its files.

use super::super::victim::Victim;
use super::{gone, Class, Format};
use luo_handover::locate::{block, root, session};

pub const SESSIONS: &[Class] = &[
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
    gone("files and no list of them", "Count(2)", |it| {
        it.set(it.session, session::FILES, 0);
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
    gone("files in a hole of memory", "NotPreserved", |it| {
        it.set(it.session, session::FILES, Victim::VGA);
    }),
    gone("files not aligned", "NotPreserved", |it| {
        it.change(it.session, session::FILES, |pa| pa + 8);
    }),
    gone("files in the kernel", "NotPreserved", |it| {
        it.set(it.session, session::FILES, it.kernel);
    }),
    gone("the tree of KHO for files", "NotPreserved", |it| {
        it.set(it.session, session::FILES, it.tree);
    }),
    gone("a memfd for files", "Count(65536)", |it| {
        it.set(it.session, session::FILES, it.memfd.pa);
    }),
    Class {
        format: Format::Tables,
        ..gone(
            "a table for files",
            "[a table for files] of the previous kernel is refused",
            |it| {
                let table = it.table().pa;
                it.set(it.session, session::FILES, table);
            },
        )
    },
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
    gone("a next block beyond memory", "NotPreserved", |it| {
        it.set(it.block(), block::NEXT, Victim::BEYOND);
    }),
    gone("a next block in the kernel", "NotPreserved", |it| {
        it.set(it.block(), block::NEXT, it.kernel);
    }),
    gone("the root for files", "Shared", |it| {
        it.set(it.session, session::FILES, it.root.pa);
    }),
    gone("the sessions for files", "Shared", |it| {
        it.set(it.session, session::FILES, it.session.pa);
    }),
    gone("the FLBs for files", "Shared", |it| {
        let flbs = it.root.get(it.memory, root::FLBS);
        it.set(it.session, session::FILES, flbs);
    }),
    gone("the files of another", "Shared", |it| {
        let files = it.good.get(it.memory, session::FILES);
        it.set(it.session, session::FILES, files);
    }),
    gone(
        "data for files",
        "[data for files] of the previous kernel is refused",
        |it| {
            let data = it.frame(0);
            it.set(it.session, session::FILES, data);
        },
    ),
];

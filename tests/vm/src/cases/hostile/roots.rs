// SPDX-License-Identifier: GPL-2.0

//! Damage of what there is once in a handover: KHO's entry for the root, the root, the list of sessions, the table of
//! FLBs. So each kind takes a kernel of its own.

use super::super::common::forger::{kernel_code, Forger};
use super::super::common::luo::Device;
use super::super::common::{refused, still_works};
use super::victim::{self, Format, Victim, VICTIM};
use crate::ctx::Ctx;
use crate::test::StageFn;
use anyhow::{ensure, Context, Result};
use luo_handover::locate::{self, block, root, Place};
use luo_handover::memory::Memory;
use luo_handover::write;
use nix::errno::Errno;

/// One kind of damage.
struct Kind {
    /// How many sessions there are.
    sessions: usize,
    /// Does the damage to the root, and returns where the next kernel shall find it.
    damage: fn(&mut Memory, Place, Strangers) -> u64,
    /// What KHO's entry says of the root's size; `None` if it does not say.
    size: Option<u64>,
    /// What the log says.
    says: &'static [&'static str],
    /// How many sessions can be used, from the first one on.
    usable: usize,
}

/// Pages that are no part of a handover.
#[derive(Clone, Copy)]
struct Strangers {
    lost: u64,
    kernel: u64,
}

/// Of the root: four words.
const ROOT_SIZE: u64 = 32;

/// One that cannot be read is as if there were none.
const REFUSED: Kind = Kind {
    sessions: 2,
    damage: |_, it, _| it.pa,
    size: Some(4096),
    says: &[],
    usable: 0,
};

const KINDS: &[Kind] = &[
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
        damage: |_, it, _| it.pa + 16,
        says: &["state is refused: NotPreserved"],
        ..REFUSED
    },
    Kind {
        damage: |memory, it, _| {
            it.set(memory, root::COMPATIBLE, u64::from_ne_bytes(*b"luo-v6\0\0"));
            it.pa
        },
        says: &["state is refused: Incompatible"],
        ..REFUSED
    },
    Kind {
        damage: |_, _, strangers| strangers.lost,
        says: &["state is refused: NotPreserved"],
        ..REFUSED
    },
    Kind {
        damage: |memory, it, _| {
            let list = it.follow(memory, root::SESSIONS);
            list.set(memory, block::NEXT, list.pa);
            it.set(memory, root::FLBS, Victim::BEYOND);
            it.pa
        },
        says: &[
            "list of sessions is damaged: Endless; 0 before",
            "FLBs are refused: NotPreserved",
        ],
        ..REFUSED
    },
    Kind {
        sessions: 60,
        damage: |memory, it, _| {
            let second = it
                .follow(memory, root::SESSIONS)
                .follow(memory, block::NEXT);
            second.set(memory, block::COUNT, 52);
            let flbs = it.follow(memory, root::FLBS);
            flbs.set(memory, 1, 64);
            it.pa
        },
        says: &[
            "list of sessions is damaged: Count(52); 51 before",
            "FLBs are refused: Count(64)",
        ],
        usable: 51,
        ..REFUSED
    },
    Kind {
        sessions: 60,
        damage: |memory, it, strangers| {
            let first = it.follow(memory, root::SESSIONS);
            first.set(memory, block::NEXT, strangers.kernel);
            it.set(memory, root::FLBS, first.pa);
            it.pa
        },
        says: &[
            "list of sessions is damaged: NotPreserved",
            "FLBs are refused: Count(",
        ],
        usable: 51,
        ..REFUSED
    },
    Kind {
        damage: |memory, it, _| {
            let list = it.get(memory, root::SESSIONS);
            it.set(memory, root::SESSIONS, list + 16);
            let flbs = it.follow(memory, root::FLBS);
            flbs.set(memory, 0, u64::MAX);
            it.pa
        },
        says: &[
            "list of sessions is damaged: NotPreserved",
            "FLBs are refused: Count(",
        ],
        ..REFUSED
    },
    // As short as can be, and longer than all there is: no more than the root is read.
    Kind {
        size: Some(ROOT_SIZE),
        damage: |memory, it, _| {
            it.set(memory, root::LIVEUPDATE_NUM, u64::MAX);
            it.pa
        },
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

/// A kernel for each kind, and one more to look at the last.
pub const STAGES: &[StageFn] = &[
    begin, go_on, go_on, go_on, go_on, go_on, go_on, go_on, go_on, go_on, go_on, go_on, end,
];
const _: () = assert!(STAGES.len() == KINDS.len() + 1);

fn begin(ctx: &mut Ctx) -> Result<()> {
    match Forger::new()? {
        Some(forger) => forge(&KINDS[0], &forger),
        None => ctx.skip("there is no luo_forger.ko in this VM"),
    }
}

fn go_on(ctx: &mut Ctx) -> Result<()> {
    end(ctx)?;
    ctx.rmmod()?;
    let forger = Forger::new()?.context("luo_forger.ko")?;
    forge(&KINDS[ctx.stage() - 1], &forger)
}

fn end(ctx: &mut Ctx) -> Result<()> {
    let number = ctx.stage() - 2;
    look(ctx, &KINDS[number]).with_context(|| format!("damage number {number}"))
}

fn name(number: usize) -> String {
    format!("session {number}")
}

fn forge(kind: &Kind, forger: &Forger) -> Result<()> {
    let mut memory = forger.memory();
    let sessions: Vec<_> = (0..kind.sessions)
        .map(|number| victim::session(&name(number), Format::Extents))
        .collect();
    let root_pa = write::handover(&mut memory, 1, &sessions).root_pa;
    write::flbs(&mut memory, root_pa, &[("nobody's", 7, 1)]);
    victim::fill(&memory, forger, root_pa)?;
    let strangers = Strangers {
        lost: memory.allocate_lost(),
        kernel: kernel_code()?,
    };
    let root_pa = (kind.damage)(&mut memory, locate::Place::page(root_pa), strangers);
    match kind.size {
        Some(size) => forger.publish_sized(&memory, root_pa, size),
        None => {
            forger.publish(&memory, root_pa)?;
            forger.lose_size()
        }
    }
}

fn look(ctx: &mut Ctx, kind: &Kind) -> Result<()> {
    ctx.log().lines()?;
    ctx.insmod("")?;
    let lines = ctx.log().lines()?;
    for says in kind.says {
        let said = lines.iter().any(|line| line.contains(says));
        ensure!(said, "not a word of {says:?} in {lines:#?}");
    }
    let device = Device::open()?;
    for number in 0..kind.sessions {
        let session = device.retrieve_session(&name(number));
        if number >= kind.usable {
            refused(&name(number), session, Errno::ENOENT)?;
            continue;
        }
        let session = session.with_context(|| name(number))?;
        let file = session.retrieve(VICTIM).with_context(|| name(number))?;
        victim::check(&file, Format::Extents, number, VICTIM)?;
        session.finish()?;
    }
    still_works(&device.create_session("afterwards")?)
}

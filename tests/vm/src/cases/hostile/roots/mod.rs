// SPDX-License-Identifier: GPL-2.0

//! Damage of what there is once in a handover: KHO's entry for the root, the root, the list of sessions, the table of
//! FLBs. So each kind takes a kernel of its own.

mod entries;
mod fields;
mod lists;

use super::super::common::forger::{kernel_code, Forger};
use super::super::common::luo::Device;
use super::super::common::{refused, still_works};
use super::format::Format;
use super::pages::{Owner, Pages};
use super::victim::{self, VICTIM};
use super::{press, session_pages};
use crate::ctx::Ctx;
use anyhow::{ensure, Context, Result};
pub use entries::ENTRIES;
pub use fields::FIELDS;
pub use lists::LISTS;
use luo_handover::locate::{self, block, file, memfd, root, session, Place};
use luo_handover::memory::Memory;
use luo_handover::write;
use nix::errno::Errno;

/// One kind of damage.
pub struct Kind {
    /// How many sessions there are.
    sessions: usize,
    /// Does the damage.
    damage: fn(&mut Account<'_>),
    /// Where KHO's entry says that the root is.
    root: fn(&Account<'_>) -> u64,
    /// What it says of the root's size; `None` if it does not say.
    size: Option<u64>,
    /// What the log says.
    says: &'static [&'static str],
    /// How many sessions can be used, from the first one on.
    usable: usize,
}

/// One that cannot be read is as if there were none.
const REFUSED: Kind = Kind {
    sessions: 2,
    damage: |_| {},
    root: |it| it.root.pa,
    size: Some(4096),
    says: &[],
    usable: 0,
};

/// So many that there are two blocks of them.
const MANY: usize = 60;
/// How many there are in the first one.
const IN_FIRST: usize = 51;

/// What is damaged, and pages that are no part of a handover.
struct Account<'a> {
    memory: &'a mut Memory,
    root: Place,
    /// Not preserved.
    lost: u64,
    /// Of the kernel itself.
    kernel: u64,
    /// KHO's own device tree: 0 but in the first kernel.
    tree: u64,
}

impl Account<'_> {
    /// Replaces a word.
    fn set(&mut self, place: Place, word: usize, value: u64) {
        place.set(self.memory, word, value);
    }

    /// Lets the root lead to these addresses.
    fn lead(&mut self, sessions: u64, flbs: u64) {
        self.set(self.root, root::SESSIONS, sessions);
        self.set(self.root, root::FLBS, flbs);
    }

    /// The first block of sessions.
    fn list(&self) -> Place {
        self.root.follow(self.memory, root::SESSIONS)
    }

    /// The second one.
    fn second(&self) -> Place {
        self.list().follow(self.memory, block::NEXT)
    }

    /// The table of FLBs.
    fn flbs(&self) -> Place {
        self.root.follow(self.memory, root::FLBS)
    }

    /// The list of files of session number `i`.
    fn files(&self, i: usize) -> Place {
        let session = locate::session(self.memory, self.root.pa, i);
        session.follow(self.memory, session::FILES)
    }

    /// The description of the first session's first file.
    fn memfd(&self) -> Place {
        let session = locate::session(self.memory, self.root.pa, 0);
        locate::file(self.memory, session, 0).follow(self.memory, file::DATA)
    }

    /// A page of its data.
    fn data(&self) -> u64 {
        self.memfd().get(self.memory, memfd::ENTRIES) << 12
    }
}

/// Looks at what came of the last kind, and forges the next one: a kernel for each, and one more.
pub fn stage(ctx: &mut Ctx, kinds: &[Kind]) -> Result<()> {
    let Some(forger) = Forger::new()? else {
        return ctx.skip("there is no luo_forger.ko in this VM");
    };
    let number = ctx.stage() - 1;
    if let Some(last) = number.checked_sub(1) {
        let kind = &kinds[last];
        look(ctx, kind, &forger)
            .with_context(|| format!("damage number {last}: {:?}", kind.says))?;
        ctx.rmmod()?;
    }
    if let Some(kind) = kinds.get(number) {
        forge(ctx, kind, &forger)?;
        ctx.go_on();
    }
    Ok(())
}

fn name(number: usize) -> String {
    format!("session {number}")
}

fn forge(ctx: &mut Ctx, kind: &Kind, forger: &Forger) -> Result<()> {
    let mut memory = forger.memory();
    let sessions: Vec<_> = (0..kind.sessions)
        .map(|number| victim::session(&name(number), Format::Extents))
        .collect();
    let root_pa = write::handover(&mut memory, 1, &sessions).root_pa;
    write::flbs(&mut memory, root_pa, &[("nobody's", 7, 1)]);
    let pages = victim::fill(&memory, forger, root_pa)?;
    let mut account = Account {
        lost: memory.allocate_lost(),
        kernel: kernel_code()?,
        tree: match ctx.stage() {
            1 => forger.tree()?,
            _ => 0,
        },
        memory: &mut memory,
        root: Place::page(root_pa),
    };
    (kind.damage)(&mut account);
    let root_pa = (kind.root)(&account);
    forger.publish_sized(&memory, root_pa, kind.size.unwrap_or_default())?;
    if kind.size.is_none() {
        forger.lose_size()?;
    }
    pages.give_along(ctx, forger)
}

fn look(ctx: &mut Ctx, kind: &Kind, forger: &Forger) -> Result<()> {
    ctx.log().lines()?;
    ctx.insmod("")?;
    let lines = ctx.log().lines()?;
    for says in kind.says {
        let said = lines.iter().any(|line| line.contains(says));
        ensure!(said, "not a word of {says:?} in {lines:#?}");
    }
    let device = Device::open()?;
    // Of the FLB, which nobody finishes, the table is needed.
    let mut kept = vec![Owner::Root, Owner::Flbs];
    if kind.usable < kind.sessions {
        kept.push(Owner::List);
    }
    for number in 0..kind.sessions {
        let session = device.retrieve_session(&name(number));
        if number >= kind.usable {
            refused(&name(number), session, Errno::ENOENT)?;
            kept.extend(session_pages(number));
            continue;
        }
        let session = session.with_context(|| name(number))?;
        let file = session.retrieve(VICTIM).with_context(|| name(number))?;
        victim::check(&file, Format::Extents, number, VICTIM)?;
        session.finish()?;
    }
    let pressed = press(ctx)?;
    Pages::of_previous(ctx)?.unchanged(forger, &kept)?;
    drop(pressed);
    still_works(&device.create_session("afterwards")?)
}

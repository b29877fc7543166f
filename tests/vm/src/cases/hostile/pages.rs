// SPDX-License-Identifier: GPL-2.0

//! The pages of a handover, and what is in them when it is published: those of what is refused are neither freed nor
//! given to anybody, and so hold it as long as the next kernel runs.

use super::super::common::forger::Forger;
use crate::ctx::Ctx;
use crate::frames;
use anyhow::{ensure, Context, Result};
use luo_handover::locate::{self, block, flags, flb, flbs, root, session, Place};
use luo_handover::memory::Memory;
use luo_handover::reader;
use serde::{Deserialize, Serialize};

/// What a page is a part of.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Owner {
    /// The root, but for what it leads to.
    Root,
    /// The list of sessions, but for the entries, and what in the root leads to it and to the FLBs.
    List,
    /// The table of FLBs, but for the numbers of files.
    Flbs,
    /// The FLB number so many: its data.
    Flb(usize),
    /// The session number so many: its entry, and the list of its files.
    Session(usize),
    /// The memfd with this token in that session: its description, and its data.
    Memfd(usize, u64),
}

/// Bytes of a page, and what was in them.
#[derive(Deserialize, Serialize)]
struct Piece {
    pa: u64,
    start: usize,
    end: usize,
    owner: Owner,
    sum: u64,
}

impl Piece {
    fn new(pa: u64, (start, end): (usize, usize), owner: Owner) -> Self {
        Self {
            pa,
            start,
            end,
            owner,
            sum: 0,
        }
    }

    /// So many words of a structure.
    fn words(place: Place, nr: usize, owner: Owner) -> Self {
        Self::new(place.pa, (place.offset, place.offset + 8 * nr), owner)
    }

    /// A page.
    fn whole(pa: u64, owner: Owner) -> Self {
        Self::new(pa, (0, 4096), owner)
    }

    /// What is in them now.
    ///
    /// A flag of a frame in a table does not count: the module makes of a table what a file wants before it knows that
    /// the last one is good.
    fn sum(&self, forger: &Forger) -> Result<u64> {
        let page = forger.page(self.pa)?;
        let words = page[self.start..self.end].chunks_exact(8);
        Ok(words.fold(0, |sum: u64, word| {
            let word = u64::from_le_bytes(word.try_into().expect("8 bytes"));
            let mixed = sum.rotate_left(5) ^ word & !flags::FRAME_PLACED;
            mixed.wrapping_mul(0x517c_c1b7_2722_0a95)
        }))
    }
}

/// Pages of a handover.
#[derive(Deserialize, Serialize)]
pub struct Pages(Vec<Piece>);

impl Pages {
    /// All pages that can be found in a handover, which is still good, by what was found in it.
    pub fn find(memory: &Memory, root_pa: u64, found: &reader::Report) -> Self {
        let mut pieces = Vec::new();
        let root_page = Place::page(root_pa);
        pieces.push(Piece::words(root_page, root::SESSIONS, Owner::Root));
        pieces.push(Piece::new(root_pa, (8 * root::SESSIONS, 4096), Owner::List));

        let table = root_page.follow(memory, root::FLBS);
        if table.pa != 0 {
            let entries = (0..found.flbs.len()).map(|i| locate::flb(table, i));
            pieces.push(Piece::words(table, flbs::ENTRIES, Owner::Flbs));
            pieces.extend(entries.map(|it| Piece::words(it, flb::COUNT, Owner::Flbs)));
        }
        let list = locate::chain(memory, root_page.follow(memory, root::SESSIONS));
        pieces.extend(list.map(|it| Piece::words(it, block::ENTRIES, Owner::List)));
        for i in 0..found.sessions.len() {
            let entry = locate::session(memory, root_pa, i);
            let files = locate::chain(memory, entry.follow(memory, session::FILES));
            pieces.push(Piece::words(entry, session::WORDS, Owner::Session(i)));
            pieces.extend(files.map(|it| Piece::whole(it.pa, Owner::Session(i))));
        }

        let descriptions = found.descriptions.iter();
        pieces.extend(descriptions.map(|&(i, token, pa)| Piece::whole(pa, Owner::Memfd(i, token))));
        for &(i, token, frames) in &found.data {
            let pages = frames.pfn..frames.pfn + frames.nr_pages;
            pieces.extend(pages.map(|pfn| Piece::whole(pfn << 12, Owner::Memfd(i, token))));
        }
        Self(pieces)
    }

    /// Adds a page that only its driver finds.
    pub fn add(&mut self, pa: u64, owner: Owner) {
        self.0.push(Piece::whole(pa, owner));
    }

    /// Gives the next kernel along what is in them now: they are published.
    pub fn give_along(mut self, ctx: &mut Ctx, forger: &Forger) -> Result<()> {
        for piece in &mut self.0 {
            piece.sum = piece.sum(forger)?;
        }
        ctx.set_baggage(postcard::to_allocvec(&self)?);
        Ok(())
    }

    /// Those of the previous kernel.
    pub fn of_previous(ctx: &Ctx) -> Result<Self> {
        let bytes = ctx.baggage()?.context("nothing was given along")?;
        Ok(postcard::from_bytes(&bytes)?)
    }

    /// Fails unless the pages of these owners hold what they held, and are nobody's. Memory was taken before, as much as
    /// there is.
    pub fn unchanged(&self, forger: &Forger, kept: &[Owner]) -> Result<()> {
        for owner in kept {
            let is_there = self.0.iter().any(|piece| piece.owner == *owner);
            ensure!(is_there, "no page of {owner:?}");
        }
        let pieces = || self.0.iter().filter(|piece| kept.contains(&piece.owner));
        let frames: Vec<_> = pieces().map(|piece| piece.pa >> 12).collect();
        let used = frames::in_use(&frames)?;
        ensure!(used.is_empty(), "somebody has page frames {used:x?}");
        for piece in pieces() {
            ensure!(
                piece.sum(forger)? == piece.sum,
                "page {:#x} of {:?} is not what it was",
                piece.pa,
                piece.owner
            );
        }
        Ok(())
    }
}

// SPDX-License-Identifier: GPL-2.0

//! Which pages of the account were read for what.

use crate::{
    handover::{Malformed, Page, Source},
    kho::{IncomingAccount, Stop},
};
use core::cell::{Cell, RefCell};
use kernel::{prelude::*, rbtree::RBTree};

/// The pages of the account that were read so far, each for one chain only.
///
/// What a chain holds is copied. Without this, a few damaged pages would do to have a long chain
/// copied for each of many sessions.
pub(super) struct Blocks {
    /// The number of the chain of each page.
    owners: RefCell<RBTree<u64, usize>>,
    /// How many chains there are.
    chains: Cell<usize>,
    /// Whether memory was wanting to note a page.
    starved: Cell<bool>,
}

impl Blocks {
    /// No pages.
    pub(super) fn new() -> Self {
        Self {
            owners: RefCell::new(RBTree::new()),
            chains: Cell::new(0),
            starved: Cell::new(false),
        }
    }

    /// Begins another chain.
    pub(super) fn begin_chain(&self) -> Chain<'_> {
        let number = self.chains.get();
        self.chains.set(number + 1);
        Chain {
            blocks: self,
            number,
        }
    }
}

/// The pages of the previous kernel as the source of one chain.
pub(super) struct Chain<'a> {
    blocks: &'a Blocks,
    number: usize,
}

impl Chain<'_> {
    /// Takes a page for this chain, of which it stays even where the chain turns out to be damaged.
    /// `false` if it is of another one, or there is no memory to note it.
    pub(super) fn take(&self, pa: u64) -> bool {
        if let Some(owner) = self.owner(pa) {
            return owner == self.number;
        }
        let Ok(mut owners) = self.blocks.owners.try_borrow_mut() else {
            return false;
        };
        let noted = owners.try_create_and_insert(pa, self.number, GFP_KERNEL);
        if noted.is_err() {
            self.blocks.starved.set(true);
        }
        noted.is_ok()
    }

    /// Which chain a page is of.
    fn owner(&self, pa: u64) -> Option<usize> {
        let owners = self.blocks.owners.try_borrow().ok()?;
        owners.get(&pa).copied()
    }

    /// Says why the walk of this chain ended, in which a page of another one is one that is not there.
    pub(super) fn explain(&self, stop: Stop) -> Stop {
        match stop {
            _ if self.blocks.starved.get() => Stop::NoMemory,
            Stop::Malformed(Malformed::NotPreserved(pa)) if self.owner(pa).is_some() => {
                Malformed::Shared(pa).into()
            }
            stop => stop,
        }
    }
}

impl Source for Chain<'_> {
    fn read(&self, pa: u64, into: &mut Page) -> bool {
        let is_free = self.owner(pa).is_none_or(|owner| owner == self.number);
        // In this order: what is of another chain may be set aside already.
        is_free && IncomingAccount.read(pa, into) && self.take(pa)
    }
}

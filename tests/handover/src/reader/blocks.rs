// SPDX-License-Identifier: GPL-2.0

//! Which pages of the account were read for what, by the rule of the module's `incoming/blocks.rs`: each for one chain
//! only.

use super::Incoming;
use crate::handover::{Malformed, Page, Source};
use rustc_hash::FxHashMap;
use std::cell::{Cell, RefCell};

/// The pages that were read so far.
pub(super) struct Blocks<'a> {
    incoming: &'a Incoming<'a>,
    /// The number of the chain of each.
    owners: RefCell<FxHashMap<u64, usize>>,
    /// How many chains there are.
    chains: Cell<usize>,
}

impl<'a> Blocks<'a> {
    /// No pages.
    pub(super) fn new(incoming: &'a Incoming<'a>) -> Self {
        Self {
            incoming,
            owners: RefCell::default(),
            chains: Cell::new(0),
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

/// The memory as the source of one chain.
pub(super) struct Chain<'a> {
    blocks: &'a Blocks<'a>,
    number: usize,
}

impl Chain<'_> {
    /// Takes a page for this chain. `false` if it is of another one.
    pub(super) fn take(&self, pa: u64) -> bool {
        let mut owners = self.blocks.owners.borrow_mut();
        *owners.entry(pa).or_insert(self.number) == self.number
    }

    /// Says why the walk of this chain ended.
    pub(super) fn explain(&self, why: Malformed) -> Malformed {
        match why {
            Malformed::NotPreserved(pa) if self.owner(pa).is_some() => Malformed::Shared(pa),
            why => why,
        }
    }

    fn owner(&self, pa: u64) -> Option<usize> {
        self.blocks.owners.borrow().get(&pa).copied()
    }
}

impl Source for Chain<'_> {
    fn read(&self, pa: u64, into: &mut Page) -> bool {
        let is_free = self.owner(pa).is_none_or(|owner| owner == self.number);
        is_free && self.blocks.incoming.read(pa, into) && self.take(pa)
    }
}

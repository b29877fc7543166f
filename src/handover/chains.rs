// SPDX-License-Identifier: GPL-2.0

//! Which page of the account is read for which chain: each for one only.
//!
//! What a chain holds is copied. Without this, a few damaged pages would do to have a long chain
//! copied for each of many sessions.

use super::{Malformed, Page, Source};
use core::cell::Cell;

/// Where it is noted which chain has a page.
pub(crate) trait Owners {
    /// The number of the chain that has the page at `pa`, if one has.
    fn owner(&self, pa: u64) -> Option<usize>;

    /// Notes that a chain has a page that none had. `false` if there is no memory for it.
    fn note(&self, pa: u64, chain: usize) -> bool;
}

/// The pages of the account that were read so far.
pub(crate) struct Chains<'a, S, O> {
    source: &'a S,
    owners: O,
    /// How many chains there are.
    count: Cell<usize>,
    /// Whether memory was wanting to note a page.
    starved: Cell<bool>,
}

impl<'a, S: Source, O: Owners> Chains<'a, S, O> {
    /// No pages. `owners` has none, either.
    pub(crate) fn new(source: &'a S, owners: O) -> Self {
        Self {
            source,
            owners,
            count: Cell::new(0),
            starved: Cell::new(false),
        }
    }

    /// Begins another chain.
    pub(crate) fn begin(&self) -> Chain<'_, S, O> {
        let number = self.count.get();
        self.count.set(number + 1);
        Chain {
            chains: self,
            number,
        }
    }
}

/// The account as the source of one chain, in which a page of another one is not there.
pub(crate) struct Chain<'a, S, O> {
    chains: &'a Chains<'a, S, O>,
    number: usize,
}

impl<S: Source, O: Owners> Chain<'_, S, O> {
    /// Takes a page for this chain, of which it stays even where the chain turns out to be damaged.
    /// `false` if it is of another one, or there is no memory to note it.
    pub(crate) fn take(&self, pa: u64) -> bool {
        if let Some(owner) = self.chains.owners.owner(pa) {
            return owner == self.number;
        }
        let noted = self.chains.owners.note(pa, self.number);
        if !noted {
            self.chains.starved.set(true);
        }
        noted
    }

    /// Whether memory was wanting to note a page, of this chain or one before: it ended there.
    pub(crate) fn was_starved(&self) -> bool {
        self.chains.starved.get()
    }

    /// Says of the page at which the walk of this chain ended whether it is of another one.
    pub(crate) fn explain(&self, why: Malformed) -> Malformed {
        match why {
            Malformed::NotPreserved(pa) if self.chains.owners.owner(pa).is_some() => {
                Malformed::Shared(pa)
            }
            why => why,
        }
    }
}

impl<S: Source, O: Owners> Source for Chain<'_, S, O> {
    fn read(&self, pa: u64, into: &mut Page) -> bool {
        let owner = self.chains.owners.owner(pa);
        let is_free = owner.is_none_or(|owner| owner == self.number);
        // In this order: what is of another chain may be set aside already.
        is_free && self.chains.source.read(pa, into) && self.take(pa)
    }
}

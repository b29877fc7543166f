// SPDX-License-Identifier: GPL-2.0

//! Which pages of the account were read for what.

use super::Incoming;
use crate::handover::chains::{self, Chains, Owners};
use rustc_hash::FxHashMap;
use std::cell::RefCell;

/// The chain of each page.
#[derive(Default)]
pub(super) struct Map(RefCell<FxHashMap<u64, usize>>);

/// The pages that were read so far.
pub(super) type Blocks<'a> = Chains<'a, Incoming<'a>, Map>;

/// The memory as the source of one chain.
pub(super) type Chain<'a> = chains::Chain<'a, Incoming<'a>, Map>;

impl Owners for Map {
    fn owner(&self, pa: u64) -> Option<usize> {
        self.0.borrow().get(&pa).copied()
    }

    fn note(&self, pa: u64, chain: usize) -> bool {
        let before = self.0.borrow_mut().insert(pa, chain);
        assert_eq!(before, None, "{pa:#x} had a chain");
        true
    }
}

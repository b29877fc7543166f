// SPDX-License-Identifier: GPL-2.0

//! Which pages of the account were read for what, noted in a tree.

use crate::{
    handover::chains::{Chain, Chains, Owners},
    kho::{IncomingAccount, Stop},
};
use core::cell::RefCell;
use kernel::{prelude::*, rbtree::RBTree};

/// The chain of each page.
pub(super) struct Tree(RefCell<RBTree<u64, usize>>);

/// The pages of the account that were read so far.
pub(super) type Blocks = Chains<'static, IncomingAccount, Tree>;

impl Owners for Tree {
    fn owner(&self, pa: u64) -> Option<usize> {
        let owners = self.0.try_borrow().ok()?;
        owners.get(&pa).copied()
    }

    fn note(&self, pa: u64, chain: usize) -> bool {
        let Ok(mut owners) = self.0.try_borrow_mut() else {
            return false;
        };
        owners.try_create_and_insert(pa, chain, GFP_KERNEL).is_ok()
    }
}

/// No pages.
pub(super) fn new() -> Blocks {
    Chains::new(&IncomingAccount, Tree(RefCell::new(RBTree::new())))
}

/// Says why the walk of a chain ended.
pub(super) fn explain(chain: &Chain<'_, IncomingAccount, Tree>, stop: Stop) -> Stop {
    match stop {
        _ if chain.was_starved() => Stop::NoMemory,
        Stop::Malformed(why) => chain.explain(why).into(),
        stop => stop,
    }
}

// SPDX-License-Identifier: GPL-2.0

//! Which files are preserved, or retrieved and not finished, by any session.

use kernel::{
    prelude::*,
    rbtree::{RBTree, RBTreeNodeReservation},
    sync::global_lock,
};

global_lock! {
    // SAFETY: Initialized in the module's init, before anything else.
    unsafe(uninit) static IDENTITIES: Mutex<Option<RBTree<usize, ()>>> = None;
}

/// Makes the registry ready for use.
///
/// # Safety
///
/// To be called once, before anything else of this file.
pub(crate) unsafe fn init() {
    // SAFETY: By the contract of this function.
    unsafe { IDENTITIES.init() };
}

/// Stands for a file that must not be preserved a second time, until it is dropped.
///
/// # Invariants
///
/// `0` is in the registry, and there is no other `Identity` with it.
pub(crate) struct Identity(usize);

impl Identity {
    /// Takes the identity `id`, as a handler defines it. Fails with `EBUSY` if it is taken.
    pub(crate) fn take(id: usize) -> Result<Self> {
        Room::new()?.take(id)
    }
}

/// Room for an identity: taking one does not fail for want of memory any more.
pub(crate) struct Room(RBTreeNodeReservation<usize, ()>);

impl Room {
    /// Allocates it.
    ///
    /// Context: may sleep.
    pub(crate) fn new() -> Result<Self> {
        Ok(Self(RBTreeNodeReservation::new(GFP_KERNEL_ACCOUNT)?))
    }

    /// As [`Identity::take`].
    pub(crate) fn take(self, id: usize) -> Result<Identity> {
        let mut identities = IDENTITIES.lock();
        let identities = identities.get_or_insert_with(RBTree::new);
        if identities.get(&id).is_some() {
            return Err(EBUSY);
        }
        // INVARIANT: It was not in the registry, and is now.
        identities.insert(self.0.into_node(id, ()));
        Ok(Identity(id))
    }
}

impl Drop for Identity {
    fn drop(&mut self) {
        if let Some(identities) = IDENTITIES.lock().as_mut() {
            identities.remove(&self.0);
        }
    }
}

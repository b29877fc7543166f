// SPDX-License-Identifier: GPL-2.0

//! A map that remembers the order of insertion.
//!
//! Tokens and session names are found in logarithmic time, and freeze, unpreserve and finish go by
//! the order in which files and sessions came.

use kernel::{
    prelude::*,
    rbtree::{Entry, RBTree, RBTreeNode, RBTreeNodeReservation},
};

/// Values in the order of insertion, with an index by key.
///
/// # Invariants
///
/// `places` has, for each of `values`, its key with its place, and nothing else. Places only grow,
/// so that they are in the order of insertion.
pub(crate) struct OrderedMap<K, V> {
    values: RBTree<u64, (K, V)>,
    places: RBTree<K, u64>,
    next: u64,
    len: usize,
}

/// Room for a value: putting it there cannot fail.
pub(crate) struct Slot<K, V> {
    value: RBTreeNodeReservation<u64, (K, V)>,
    place: RBTreeNodeReservation<K, u64>,
}

impl<K, V> Slot<K, V> {
    /// Allocates room, charged to the memory cgroup of the caller.
    ///
    /// Context: may sleep.
    pub(crate) fn new() -> Result<Self> {
        Ok(Self {
            value: RBTreeNodeReservation::new(GFP_KERNEL_ACCOUNT)?,
            place: RBTreeNodeReservation::new(GFP_KERNEL_ACCOUNT)?,
        })
    }
}

impl<K: Ord + Copy, V> OrderedMap<K, V> {
    /// A map of nothing.
    pub(crate) fn new() -> Self {
        Self {
            values: RBTree::new(),
            places: RBTree::new(),
            next: 0,
            len: 0,
        }
    }

    /// Number of values.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Whether there is a value for `key`.
    pub(crate) fn contains(&self, key: &K) -> bool {
        self.places.get(key).is_some()
    }

    /// Puts a value behind all others. Gives it back if there is one for `key` already.
    pub(crate) fn push(&mut self, slot: Slot<K, V>, key: K, value: V) -> Result<(), V> {
        let Entry::Vacant(place) = self.places.entry(key) else {
            return Err(value);
        };
        // INVARIANT: The place is larger than all others, and enters both trees.
        place.insert(self.next, slot.place);
        let node: RBTreeNode<_, _> = slot.value.into_node(self.next, (key, value));
        self.values.insert(node);
        self.next = self.next.wrapping_add(1);
        self.len += 1;
        Ok(())
    }

    /// The value for `key`.
    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        let place = self.places.get(key)?;
        self.values.get(place).map(|(_, value)| value)
    }

    /// The value for `key`.
    pub(crate) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let place = self.places.get(key)?;
        self.values.get_mut(place).map(|(_, value)| value)
    }

    /// Takes the value for `key` out.
    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        let place = self.places.remove(key)?;
        let (_, value) = self.values.remove(&place)?;
        self.len -= 1;
        Some(value)
    }

    /// The key of the last value.
    pub(crate) fn last_key(&self) -> Option<K> {
        let cursor = self.values.cursor_back()?;
        let (_, (key, _)) = cursor.current();
        Some(*key)
    }

    /// Takes the last value out.
    pub(crate) fn pop(&mut self) -> Option<(K, V)> {
        let key = self.last_key()?;
        self.remove(&key).map(|value| (key, value))
    }

    /// Iterates in the order of insertion.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (K, &V)> {
        self.values.values().map(|(key, value)| (*key, value))
    }

    /// The number that the next value gets in [`Self::places`].
    pub(crate) fn next_place(&self) -> u64 {
        self.next
    }

    /// Iterates in the order of insertion, with a number that only grows and stays a value's own.
    pub(crate) fn places(&self) -> impl Iterator<Item = (u64, K, &V)> {
        self.values
            .iter()
            .map(|(place, (key, value))| (*place, *key, value))
    }

    /// Iterates in the order of insertion.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (K, &mut V)> {
        self.values.values_mut().map(|(key, value)| (*key, value))
    }

    /// Calls `visit` for each value in reverse order, with the number of values before it and
    /// its key.
    pub(crate) fn for_each_rev(&mut self, mut visit: impl FnMut(usize, K, &V)) {
        let mut before = self.len;
        let mut cursor = self.values.cursor_back_mut();
        while let Some(at) = cursor {
            let (_, (key, value)) = at.current();
            before -= 1;
            visit(before, *key, value);
            cursor = at.move_prev();
        }
    }
}

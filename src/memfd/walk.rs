// SPDX-License-Identifier: GPL-2.0

//! Walking over the page cache of a memfd.
//!
//! C header: `include/linux/xarray.h`.

use super::shmem::mapping;
use core::ptr::{addr_of_mut, null_mut};
use kernel::{bindings, fs::File, prelude::*, sync::rcu};

/// A walk over what a file has in its page cache or swapped out, in order.
pub(super) struct Walk<'a> {
    state: bindings::xa_state,
    /// What was found last.
    entry: *mut c_void,
    _rcu: rcu::Guard,
    _file: &'a File,
}

impl<'a> Walk<'a> {
    /// Where a walk begins that has not descended into the tree (`XAS_RESTART`).
    const RESTART: usize = 3;
    /// An entry that says that the tree has changed (`XA_RETRY_ENTRY`).
    const RETRY: usize = 256 << 2 | 2;

    /// Begins at `from`, in pages.
    pub(super) fn new(file: &'a File, from: u64) -> Self {
        Self {
            state: bindings::xa_state {
                // SAFETY: The mapping is valid as long as the file, which the walk borrows.
                xa: unsafe { addr_of_mut!((*mapping(file)).i_pages) },
                xa_index: from as usize,
                xa_shift: 0,
                xa_sibs: 0,
                xa_offset: 0,
                xa_pad: 0,
                xa_node: Self::RESTART as *mut _,
                xa_alloc: null_mut(),
                xa_update: None,
                xa_lru: null_mut(),
            },
            entry: null_mut(),
            _rcu: rcu::read_lock(),
            _file: file,
        }
    }

    /// The offset of the next folio or swap entry, up to `last`.
    pub(super) fn next(&mut self, last: u64) -> Option<u64> {
        loop {
            // SAFETY: The state is that of a walk of this tree, in one RCU read section.
            let entry = unsafe { bindings::xas_find(&mut self.state, last as usize) };
            match entry as usize {
                0 => return None,
                Self::RETRY => self.state.xa_node = Self::RESTART as *mut _,
                _ => {
                    self.entry = entry;
                    return Some(self.state.xa_index as u64);
                }
            }
        }
    }

    /// Whether what was found last is a page that a previous kernel preserved and nobody has touched.
    pub(super) fn is_preserved(&self) -> bool {
        // SAFETY: The function looks at the entry's value only.
        unsafe { bindings::shmem_entry_is_preserved(self.entry) }
    }
}

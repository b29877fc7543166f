// SPDX-License-Identifier: GPL-2.0

//! The safe face of Kexec HandOver.
//!
//! Memory goes out as an owner whose Drop takes it back ([`PreservedPage`], [`block::BlockChain`],
//! [`array::PreservedArray`], [`Subtree`]): what is still owned when the kernel is left arrives.
//! Memory comes in as an address, which is worth nothing until KHO says that it is preserved: it
//! is copied from with [`Incoming`] and taken over as [`RestoredPages`]. The account of all that is not
//! taken over, but [set aside](set_aside) until it is freed.
//!
//! C header: `include/linux/kexec_handover.h`.

mod array;
mod block;
mod pages;

pub(crate) use array::PreservedArray;
pub(crate) use block::BlockChain;
pub(crate) use pages::{
    alone, claim_folios, claim_frames, free_account, init, preserved_order, set_aside,
    write_account, Incoming, IncomingAccount, PreservedPage, RestoredPages,
};

use crate::{fault, handover::Malformed};
use kernel::{bindings, error::to_result, prelude::*};

/// Why reading what the previous kernel left ended early: bad bytes, or no memory for what they say.
pub(crate) enum Stop {
    Malformed(Malformed),
    NoMemory,
}

impl From<Malformed> for Stop {
    fn from(malformed: Malformed) -> Self {
        Stop::Malformed(malformed)
    }
}

impl From<kernel::alloc::AllocError> for Stop {
    fn from(_: kernel::alloc::AllocError) -> Self {
        Stop::NoMemory
    }
}

/// Whether KHO is in use: it can be switched off on the kernel's command line.
pub(crate) fn is_enabled() -> bool {
    // SAFETY: Reads a variable.
    unsafe { bindings::kho_is_enabled() }
}

/// A page that the next kernel finds by name.
pub(crate) struct Subtree {
    page: PreservedPage,
}

impl Subtree {
    /// Hands over `page` under `name`; `size` bytes of it are used.
    ///
    /// Fails with `EEXIST` if the name is taken.
    ///
    /// Context: may sleep.
    pub(crate) fn add(name: &CStr, mut page: PreservedPage, size: usize) -> Result<Self> {
        fault::point()?;
        // SAFETY: `name` ends with a zero. The page lives until it is removed in Drop.
        to_result(unsafe {
            bindings::kho_add_subtree(name.as_char_ptr(), page.as_mut_ptr(), size)
        })?;
        Ok(Self { page })
    }

    /// The page.
    pub(crate) fn page_mut(&mut self) -> &mut PreservedPage {
        &mut self.page
    }
}

impl Drop for Subtree {
    fn drop(&mut self) {
        // SAFETY: The page was added in `add`. It is freed by its own Drop, after this.
        unsafe { bindings::kho_remove_subtree(self.page.as_mut_ptr()) };
    }
}

/// Finds what the previous kernel handed over under `name`: its physical address and its size in
/// bytes, not to be trusted.
///
/// Fails with `ENOENT` if there is nothing of that name, with `EINVAL` if it is damaged.
pub(crate) fn find_subtree(name: &CStr) -> Result<(u64, usize)> {
    let (mut pa, mut size) = (0, 0);
    // SAFETY: `name` ends with a zero; the others are valid for writes.
    to_result(unsafe { bindings::kho_retrieve_subtree(name.as_char_ptr(), &mut pa, &mut size) })?;
    Ok((pa, size))
}

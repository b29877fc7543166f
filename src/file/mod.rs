// SPDX-License-Identifier: GPL-2.0

//! The life of one file: [`preserved`] in the old kernel, [`restored`] in the new one.

mod identity;
mod preserved;
mod restored;

pub(crate) use preserved::Preserved;
pub(crate) use restored::Restored;

/// Makes the registry of identities ready for use.
///
/// # Safety
///
/// To be called once, before anything else of this room.
pub(crate) unsafe fn init() {
    // SAFETY: By the contract of this function.
    unsafe { identity::init() };
}

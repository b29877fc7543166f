// SPDX-License-Identifier: GPL-2.0

//! The extents of a memfd while it is looked through: pinned, and not preserved yet.

use super::{frames::unpin, pinned_run::PinnedRun, sort};
use crate::handover::extent::ExtentSer;
use kernel::prelude::*;

/// Extents whose folios are pinned, until this is dropped.
///
/// # Invariants
///
/// This owns a pin of each folio in the extents.
pub(super) struct PinnedExtents(KVVec<ExtentSer>);

impl PinnedExtents {
    /// No extents.
    pub(super) const fn new() -> Self {
        Self(KVVec::new())
    }

    /// Number of extents.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Takes over all pages of a run. On failure nothing has changed.
    ///
    /// Context: may sleep.
    pub(super) fn append(&mut self, run: &mut PinnedRun) -> Result {
        let len = self.0.len();
        for extent in run.extents() {
            let entry = ExtentSer::new(&extent).ok_or(EFBIG);
            let pushed = entry.and_then(|entry| Ok(self.0.push(entry, GFP_KERNEL_ACCOUNT)?));
            if let Err(err) = pushed {
                self.0.truncate(len);
                return Err(err);
            }
        }
        // INVARIANT: The extents have taken over the pins.
        run.forget();
        Ok(())
    }

    /// The extents in the order of memory. On failure they are in any order.
    ///
    /// Context: may sleep, and yields the CPU.
    pub(super) fn sorted(&mut self) -> Result<&[ExtentSer]> {
        sort::by_key(&mut self.0, GFP_KERNEL_ACCOUNT, ExtentSer::pfn)?;
        Ok(&self.0)
    }

    /// Ends the extents, whose pins the caller has taken over.
    pub(super) fn forget(mut self) {
        self.0.clear();
    }
}

impl Drop for PinnedExtents {
    fn drop(&mut self) {
        for entry in self.0.iter() {
            // SAFETY: By the type invariant this owns the pins.
            unsafe { unpin(&entry.extent()) };
        }
    }
}

// SPDX-License-Identifier: GPL-2.0

//! Pages that follow one another in a memfd, while it is looked through.

use super::{folio::Pinned, frames::unpin_singles};
use crate::handover::{extent::Extent, table::TABLE_FRAMES};
use kernel::prelude::*;

/// Pages that follow one another in the file, pinned until this is dropped: what can be extents, or
/// a table.
///
/// # Invariants
///
/// This owns a pin of each page in `frames`.
pub(super) struct PinnedRun {
    /// Where in the file the first page is, in pages.
    index: u64,
    /// The page frame numbers.
    frames: KVec<u64>,
}

impl PinnedRun {
    /// No pages.
    pub(super) const fn new() -> Self {
        Self {
            index: 0,
            frames: KVec::new(),
        }
    }

    /// Whether the next page of the run would be at `index`, and in the same table.
    #[inline]
    pub(super) fn is_followed_by(&self, index: u64) -> bool {
        index == self.index + self.frames.len() as u64 && index % TABLE_FRAMES as u64 != 0
    }

    /// Adds a page that is at `index`: the next, or the first. On failure nothing has changed.
    #[inline]
    pub(super) fn push(&mut self, folio: Pinned, pfn: u64, index: u64) -> Result {
        self.frames.push(pfn, GFP_KERNEL_ACCOUNT)?;
        if self.frames.len() == 1 {
            self.index = index;
        }
        // INVARIANT: The run has taken over the pin.
        folio.forget();
        Ok(())
    }

    /// The extents of the run, in order.
    pub(super) fn extents(&self) -> impl Iterator<Item = Extent> + '_ {
        let mut index = self.index;
        let in_memory = self.frames.chunk_by(|pfn, next| pfn + 1 == *next);
        in_memory.filter_map(move |pfns| {
            let extent = Extent {
                pfn: *pfns.first()?,
                index,
                nr_pages: pfns.len() as u64,
                order: 0,
            };
            index = extent.end_index();
            Some(extent)
        })
    }

    /// Where in the file the run is, and its page frame numbers, if they are as many as a table has:
    /// then it begins where a table may, as all runs end there.
    pub(super) fn as_table(&self) -> Option<(u64, &[u64])> {
        (self.frames.len() == TABLE_FRAMES).then_some((self.index, &self.frames))
    }

    /// Ends the run, whose pins the caller has taken over.
    pub(super) fn forget(&mut self) {
        self.frames.clear();
    }
}

impl Drop for PinnedRun {
    fn drop(&mut self) {
        // SAFETY: By the type invariant this owns the pins.
        unsafe { unpin_singles(self.frames.iter().copied()) };
    }
}

// SPDX-License-Identifier: GPL-2.0

//! Finding and preserving what a memfd has, now and once more before the kexec.

use super::{
    folio::PreservedFolios,
    shmem::{self, FrozenMemfd},
};
use core::ops::Range;
use kernel::prelude::*;

/// What of a memfd is preserved, and what was empty when it was last looked at.
///
/// # Invariants
///
/// `holes` are all ranges of the file, in pages and in order, from which nothing is preserved.
pub(super) struct Contents {
    folios: PreservedFolios,
    holes: Holes,
}

/// Ranges of a file, in pages and in order, none of them empty.
struct Holes(KVVec<Range<u64>>);

impl Holes {
    /// Adds a range, unless it is empty. The caller has made room for it.
    fn push(&mut self, range: Range<u64>) {
        if !range.is_empty() {
            // There is room.
            let _ = self.0.push_within_capacity(range);
        }
    }
}

impl Contents {
    /// Nothing of a memfd of `nr_pages` pages.
    pub(super) fn new(nr_pages: u64) -> Result<Self> {
        let mut holes = Holes(KVVec::with_capacity(1, GFP_KERNEL_ACCOUNT)?);
        holes.push(0..nr_pages);
        Ok(Self {
            folios: PreservedFolios::new(),
            holes,
        })
    }

    /// Preserves what was filled since the last time.
    ///
    /// Fails with `EINTR` when the task was killed. On failure some of it may be preserved, and all
    /// that is not is among the holes.
    ///
    /// Context: may sleep, and may take long: it yields the CPU.
    pub(super) fn scan(&mut self, memfd: &FrozenMemfd) -> Result {
        let mut left = Holes(KVVec::new());
        left.0.reserve(self.holes.0.len(), GFP_KERNEL_ACCOUNT)?;
        let before = core::mem::replace(&mut self.holes, left);
        let mut result = Ok(());
        let mut nr_before = before.0.len();
        for mut hole in before.0 {
            if result.is_ok() {
                result = self.fill(memfd, &mut hole, nr_before);
            }
            nr_before -= 1;
            self.holes.push(hole);
        }
        result
    }

    /// Preserves what there is in `hole`, and leaves of it what is behind that.
    ///
    /// There always is room for `nr_after` holes more in the end.
    fn fill(&mut self, memfd: &FrozenMemfd, hole: &mut Range<u64>, nr_after: usize) -> Result {
        while let Some(run) = memfd.populated(hole.clone()) {
            shmem::yield_cpu()?;
            self.holes.0.reserve(nr_after + 1, GFP_KERNEL_ACCOUNT)?;
            let start = run.start;
            let batch = memfd.pin(run)?;
            self.holes.push(hole.start..start);
            hole.start = start;
            self.folios.add(batch, &mut hole.start)?;
            if hole.start == start {
                // Nothing was pinned of what is there: never to be tried without end.
                return Err(EIO);
            }
        }
        Ok(())
    }

    /// What is preserved.
    pub(super) fn folios(&self) -> &PreservedFolios {
        &self.folios
    }
}

// SPDX-License-Identifier: GPL-2.0

//! Finding and preserving what a memfd has, now and once more before the kexec.

use super::{
    folio::PinnedBatch,
    shmem::{self, FrozenMemfd},
};
use crate::handover::{memfd::MemfdSer, vmalloc::VmallocSer};
use core::ops::Range;
use kernel::prelude::*;

/// How preserved folios are described to the next kernel: one of the encodings of a memfd.
///
/// What is added is preserved with [`Self::commit`], or let go with [`Self::rollback`]. To drop this
/// is to unpreserve all.
pub(super) trait Encoding: Send {
    /// Adds all folios of `batch`, each of which moves `end` to behind it.
    ///
    /// Context: may sleep.
    fn add(&mut self, batch: PinnedBatch, end: &mut u64) -> Result;

    /// Preserves what was added since the last time. Does nothing on failure.
    ///
    /// Context: may sleep.
    fn commit(&mut self) -> Result;

    /// Lets go of what was added since the last [`Self::commit`].
    fn rollback(&mut self);

    /// Number of pages that are preserved.
    fn nr_pages(&self) -> u64;

    /// Describes the memfd to the next kernel, which finds it at the address that this returns.
    fn describe(&mut self, memfd: Properties) -> Result<u64>;
}

/// What a memfd is beside its pages.
pub(super) struct Properties {
    /// The file position in bytes.
    pub(super) pos: u64,
    /// The size in bytes.
    pub(super) size: u64,
    /// The seals.
    pub(super) seals: u32,
}

impl Properties {
    /// The description of the memfd, with so many entries, those of an array among them.
    pub(super) fn describe(self, nr_entries: u64, entries: VmallocSer) -> MemfdSer {
        MemfdSer {
            pos: self.pos,
            size: self.size,
            seals: self.seals,
            flags: 0,
            nr_entries,
            entries,
        }
    }
}

/// What of a memfd is preserved, and what was empty when it was last looked at.
///
/// # Invariants
///
/// `holes` are all ranges of the file, in pages and in order, from which nothing is preserved.
pub(super) struct Contents {
    encoding: KBox<dyn Encoding>,
    holes: Holes,
}

/// Ranges of a file, in pages and in order, none of them empty.
struct Holes(KVVec<Range<u64>>);

impl Holes {
    /// Adds a range, unless it is empty.
    fn push(&mut self, range: Range<u64>) -> Result {
        if !range.is_empty() {
            self.0.push(range, GFP_KERNEL_ACCOUNT)?;
        }
        Ok(())
    }
}

impl Contents {
    /// Nothing of a memfd of `nr_pages` pages.
    pub(super) fn new(nr_pages: u64, encoding: KBox<dyn Encoding>) -> Result<Self> {
        let mut holes = Holes(KVVec::new());
        holes.push(0..nr_pages)?;
        Ok(Self { encoding, holes })
    }

    /// Preserves what was filled since the last scan.
    ///
    /// As [`Self::scan`], but quick where there is nothing to do: a paused workload waits for it.
    pub(super) fn rescan(&mut self, memfd: &FrozenMemfd) -> Result {
        // Nothing that is preserved ever leaves a frozen mapping. So with as many pages as are
        // preserved it has no others.
        if memfd.nr_populated() == self.encoding.nr_pages() {
            return Ok(());
        }
        self.scan(memfd)
    }

    /// Preserves what there is in the holes.
    ///
    /// Fails with `EINTR` when the task was killed. On failure all is as before.
    ///
    /// Context: may sleep, and may take long: it yields the CPU.
    pub(super) fn scan(&mut self, memfd: &FrozenMemfd) -> Result {
        let mut left = Holes(KVVec::new());
        let scanned = self
            .holes
            .0
            .iter()
            .try_for_each(|hole| fill(&mut *self.encoding, memfd, hole.clone(), &mut left))
            .and_then(|()| self.encoding.commit());
        match scanned {
            Ok(()) => {
                // INVARIANT: What was preserved is not in `left`, all else is.
                self.holes = left;
                Ok(())
            }
            Err(err) => {
                self.encoding.rollback();
                Err(err)
            }
        }
    }

    /// As [`Encoding::describe`].
    pub(super) fn describe(&mut self, memfd: Properties) -> Result<u64> {
        self.encoding.describe(memfd)
    }
}

/// Adds what there is in `hole`, and puts what is still empty behind `left`.
fn fill(
    encoding: &mut dyn Encoding,
    memfd: &FrozenMemfd,
    mut hole: Range<u64>,
    left: &mut Holes,
) -> Result {
    while let Some(run) = memfd.populated(hole.clone()) {
        shmem::yield_cpu()?;
        let start = run.start;
        let batch = memfd.pin(run)?;
        left.push(hole.start..start)?;
        hole.start = start;
        encoding.add(batch, &mut hole.start)?;
        if hole.start == start {
            // Nothing was pinned of what is there: never to be tried without end.
            return Err(EIO);
        }
    }
    left.push(hole)
}

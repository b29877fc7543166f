// SPDX-License-Identifier: GPL-2.0

//! Finding and preserving what a memfd has, now and once more before the kexec.

use super::{
    folio::{Pinned, PinnedBatch},
    shmem::FrozenMemfd,
};
use crate::{
    handover::{extent::Extent, memfd::MemfdSer, vmalloc::VmallocSer},
    task,
};
use core::ops::Range;
use kernel::{bindings, prelude::*};

/// How preserved folios are described to the next kernel: one of the encodings of a memfd.
///
/// What is added is preserved with [`Self::commit`], or let go with [`Self::rollback`]. To drop this
/// is to unpreserve all.
pub(super) trait Encoding: Send {
    /// Adds a folio, and where it is. After a failure only [`Self::rollback`] may follow.
    ///
    /// Context: may sleep, and yields the CPU: it may preserve what was added.
    fn add(&mut self, folio: Pinned, extent: Extent) -> Result;

    /// Preserves what was added since the last time. On failure nothing of it is, and only
    /// [`Self::rollback`] may follow.
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

/// How many pages can become one large folio.
const BLOCK: u64 = 1 << bindings::PMD_ORDER;

/// How often it is tried to make one of a block.
const ATTEMPTS: usize = 3;

/// The block that page number `index` is in.
fn block_of(index: u64) -> Range<u64> {
    let start = index - index % BLOCK;
    start..start.saturating_add(BLOCK)
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
        let mut scan = Scan {
            encoding: &mut *self.encoding,
            memfd,
            left: Holes(KVVec::new()),
            may_collapse: true,
            tried: None,
        };
        let scanned = self
            .holes
            .0
            .iter()
            .try_for_each(|hole| scan.range(hole.clone()));
        let left = scan.left;
        let scanned = scanned.and_then(|()| self.encoding.commit());
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

/// A scan of ranges of the file, in order.
struct Scan<'a> {
    encoding: &'a mut dyn Encoding,
    memfd: &'a FrozenMemfd,
    /// What is still empty.
    left: Holes,
    /// Whether there is memory for large folios.
    may_collapse: bool,
    /// Where the last block begins that was to become one.
    tried: Option<u64>,
}

impl Scan<'_> {
    /// Adds what there is in `range`.
    fn range(&mut self, range: Range<u64>) -> Result {
        let mut done = range.start;
        let mut next = range.start;
        while next < range.end {
            task::yield_cpu()?;
            // Who begins in the middle of a block leaves the next one whole.
            let end = match next % BLOCK {
                0 => range.end,
                _ => range.end.min(block_of(next).end),
            };
            let from = next;
            let mut batch = self.memfd.pin_present(&mut next, end)?;
            if batch.is_full() || next == end {
                self.take(batch, &mut done)?;
                continue;
            }
            // What is there now wants to be brought in or moved.
            let block = block_of(next);
            let is_whole = from <= block.start && block.end <= range.end;
            let again = is_whole && self.collapse(&mut batch, &block)?;
            self.take(batch, &mut done)?;
            next = if again {
                block.start
            } else {
                self.pin(next..block.end.min(range.end), &mut done)?
            };
        }
        self.left.push(done..range.end)
    }

    /// Tries to move a block into a large folio, for which none of its pages may be pinned. Returns
    /// false if it did not try; else the block is not in the batch any more, and to be looked at again.
    fn collapse(&mut self, batch: &mut PinnedBatch, block: &Range<u64>) -> Result<bool> {
        if !self.may_collapse || self.tried == Some(block.start) {
            return Ok(false);
        }
        self.tried = Some(block.start);
        batch.truncate(block.start);
        // Whoever uses a page of it just now is done with it soon.
        for _ in 0..ATTEMPTS {
            match self.memfd.collapse(block.start) {
                Err(EAGAIN) => task::yield_cpu()?,
                Err(ENOMEM | EBUSY) => {
                    self.may_collapse = false;
                    break;
                }
                _ => break,
            }
        }
        Ok(true)
    }

    /// Adds what there is in `range`, which begins with a page that has to be brought in or moved. Returns
    /// up to where it has done so.
    fn pin(&mut self, range: Range<u64>, done: &mut u64) -> Result<u64> {
        let end = range.end;
        let Some(run) = self.memfd.populated(range) else {
            return Ok(end);
        };
        let start = run.start;
        let batch = self.memfd.pin(run)?;
        self.take(batch, done)?;
        if *done <= start {
            // Nothing was pinned of what is there: never to be tried without end.
            return Err(EIO);
        }
        Ok(*done)
    }

    /// Adds a batch of folios; `done` is up to where the file was looked at.
    fn take(&mut self, mut batch: PinnedBatch, done: &mut u64) -> Result {
        for folio in batch.drain() {
            folio.settle();
            let extent = folio.extent();
            if extent.index != *done {
                self.left.push(*done..extent.index)?;
            }
            *done = extent.end_index();
            self.encoding.add(folio, extent)?;
        }
        Ok(())
    }
}

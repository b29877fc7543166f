// SPDX-License-Identifier: GPL-2.0

//! The extents of a memfd: runs of pages, in memory and in the file.

use super::{
    folio::{Pinned, PinnedBatch},
    scan::{Encoding, Properties},
    shmem, sort,
};
use crate::{
    fault,
    handover::{
        extent::{Extent, ExtentSer, IN_HEAD},
        memfd::MemfdSer,
    },
    kho::{PreservedArray, PreservedPage},
};
use core::{
    mem::{replace, size_of},
    ops::Range,
};
use kernel::{bindings, error::to_result, prelude::*};

/// The entries as the next kernel finds them: behind the description in its page, and the rest in an
/// array.
struct Entries {
    head: PreservedPage,
    in_head: usize,
    rest: PreservedArray<ExtentSer>,
}

impl Entries {
    /// No entries.
    fn new() -> Result<Self> {
        Ok(Self {
            head: PreservedPage::new()?,
            in_head: 0,
            rest: PreservedArray::new(),
        })
    }

    fn len(&self) -> usize {
        self.in_head + self.rest.len()
    }

    /// The bytes of the entry number `i` of the head.
    fn slot(i: usize) -> Range<usize> {
        let start = size_of::<MemfdSer>() + i * size_of::<ExtentSer>();
        start..start + size_of::<ExtentSer>()
    }

    /// Appends an entry. On failure nothing has changed.
    fn push(&mut self, entry: &ExtentSer) -> Result {
        if self.in_head == IN_HEAD {
            return self.rest.push(entry);
        }
        let to = self
            .head
            .0
            .get_mut(Self::slot(self.in_head))
            .ok_or(EINVAL)?;
        entry.write_to(to).map_err(|_| EINVAL)?;
        self.in_head += 1;
        Ok(())
    }

    /// Takes back all entries from number `len` on.
    fn truncate(&mut self, len: usize) {
        self.rest.truncate(len.saturating_sub(IN_HEAD));
        self.in_head = self.in_head.min(len);
    }

    /// Iterates over the entries from number `start` on, in order.
    fn iter_from(&self, start: usize) -> impl Iterator<Item = &ExtentSer> {
        let head = self.head.0.get(size_of::<MemfdSer>()..).unwrap_or(&[]);
        let head = <[ExtentSer]>::ref_from_prefix_with_elems(head, self.in_head);
        let in_head = head.map_or(&[][..], |(entries, _)| entries);
        let rest = self.rest.iter_from(start.saturating_sub(self.in_head));
        Iterator::chain(in_head.iter().skip(start), rest)
    }
}

/// Extents whose folios are pinned, until this is dropped.
///
/// # Invariants
///
/// This owns a pin of each folio in the extents.
struct PinnedExtents(KVVec<ExtentSer>);

impl PinnedExtents {
    /// Ends this, whose pins the caller has taken over.
    fn forget(mut self) {
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

/// Unpins the folios of an extent.
///
/// # Safety
///
/// The caller owns a pin of each folio in the extent, and gives it up.
unsafe fn unpin(extent: &Extent) {
    let mut pfn = extent.pfn;
    while pfn < extent.end_pfn() {
        // SAFETY: By the contract of this function the folio is pinned, so that it is still there.
        unsafe {
            let page = bindings::pfn_to_page(pfn as usize);
            bindings::unpin_folio(bindings::page_folio(page));
        }
        pfn += 1 << extent.order;
    }
}

/// The folios of a memfd as "memfd-extents-v1" has them: few entries, and few KHO keys.
///
/// # Invariants
///
/// For each of `entries` this owns the pins of its folios, and the preservation of each range.
/// Each [`Encoding::commit`] adds whole ranges.
pub(super) struct PreservedExtents {
    entries: Entries,
    added: PinnedExtents,
    nr_pages: u64,
}

impl PreservedExtents {
    /// No extents.
    pub(super) fn new() -> Result<Self> {
        Ok(Self {
            entries: Entries::new()?,
            added: PinnedExtents(KVVec::new()),
            nr_pages: 0,
        })
    }

    /// Writes entries for what was added, in the order of memory. Returns their number of pages.
    fn list_added(&mut self) -> Result<u64> {
        sort::by_key(&mut self.added.0, ExtentSer::pfn)?;
        let mut nr_pages = 0;
        let mut before: Option<Extent> = None;
        for (i, entry) in self.added.0.iter().enumerate() {
            if i % PinnedBatch::MAX == 0 {
                shmem::yield_cpu()?;
            }
            let extent = entry.extent();
            let adjoins = before.is_some_and(|before| before.adjoins(&extent));
            self.entries.push(&entry.starting_range(!adjoins))?;
            nr_pages += extent.nr_pages;
            before = Some(extent);
        }
        Ok(nr_pages)
    }

    /// Preserves the ranges from entry number `start` on. On failure none of them is.
    fn preserve_from(&self, start: usize) -> Result {
        for range in ranges(&self.entries, start) {
            let preserved = shmem::yield_cpu().and_then(|()| preserve(&range));
            if let Err(err) = preserved {
                for done in ranges(&self.entries, start) {
                    if done.start == range.start {
                        break;
                    }
                    unpreserve(&done);
                }
                return Err(err);
            }
        }
        Ok(())
    }
}

impl Encoding for PreservedExtents {
    fn add(&mut self, folio: Pinned, extent: Extent) -> Result {
        let merged = match self.added.0.last_mut() {
            Some(last) => last.merge(&extent),
            None => false,
        };
        if !merged {
            let entry = ExtentSer::new(&extent).ok_or(EFBIG)?;
            self.added.0.push(entry, GFP_KERNEL_ACCOUNT)?;
        }
        // INVARIANT: The extent has taken over the pin.
        folio.forget();
        Ok(())
    }

    fn commit(&mut self) -> Result {
        let start = self.entries.len();
        let listed = self.list_added();
        let preserved = listed.and_then(|nr_pages| self.preserve_from(start).map(|()| nr_pages));
        match preserved {
            Ok(nr_pages) => {
                // INVARIANT: The entries have taken over the pins, and their ranges are preserved.
                replace(&mut self.added, PinnedExtents(KVVec::new())).forget();
                self.nr_pages += nr_pages;
                Ok(())
            }
            Err(err) => {
                self.entries.truncate(start);
                Err(err)
            }
        }
    }

    fn rollback(&mut self) {
        self.added = PinnedExtents(KVVec::new());
    }

    fn nr_pages(&self) -> u64 {
        self.nr_pages
    }

    fn describe(&mut self, memfd: Properties) -> Result<u64> {
        let nr_entries = self.entries.len() as u64;
        let ser = memfd.describe(nr_entries, self.entries.rest.serialize()?);
        ser.write_to_prefix(&mut self.entries.head.0)
            .map_err(|_| EINVAL)?;
        Ok(self.entries.head.phys())
    }
}

impl Drop for PreservedExtents {
    fn drop(&mut self) {
        for range in ranges(&self.entries, 0) {
            unpreserve(&range);
        }
        for entry in self.entries.iter_from(0) {
            // SAFETY: By the type invariant this owns the pins.
            unsafe { unpin(&entry.extent()) };
        }
    }
}

/// The ranges of page frames that the entries from number `start` on make, the first of which starts
/// one.
fn ranges(entries: &Entries, start: usize) -> impl Iterator<Item = Frames> + '_ {
    let mut entries = entries.iter_from(start).peekable();
    core::iter::from_fn(move || {
        let first = entries.next()?.extent();
        let mut range = Frames {
            start: first.pfn,
            end: first.end_pfn(),
            is_folio: first.order != 0,
        };
        while let Some(entry) = entries.next_if(|entry| !entry.starts_range()) {
            range.end = entry.extent().end_pfn();
        }
        Some(range)
    })
}

/// The fewest pages that are preserved as blocks, not each by itself.
///
/// KHO walks its keys by size, the largest blocks first, and for each the boot of the next kernel
/// inserts a region into an array. Where there is not much more than single pages, blocks save few
/// keys, and keys of several sizes are inserted in the middle of the array again and again: 44
/// seconds for 1 GiB, where single pages, all of which come in order, take half of one.
const MIN_BLOCKS: u64 = 32;

/// A range of page frames.
struct Frames {
    start: u64,
    /// The frame behind the last one.
    end: u64,
    /// Whether it is one large folio, which must be one key.
    is_folio: bool,
}

impl Frames {
    /// The pieces that are preserved by one call each.
    fn pieces(&self) -> impl Iterator<Item = Range<u64>> {
        let (start, end) = (self.start, self.end);
        let size = if self.is_folio || end - start >= MIN_BLOCKS {
            end - start
        } else {
            1
        };
        (start..end)
            .step_by(size as usize)
            .map(move |at| at..at + size)
    }
}

/// Preserves a range. On failure nothing of it is.
fn preserve(range: &Frames) -> Result {
    for piece in range.pieces() {
        let preserved = fault::point().and_then(|()| {
            // SAFETY: The function only notes the frames, which are those of pinned folios.
            to_result(unsafe {
                let page = bindings::pfn_to_page(piece.start as usize);
                bindings::kho_preserve_pages(page, (piece.end - piece.start) as usize)
            })
        });
        if let Err(err) = preserved {
            for done in range.pieces().take_while(|done| done.start < piece.start) {
                unpreserve_piece(&done);
            }
            return Err(err);
        }
    }
    Ok(())
}

/// Undoes [`preserve`].
fn unpreserve(range: &Frames) {
    for piece in range.pieces() {
        unpreserve_piece(&piece);
    }
}

/// Undoes [`preserve`] for a piece of its range.
fn unpreserve_piece(piece: &Range<u64>) {
    // SAFETY: The function only notes the frames; the callers preserved exactly this piece.
    unsafe {
        let page = bindings::pfn_to_page(piece.start as usize);
        bindings::kho_unpreserve_pages(page, (piece.end - piece.start) as usize);
    }
}

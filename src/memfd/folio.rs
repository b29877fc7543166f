// SPDX-License-Identifier: GPL-2.0

//! Folios of a memfd: pinned and preserved in the old kernel.

use super::scan::{Encoding, Properties};
use crate::{
    handover::{extent::Extent, memfd::FolioSer},
    kho::{PreservedArray, PreservedPage},
};
use core::ptr::NonNull;
use kernel::{bindings, error::to_result, prelude::*};

/// A folio that stays where it is, until this is dropped.
///
/// # Invariants
///
/// The folio is in the page cache of a memfd, and this owns one pin of it: it is neither freed, nor
/// moved, nor split, nor swapped out.
pub(super) struct Pinned(NonNull<bindings::folio>);

// SAFETY: A pin may be given up by any task.
unsafe impl Send for Pinned {}

impl Pinned {
    /// Where the folio is, in memory and in the file.
    pub(super) fn extent(&self) -> Extent {
        let folio = self.0.as_ptr();
        // SAFETY: By the type invariant the folio is valid and stays in the page cache.
        unsafe {
            let index = (*folio)
                .__bindgen_anon_1
                .__bindgen_anon_1
                .__bindgen_anon_2
                .index;
            Extent::folio(
                bindings::folio_pfn(folio) as u64,
                index as u64,
                bindings::folio_order(folio),
            )
        }
    }

    /// Makes what the folio holds fit to be handed over: one that was allocated and never used is
    /// zeroed now, since whether it is used can change until the kexec.
    ///
    /// Whether it is dirty can change, too, and does not matter: the next kernel takes all of them
    /// for dirty.
    pub(super) fn settle(&self) {
        let folio = self.0.as_ptr();
        // SAFETY: By the type invariant the folio is valid. Once up to date, it stays so. It is
        // locked for the change.
        unsafe {
            if bindings::folio_test_uptodate(folio) {
                return;
            }
            bindings::folio_lock(folio);
            if !bindings::folio_test_uptodate(folio) {
                let size = kernel::page::PAGE_SIZE << bindings::folio_order(folio);
                bindings::folio_zero_range(folio, 0, size);
                bindings::folio_mark_uptodate(folio);
            }
            bindings::folio_unlock(folio);
        }
    }

    /// Gives up the pin to whoever holds the folio's extent from now on.
    pub(super) fn into_extent(self) -> Extent {
        let extent = self.extent();
        core::mem::forget(self);
        extent
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // SAFETY: By the type invariant.
        unsafe { bindings::unpin_folio(self.0.as_ptr()) };
    }
}

/// Some pinned folios, in the order of the file.
pub(super) struct PinnedBatch(KVec<Pinned>);

impl PinnedBatch {
    /// How many folios are pinned at a time.
    pub(super) const MAX: usize = 512;

    /// Takes over the first `len` of `folios`.
    ///
    /// # Safety
    ///
    /// That many pointers were written to the vector's memory, of folios in the page cache of a
    /// memfd, and each is pinned once for the new batch.
    pub(super) unsafe fn new(folios: KVec<*mut bindings::folio>, len: usize) -> Self {
        let (ptr, _, capacity) = folios.into_raw_parts();
        // SAFETY: `Pinned` is a pointer that is not null, as those that were written.
        Self(unsafe { KVec::from_raw_parts(ptr.cast(), len, capacity) })
    }

    /// Takes the folios out.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Pinned> + '_ {
        self.0.drain_all()
    }
}

/// The folios of a memfd as "memfd-v2" has them: each an entry, and a KHO key.
///
/// # Invariants
///
/// For each entry this owns a pin of the folio and its preservation as one KHO key.
pub(super) struct PreservedFolios {
    /// The description, written by [`Encoding::describe`].
    head: PreservedPage,
    array: PreservedArray<FolioSer>,
    nr_pages: u64,
    /// What [`Encoding::rollback`] goes back to: number of entries, and of pages.
    committed: (usize, u64),
}

impl PreservedFolios {
    /// No folios.
    pub(super) fn new() -> Result<Self> {
        Ok(Self {
            head: PreservedPage::new()?,
            array: PreservedArray::new(),
            nr_pages: 0,
            committed: (0, 0),
        })
    }

    /// Lets go of all folios from entry number `start` on.
    fn truncate(&mut self, start: usize) {
        for entry in self.array.iter_from(start) {
            // SAFETY: By the type invariant the entry is of a folio that was pinned, so that it is
            // still one, and this owns its pin and preservation.
            unsafe {
                let page = bindings::pfn_to_page(entry.pfn() as usize);
                let folio = bindings::page_folio(page);
                bindings::kho_unpreserve_folio(folio);
                bindings::unpin_folio(folio);
            }
        }
        self.array.truncate(start);
    }
}

impl Encoding for PreservedFolios {
    fn add(&mut self, mut batch: PinnedBatch, end: &mut u64) -> Result {
        for folio in batch.drain() {
            // SAFETY: The folio is valid, and stays as it is: it is pinned.
            to_result(unsafe { bindings::kho_preserve_folio(folio.0.as_ptr()) })?;
            folio.settle();
            let extent = folio.extent();
            let entry = FolioSer::new(extent.pfn, extent.index);
            self.array.push(&entry).inspect_err(|_| {
                // SAFETY: It was preserved above, and is the same as then.
                unsafe { bindings::kho_unpreserve_folio(folio.0.as_ptr()) };
            })?;
            self.nr_pages += extent.nr_pages;
            *end = extent.end_index();
            // INVARIANT: The entry has taken over pin and preservation.
            core::mem::forget(folio);
        }
        Ok(())
    }

    fn commit(&mut self) -> Result {
        self.committed = (self.array.len(), self.nr_pages);
        Ok(())
    }

    fn rollback(&mut self) {
        let (len, nr_pages) = self.committed;
        self.truncate(len);
        self.nr_pages = nr_pages;
    }

    fn nr_pages(&self) -> u64 {
        self.nr_pages
    }

    fn describe(&mut self, memfd: Properties) -> Result<u64> {
        let nr_entries = self.array.len() as u64;
        let ser = memfd.describe(nr_entries, self.array.serialize()?);
        ser.write_to_prefix(&mut self.head.0).map_err(|_| EINVAL)?;
        Ok(self.head.phys())
    }
}

impl Drop for PreservedFolios {
    fn drop(&mut self) {
        self.truncate(0);
    }
}

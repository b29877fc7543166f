// SPDX-License-Identifier: GPL-2.0

//! Folios of a memfd: pinned and preserved in the old kernel.

use crate::{handover::memfd::FolioSer, kho::PreservedArray};
use core::ptr::NonNull;
use kernel::{bindings, error::to_result, prelude::*};

/// A folio that stays where it is, until this is dropped.
///
/// # Invariants
///
/// The folio is in the page cache of a memfd, and this owns one pin of it: it is neither freed, nor
/// moved, nor split, nor swapped out.
struct Pinned(NonNull<bindings::folio>);

impl Pinned {
    /// The page frame number of the folio's first page.
    fn pfn(&self) -> u64 {
        // SAFETY: By the type invariant the folio is valid.
        unsafe { bindings::folio_pfn(self.0.as_ptr()) as u64 }
    }

    /// The offset in the file, in pages.
    fn index(&self) -> u64 {
        // SAFETY: By the type invariant the folio is valid and stays in the page cache.
        unsafe {
            (*self.0.as_ptr())
                .__bindgen_anon_1
                .__bindgen_anon_1
                .__bindgen_anon_2
                .index as u64
        }
    }

    /// Number of pages.
    fn nr_pages(&self) -> u64 {
        // SAFETY: By the type invariant the folio is valid.
        1 << unsafe { bindings::folio_order(self.0.as_ptr()) }
    }

    /// Makes what the folio holds fit to be handed over: data that must be kept.
    ///
    /// Whether it is dirty can change until the kexec, by any mapping of it. So it is made dirty
    /// now. One that was allocated and never used is zeroed now, for the same reason.
    fn settle(&self) {
        let folio = self.0.as_ptr();
        // SAFETY: By the type invariant the folio is valid; it is locked for the change.
        unsafe {
            bindings::folio_lock(folio);
            bindings::folio_mark_dirty(folio);
            if !bindings::folio_test_uptodate(folio) {
                let size = kernel::page::PAGE_SIZE << bindings::folio_order(folio);
                bindings::folio_zero_range(folio, 0, size);
                bindings::folio_mark_uptodate(folio);
            }
            bindings::folio_unlock(folio);
        }
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
    fn drain(&mut self) -> impl Iterator<Item = Pinned> + '_ {
        self.0.drain_all()
    }
}

/// The folios of a memfd that go to the next kernel: pinned and preserved, until this is dropped.
///
/// # Invariants
///
/// For each entry this owns a pin of the folio and its preservation as one KHO key.
pub(super) struct PreservedFolios(PreservedArray<FolioSer>);

impl PreservedFolios {
    /// No folios.
    pub(super) const fn new() -> Self {
        Self(PreservedArray::new())
    }

    /// Adds all folios of `batch`, each of which moves `end` to behind it. On failure those before
    /// `end` have been added.
    ///
    /// Context: may sleep.
    pub(super) fn add(&mut self, mut batch: PinnedBatch, end: &mut u64) -> Result {
        for folio in batch.drain() {
            // SAFETY: The folio is valid, and stays as it is: it is pinned.
            to_result(unsafe { bindings::kho_preserve_folio(folio.0.as_ptr()) })?;
            folio.settle();
            let entry = FolioSer::new(folio.pfn(), folio.index());
            self.0.push(&entry).inspect_err(|_| {
                // SAFETY: It was preserved above, and is the same as then.
                unsafe { bindings::kho_unpreserve_folio(folio.0.as_ptr()) };
            })?;
            *end = folio.index().saturating_add(folio.nr_pages());
            // INVARIANT: The entry has taken over pin and preservation.
            core::mem::forget(folio);
        }
        Ok(())
    }

    /// The array of entries, for the next kernel.
    pub(super) fn array(&self) -> &PreservedArray<FolioSer> {
        &self.0
    }
}

impl Drop for PreservedFolios {
    fn drop(&mut self) {
        for entry in self.0.iter() {
            // SAFETY: By the type invariant the entry is of a folio that was pinned, so that it is
            // still one, and this owns its pin and preservation.
            unsafe {
                let page = bindings::pfn_to_page(entry.pfn() as usize);
                let folio = bindings::page_folio(page);
                bindings::kho_unpreserve_folio(folio);
                bindings::unpin_folio(folio);
            }
        }
    }
}

// SPDX-License-Identifier: GPL-2.0

//! Folios of a memfd: pinned and preserved in the old kernel.

use super::scan::{Encoding, Properties};
use crate::{
    fault,
    handover::{extent::Extent, memfd::FolioSer},
    kho::{PreservedArray, PreservedPage},
};
use core::ptr::NonNull;
use kernel::{
    bindings,
    error::to_result,
    prelude::*,
    sync::barrier::{smp_mb, Read},
};

/// A folio that stays where it is, until this is dropped.
///
/// # Invariants
///
/// The folio is in the page cache of a memfd, and this owns one pin of it: it is neither freed, nor
/// moved, nor split, nor swapped out.
#[repr(transparent)]
pub(super) struct Pinned(NonNull<bindings::folio>);

// SAFETY: A pin may be given up by any task.
unsafe impl Send for Pinned {}

impl Pinned {
    /// Where the folio is, in memory and in the file.
    pub(super) fn extent(&self) -> Extent {
        let folio = self.0.as_ptr();
        let order = if self.test_flag(bindings::pageflags_PG_head) {
            // SAFETY: By the type invariant the folio is valid.
            unsafe { bindings::folio_order(folio) }
        } else {
            0
        };
        // SAFETY: By the type invariant the folio is valid and stays in the page cache.
        let (pfn, index) = unsafe {
            let fields = &raw const (*folio).__bindgen_anon_1.__bindgen_anon_1;
            (bindings::folio_pfn(folio), (*fields).__bindgen_anon_2.index)
        };
        Extent::folio(pfn as u64, index as u64, order)
    }

    /// Whether the folio is in the page cache of `mapping`, at the moment.
    fn is_in(&self, mapping: *mut bindings::address_space) -> bool {
        // SAFETY: The folio is valid, as it is pinned. The field may change until it is locked.
        unsafe {
            let fields = &raw const (*self.0.as_ptr()).__bindgen_anon_1.__bindgen_anon_1;
            (&raw const (*fields).mapping).read_volatile() == mapping
        }
    }

    /// The same, when nobody has it locked.
    ///
    /// Context: may sleep.
    fn is_in_for_good(&self, mapping: *mut bindings::address_space) -> bool {
        let folio = self.0.as_ptr();
        // SAFETY: The folio is valid, as it is pinned.
        unsafe { bindings::folio_lock(folio) };
        let is_in = self.is_in(mapping);
        // SAFETY: It was locked just now.
        unsafe { bindings::folio_unlock(folio) };
        is_in
    }

    /// Makes what the folio holds fit to be handed over: one that was allocated and never used is
    /// zeroed now, since whether it is used can change until the kexec.
    ///
    /// Whether it is dirty can change, too, and does not matter: the next kernel takes all of them
    /// for dirty.
    pub(super) fn settle(&self) {
        if self.test_flag(bindings::pageflags_PG_uptodate) {
            // It stays so.
            return;
        }
        let folio = self.0.as_ptr();
        // SAFETY: By the type invariant the folio is valid. It is locked for the change.
        unsafe {
            bindings::folio_lock(folio);
            if !bindings::folio_test_uptodate(folio) {
                let size = kernel::page::PAGE_SIZE << bindings::folio_order(folio);
                bindings::folio_zero_range(folio, 0, size);
                bindings::folio_mark_uptodate(folio);
            }
            bindings::folio_unlock(folio);
        }
    }

    /// Whether the folio has this flag of `enum pageflags`. Here and not by a call: millions of
    /// folios are asked.
    fn test_flag(&self, flag: bindings::pageflags) -> bool {
        // SAFETY: By the type invariant the folio is valid. The flags may change at any time.
        let flags = unsafe {
            let fields = &raw const (*self.0.as_ptr()).__bindgen_anon_1.__bindgen_anon_1;
            (&raw const (*fields).flags.f).read_volatile()
        };
        flags & (1 << flag) != 0
    }

    /// Gives up the pin to whoever holds the folio's extent from now on.
    pub(super) fn forget(self) {
        core::mem::forget(self);
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

    /// Takes over the first `len` of `folios`. `None` if one of them is not in the page cache of `mapping`
    /// any more: then all are let go, and are to be looked for again.
    ///
    /// Context: may sleep.
    ///
    /// # Safety
    ///
    /// That many pointers were written to the vector's memory, of folios that were in the page cache of
    /// `mapping`, that of a memfd, and each is pinned once for the new batch.
    pub(super) unsafe fn new(
        folios: KVec<*mut bindings::folio>,
        len: usize,
        mapping: *mut bindings::address_space,
    ) -> Option<Self> {
        let (ptr, _, capacity) = folios.into_raw_parts();
        // SAFETY: `Pinned` is a pointer that is not null, as those that were written.
        // INVARIANT: What is not where it should be is dropped right here.
        let batch = Self(unsafe { KVec::from_raw_parts(ptr.cast(), len, capacity) });
        batch.are_in(mapping).then_some(batch)
    }

    /// Whether all folios are in the page cache of `mapping`, and so stay there.
    ///
    /// One may have been pinned when somebody had looked for its users already, and found none, to put
    /// another one into its place, as khugepaged does. But who does so has it locked until that is done:
    /// one that was not locked, and was there after that, stays.
    fn are_in(&self, mapping: *mut bindings::address_space) -> bool {
        let mut folios = self.0.iter();
        let is_locked = |folio: &Pinned| folio.test_flag(bindings::pageflags_PG_locked);
        if !folios.any(is_locked) {
            // Pairs with the release of the lock, before which the folio left the page cache.
            smp_mb(Read);
            if self.0.iter().all(|folio| folio.is_in(mapping)) {
                return true;
            }
        }
        self.0.iter().all(|folio| folio.is_in_for_good(mapping))
    }

    /// Whether there may be more where these came from.
    pub(super) fn is_full(&self) -> bool {
        self.0.len() == Self::MAX
    }

    /// Lets go of the folios that are at page `index` of the file or behind it.
    pub(super) fn truncate(&mut self, index: u64) {
        let is_before = |folio: &&Pinned| folio.extent().index < index;
        let len = self.0.iter().take_while(is_before).count();
        self.0.truncate(len);
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
    fn add(&mut self, folio: Pinned, extent: Extent) -> Result {
        fault::point()?;
        // SAFETY: The folio is valid, and stays as it is: it is pinned.
        to_result(unsafe { bindings::kho_preserve_folio(folio.0.as_ptr()) })?;
        let entry = FolioSer::new(extent.pfn, extent.index);
        self.array.push(&entry).inspect_err(|_| {
            // SAFETY: It was preserved above, and is the same as then.
            unsafe { bindings::kho_unpreserve_folio(folio.0.as_ptr()) };
        })?;
        self.nr_pages += extent.nr_pages;
        // INVARIANT: The entry has taken over pin and preservation.
        folio.forget();
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

// SPDX-License-Identifier: GPL-2.0

//! Single pages that go to the next kernel, or came from the previous one.

use crate::{
    fault,
    handover::{Malformed, Page, Source, PAGE_SIZE},
};
use core::{
    ops::{Deref, DerefMut},
    ptr::NonNull,
};
use kernel::{bindings, error::to_result, prelude::*, sync::global_lock};

/// A page of zeroed memory that is preserved, until it is dropped.
///
/// The memory is charged to the memory cgroup of whoever made it.
///
/// # Invariants
///
/// `page` is an order-0 page that this owns, mapped at `data`, and preserved as one KHO key.
pub(crate) struct PreservedPage {
    page: NonNull<bindings::page>,
    data: NonNull<Page>,
}

// SAFETY: The page is plain memory with one owner.
unsafe impl Send for PreservedPage {}
// SAFETY: Shared access only reads plain memory.
unsafe impl Sync for PreservedPage {}

impl PreservedPage {
    /// Allocates and preserves a page.
    ///
    /// Context: may sleep.
    pub(crate) fn new() -> Result<Self> {
        let flags = bindings::GFP_KERNEL_ACCOUNT | bindings::__GFP_ZERO;
        // SAFETY: Any order may be asked for.
        let page = NonNull::new(unsafe { bindings::alloc_pages(flags, 0) }).ok_or(ENOMEM)?;

        let preserved = fault::point().and_then(|()| {
            // SAFETY: This owns the page.
            to_result(unsafe { bindings::kho_preserve_pages(page.as_ptr(), 1) })
        });
        if let Err(err) = preserved {
            // SAFETY: The page was allocated above, with this order, and is not used.
            unsafe { bindings::__free_pages(page.as_ptr(), 0) };
            return Err(err);
        }

        // SAFETY: The page is in the direct map: `GFP_KERNEL` does not give out high memory.
        let data = unsafe { bindings::phys_to_virt(phys(page.as_ptr())) };
        // INVARIANT: Allocated and preserved above.
        Ok(Self {
            page,
            data: NonNull::new(data.cast()).ok_or(ENOMEM)?,
        })
    }

    /// The physical address, for the next kernel to find the page by.
    pub(crate) fn phys(&self) -> u64 {
        phys(self.page.as_ptr())
    }

    /// The address of the page's memory, for C.
    pub(super) fn as_mut_ptr(&mut self) -> *mut c_void {
        self.data.as_ptr().cast()
    }
}

impl Deref for PreservedPage {
    type Target = Page;

    fn deref(&self) -> &Page {
        // SAFETY: By the type invariant the page is mapped there, and this owns it.
        unsafe { self.data.as_ref() }
    }
}

impl DerefMut for PreservedPage {
    fn deref_mut(&mut self) -> &mut Page {
        // SAFETY: By the type invariant the page is mapped there, and this owns it, exclusively.
        unsafe { self.data.as_mut() }
    }
}

impl Drop for PreservedPage {
    fn drop(&mut self) {
        // SAFETY: By the type invariant this owns the page and it is preserved.
        unsafe {
            bindings::kho_unpreserve_pages(self.page.as_ptr(), 1);
            bindings::__free_pages(self.page.as_ptr(), 0);
        }
    }
}

/// The physical address of a page.
fn phys(page: *mut bindings::page) -> u64 {
    // SAFETY: The callers own the page.
    (unsafe { bindings::page_to_pfn(page) } as u64) << kernel::page::PAGE_SHIFT
}

/// The order of what the previous kernel preserved at `pa`, of any value, if it is not restored yet.
pub(crate) fn preserved_order(pa: u64) -> Option<u32> {
    // SAFETY: The function takes any address.
    let order = unsafe { bindings::kho_preserved_order(pa) };
    u32::try_from(order).ok()
}

/// The memory that the previous kernel preserved and that nobody has restored.
pub(crate) struct Incoming;

impl Source for Incoming {
    fn read(&self, pa: u64, into: &mut Page) -> bool {
        if preserved_order(pa).is_none() {
            return false;
        }
        // SAFETY: KHO says that a preservation starts at `pa`: there is at least a page of memory,
        // and it is in the direct map. Nobody writes to it before it is restored; should it be
        // restored right now, for an entry that claims it twice, the bytes may be any, as those of
        // the previous kernel may.
        unsafe {
            let from = bindings::phys_to_virt(pa).cast::<u8>();
            core::ptr::copy_nonoverlapping(from, into.0.as_mut_ptr(), PAGE_SIZE);
        }
        true
    }
}

/// The previous kernel's account of what it handed over, which this kernel needs for as long as there
/// is something left of it: once it is found good, it is [set aside](set_aside).
pub(crate) struct IncomingAccount;

impl Source for IncomingAccount {
    fn read(&self, pa: u64, into: &mut Page) -> bool {
        // A module that was here before may have set it aside.
        alone(|| mark_aside(pa, false));
        Incoming.read(pa, into)
    }
}

/// Keeps the page at `pa`, of the account, for the account: as anything else nobody reads it or takes
/// it over, whatever addresses there are in what was handed over. Lasts when this module goes.
///
/// Context: may sleep.
pub(crate) fn set_aside(pa: u64) {
    alone(|| mark_aside(pa, true));
}

/// Sets aside what is preserved at `pa`, of any value, or takes that back. `false` if there is nothing.
///
/// Context: in [`alone`].
fn mark_aside(pa: u64, aside: bool) -> bool {
    // SAFETY: The function takes any address. Nobody takes the page over meanwhile.
    unsafe { bindings::kho_set_aside(pa, aside) >= 0 }
}

/// Overwrites bytes of a page of the account, which nobody else reads any more. Does nothing where the
/// previous kernel did not preserve a page, or where it was taken over already.
///
/// Context: may sleep.
pub(crate) fn write_account(pa: u64, offset: usize, bytes: &[u8]) {
    let inside = offset
        .checked_add(bytes.len())
        .is_some_and(|end| end <= PAGE_SIZE);
    if !inside {
        return;
    }
    // Nobody frees the page, which a damaged account may have in two places, before the bytes are
    // written.
    alone(|| {
        if !mark_aside(pa, true) {
            return;
        }
        // SAFETY: KHO says that a preservation starts at `pa`, so that there is a page, in the direct
        // map, which nobody owns before it is restored; the bytes are within it.
        unsafe {
            let to = bindings::phys_to_virt(pa).cast::<u8>().add(offset);
            core::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len());
        }
    });
}

/// Frees the page at `pa`, of the account, if nobody has done so before.
///
/// Context: may sleep.
pub(crate) fn free_account(pa: u64) {
    let page = alone(|| {
        mark_aside(pa, false);
        RestoredPages::claim_alone(pa, 0)
    });
    drop(page);
}

global_lock! {
    // SAFETY: Initialized in the module's init, before anything else.
    unsafe(uninit) static CLAIMS: Mutex<()> = ();
}

/// Makes the lock ready for use.
///
/// # Safety
///
/// To be called once, before anything else of this file.
pub(crate) unsafe fn init() {
    // SAFETY: By the contract of this function.
    unsafe { CLAIMS.init() };
}

/// Calls `claim`, which looks at what the previous kernel preserved and takes it over, while nobody
/// else does so: damaged descriptions may claim the same page. KHO gives a page to one caller only, but
/// that what was looked at is still there when it is taken, all of it, is for the callers to see to.
///
/// Context: may sleep.
pub(crate) fn alone<T>(claim: impl FnOnce() -> T) -> T {
    let _claiming = CLAIMS.lock();
    claim()
}

/// Pages of the previous kernel that have become pages of this one, freed when dropped.
///
/// # Invariants
///
/// `first` is the first of `1 << order` contiguous order-0 pages that this owns.
pub(crate) struct RestoredPages {
    first: NonNull<bindings::page>,
    order: u32,
}

// SAFETY: The pages have one owner.
unsafe impl Send for RestoredPages {}

impl RestoredPages {
    /// Takes over the `1 << order` pages at `pa`, of any value.
    ///
    /// `None` if that is not what the previous kernel preserved there, or they were taken over
    /// before.
    ///
    /// Context: may sleep.
    pub(crate) fn claim(pa: u64, order: u32) -> Option<Self> {
        alone(|| Self::claim_alone(pa, order))
    }

    /// As [`Self::claim`], in [`alone`].
    fn claim_alone(pa: u64, order: u32) -> Option<Self> {
        if preserved_order(pa)? != order {
            return None;
        }
        // SAFETY: KHO says that this many pages are preserved there, as one key.
        let first = NonNull::new(unsafe { bindings::kho_restore_pages(pa, 1 << order) })?;
        // INVARIANT: KHO gave us the only reference to each of them.
        Some(Self { first, order })
    }

    /// The pages' contents.
    pub(crate) fn as_pages(&self) -> &[Page] {
        // SAFETY: By the type invariant this owns that many contiguous pages; they are in the
        // direct map, as all memory that KHO preserves.
        unsafe {
            let data = bindings::phys_to_virt(phys(self.first.as_ptr()));
            core::slice::from_raw_parts(data.cast(), 1 << self.order)
        }
    }
}

impl RestoredPages {
    /// The pages' contents, to be changed.
    pub(crate) fn as_mut_pages(&mut self) -> &mut [Page] {
        // SAFETY: As for `as_pages`; and this owns the pages exclusively.
        unsafe {
            let data = bindings::phys_to_virt(phys(self.first.as_ptr()));
            core::slice::from_raw_parts_mut(data.cast(), 1 << self.order)
        }
    }

    /// Gives up the pages. Returns the frame of the first one.
    pub(crate) fn into_pfn(self) -> u64 {
        let pfn = phys(self.first.as_ptr()) >> kernel::page::PAGE_SHIFT;
        core::mem::forget(self);
        pfn
    }
}

/// Takes over pages that the previous kernel preserved one by one, at frames of any value. Fails at the
/// first that is no such page, or was taken over before.
///
/// On success the caller owns a reference to each of them.
///
/// Context: may sleep.
pub(crate) fn claim_frames(frames: &[u64]) -> Result<(), Malformed> {
    // SAFETY: The function takes any frames, as many as are said.
    let nr =
        alone(|| unsafe { bindings::kho_restore_frames(frames.as_ptr(), frames.len() as u32) });
    are_claimed(frames, nr)
}

/// Takes over folios of order `order` that the previous kernel preserved, at frames of any value, to be
/// made later. Fails at the first that is no such folio, or was taken over before.
///
/// On success the caller owns their memory. No reference to them may be taken before `kho_make_claimed()`.
///
/// Context: may sleep.
pub(crate) fn claim_folios(frames: &[u64], order: u32) -> Result<(), Malformed> {
    // SAFETY: The function takes any frames, as many as are said.
    let nr = alone(|| unsafe {
        bindings::kho_claim_folios(frames.as_ptr(), frames.len() as u32, order)
    });
    are_claimed(frames, nr)
}

/// Says whether `nr` of `frames` are all.
fn are_claimed(frames: &[u64], nr: u32) -> Result<(), Malformed> {
    match frames.get(nr as usize) {
        None => Ok(()),
        Some(pfn) => Err(Malformed::NotPreserved(
            pfn.saturating_mul(PAGE_SIZE as u64),
        )),
    }
}

impl Drop for RestoredPages {
    fn drop(&mut self) {
        for i in 0..1 << self.order {
            // SAFETY: By the type invariant.
            unsafe { bindings::__free_pages(self.first.as_ptr().add(i), 0) };
        }
    }
}

// SPDX-License-Identifier: GPL-2.0

//! Memory that goes to the next kernel by Kexec HandOver, a page at a time.

use core::{mem::size_of, ptr::NonNull};
use kernel::{
    bindings,
    error::to_result,
    page::{Page, PAGE_SHIFT, PAGE_SIZE},
    prelude::*,
};
use zerocopy::Immutable;

/// A page that the next kernel finds, unless this is dropped before.
///
/// # Invariants
///
/// The page is preserved.
pub(crate) struct PreservedPage(Page);

impl PreservedPage {
    /// Allocates and preserves a page of zeroes.
    ///
    /// Context: may sleep.
    pub(crate) fn new() -> Result<Self> {
        let page = Page::alloc_page(GFP_KERNEL_ACCOUNT | __GFP_ZERO)?;
        // SAFETY: The page is ours, and is not freed before it is unpreserved in Drop.
        to_result(unsafe { bindings::kho_preserve_pages(page.as_ptr(), 1) })?;
        // INVARIANT: It was preserved just now.
        Ok(Self(page))
    }

    /// Writes `value` to the start of the page.
    pub(crate) fn write<T: IntoBytes + Immutable>(&mut self, value: &T) -> Result {
        let bytes = value.as_bytes();
        // SAFETY: `bytes` is valid for that many reads; by the exclusive borrow, nobody else writes.
        unsafe { self.0.write_raw(bytes.as_ptr(), 0, bytes.len()) }
    }

    /// Where the next kernel finds the page.
    pub(crate) fn phys(&self) -> u64 {
        // SAFETY: The page is ours.
        let pfn = unsafe { bindings::page_to_pfn(self.0.as_ptr()) };
        (pfn as u64) << PAGE_SHIFT
    }
}

impl Drop for PreservedPage {
    fn drop(&mut self) {
        // SAFETY: By the type invariant. The page itself is freed after this.
        unsafe { bindings::kho_unpreserve_pages(self.0.as_ptr(), 1) };
    }
}

/// A page that was taken over from the previous kernel.
///
/// # Invariants
///
/// This owns the page, of order 0.
struct RestoredPage(NonNull<bindings::page>);

impl Drop for RestoredPage {
    fn drop(&mut self) {
        // SAFETY: By the type invariant.
        unsafe { bindings::__free_pages(self.0.as_ptr(), 0) };
    }
}

/// Takes over the page that the previous kernel preserved at `phys`, reads a value from its start,
/// and frees the page. `EINVAL` if there is no such page, or it was taken before.
pub(crate) fn take<T: FromBytes>(phys: u64) -> Result<T> {
    const { assert!(size_of::<T>() <= PAGE_SIZE) };
    // KHO goes by the number of the page, and would take any address in it.
    if phys % PAGE_SIZE as u64 != 0 {
        return Err(EINVAL);
    }
    // SAFETY: May be asked for any address, and says no if there is nothing.
    let page = unsafe { bindings::kho_restore_pages(phys, 1) };
    // INVARIANT: KHO gives the only reference to the page to us, once.
    let _page = RestoredPage(NonNull::new(page).ok_or(EINVAL)?);
    // SAFETY: The page is ours, and in the direct map as all memory that KHO preserves; `T` fits, from
    // its start.
    let bytes = unsafe {
        let start = bindings::phys_to_virt(phys).cast::<u8>();
        core::slice::from_raw_parts(start, size_of::<T>())
    };
    T::read_from_bytes(bytes).map_err(|_| EINVAL)
}

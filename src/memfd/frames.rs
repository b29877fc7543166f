// SPDX-License-Identifier: GPL-2.0

//! Ranges of page frames, as KHO preserves them.

use crate::{fault, handover::extent::Extent};
use core::ops::Range;
use kernel::{bindings, error::to_result, prelude::*};

/// The fewest pages that are preserved as blocks, not each by itself.
///
/// KHO walks its keys by size, the largest blocks first, and for each the boot of the next kernel
/// inserts a region into an array. Where there is not much more than single pages, blocks save few
/// keys, and keys of several sizes are inserted in the middle of the array again and again: 44
/// seconds for 1 GiB, where single pages, all of which come in order, take half of one.
pub(super) const MIN_BLOCKS: u64 = 32;

/// A range of page frames that are single pages.
#[derive(Clone, Copy)]
pub(super) struct Frames {
    pub(super) start: u64,
    /// The frame behind the last one.
    pub(super) end: u64,
}

impl Frames {
    /// Those of an extent.
    pub(super) fn of(extent: &Extent) -> Self {
        Self {
            start: extent.pfn,
            end: extent.end_pfn(),
        }
    }

    /// The pieces that are preserved by one call each: all of it as blocks, or each page by itself.
    fn pieces(&self) -> impl Iterator<Item = Range<u64>> {
        let (start, end) = (self.start, self.end);
        let nr_pages = end - start;
        let size = if nr_pages >= MIN_BLOCKS { nr_pages } else { 1 };
        (start..end)
            .step_by(size as usize)
            .map(move |at| at..at + size)
    }
}

/// Preserves a range of pinned pages. On failure nothing of it is.
///
/// Context: may sleep.
pub(super) fn preserve(range: &Frames) -> Result {
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
pub(super) fn unpreserve(range: &Frames) {
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

/// Preserves pinned folios of one order, each as one key, by their first frames. On failure none of
/// them is.
///
/// Context: may sleep.
pub(super) fn preserve_each(pfns: &[u64], order: u32) -> Result {
    fault::point()?;
    // SAFETY: The function only notes the frames, which are those of pinned folios.
    to_result(unsafe { bindings::kho_preserve_frames(pfns.as_ptr(), pfns.len() as u32, order) })
}

/// Undoes [`preserve_each`].
pub(super) fn unpreserve_each(pfns: &[u64], order: u32) {
    // SAFETY: The function only notes the frames; the callers preserved exactly these.
    unsafe { bindings::kho_unpreserve_frames(pfns.as_ptr(), pfns.len() as u32, order) };
}

/// Unpins single pages.
///
/// # Safety
///
/// The caller owns a pin of each of them, and gives it up.
pub(super) unsafe fn unpin_singles(pfns: impl Iterator<Item = u64>) {
    for pfn in pfns {
        // SAFETY: By the contract of this function.
        unsafe { unpin(&Extent::folio(pfn, 0, 0)) };
    }
}

/// Unpins the folios of an extent.
///
/// # Safety
///
/// The caller owns a pin of each folio in the extent, and gives it up.
pub(super) unsafe fn unpin(extent: &Extent) {
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

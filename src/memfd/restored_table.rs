// SPDX-License-Identifier: GPL-2.0

//! Tables of the previous kernel, and the pages that they list.

use super::new_memfd::RestoredExtent;
use crate::{
    handover::{
        extent::Extent,
        table::{all_singles, singles, Frame, FrameSer},
        Malformed, PAGE_SIZE,
    },
    kho::{claim_frames, RestoredPages},
};
use kernel::{bindings, prelude::*};

/// Placed pages that no table has listed yet. They are kept for ever if none does.
///
/// # Invariants
///
/// Exactly `left` pages have `mark` as their private data. They are ours, with a reference each, and
/// nothing else refers to them.
pub(super) struct PlacedPages {
    mark: usize,
    left: u64,
}

impl PlacedPages {
    /// No pages, of a memfd with its description in `head`.
    pub(super) fn new(head: &RestoredPages) -> Self {
        // INVARIANT: The address of memory that is ours, and that nobody else has ever seen in this
        // kernel, is not the private data of any page.
        Self {
            mark: head.as_pages().as_ptr() as usize,
            left: 0,
        }
    }

    /// Takes over single pages.
    pub(super) fn add(&mut self, pages: RestoredExtent) {
        // INVARIANT: By that of `pages`.
        for pfn in pages.extent().pfn..pages.extent().end_pfn() {
            // SAFETY: The page is ours.
            unsafe {
                let page = bindings::pfn_to_page(pfn as usize);
                bindings::set_page_private(page, self.mark);
            }
        }
        self.left += pages.extent().nr_pages;
    }

    /// Takes out the page with frame `pfn`, of any value: the caller has it now.
    fn take(&mut self, pfn: u64) -> Result<(), Malformed> {
        // SAFETY: The function takes any frame. A page that it gives has a structure.
        let is_marked = unsafe {
            let page = bindings::pfn_to_online_page(pfn as usize);
            let is_marked = !page.is_null() && bindings::page_private(page) == self.mark;
            if is_marked {
                // By the type invariant the page is ours.
                bindings::set_page_private(page, 0);
            }
            is_marked
        };
        if !is_marked {
            return Err(Malformed::NotPreserved(
                pfn.saturating_mul(PAGE_SIZE as u64),
            ));
        }
        // INVARIANT: It has the mark no more.
        self.left -= 1;
        Ok(())
    }

    /// Checks that all were taken.
    pub(super) fn finish(&self) -> Result<(), Malformed> {
        match self.left {
            0 => Ok(()),
            left => Err(Malformed::Count(left)),
        }
    }
}

/// A page that is said to be a table.
pub(super) struct IncomingTable {
    page: RestoredPages,
    index: u64,
}

impl IncomingTable {
    /// Takes over the page of a table, as its entry tells.
    pub(super) fn claim(entry: &Extent) -> Result<Self, Malformed> {
        let pa = entry.pfn.saturating_mul(PAGE_SIZE as u64);
        Ok(Self {
            page: RestoredPages::claim(pa, 0).ok_or(Malformed::NotPreserved(pa))?,
            index: entry.index,
        })
    }

    /// Takes over all pages that it lists.
    ///
    /// On failure this is to be kept, as all that it lists is: it may not be a table at all.
    pub(super) fn claim_pages(&mut self, placed: &mut PlacedPages) -> Result<(), Malformed> {
        let frames = frames_mut(&mut self.page)?;
        if let Some(pfns) = all_singles(frames) {
            return claim_frames(pfns);
        }
        for frame in frames.iter() {
            if let Frame::Placed(pfn) = frame.check()? {
                placed.take(pfn)?;
            }
        }
        singles(frames).try_for_each(claim_frames)?;
        // As the file wants it: plain frame numbers.
        for slot in frames {
            *slot = FrameSer::new(Frame::Single(slot.frame().pfn()));
        }
        Ok(())
    }
}

/// The frames in a page.
fn frames_mut(page: &mut RestoredPages) -> Result<&mut [FrameSer], Malformed> {
    match page.as_mut_pages() {
        [page] => <[FrameSer]>::mut_from_bytes(&mut page.0).map_err(|_| Malformed::Field("table")),
        _ => Err(Malformed::Field("table")),
    }
}

/// A table with the pages that it lists, to be put into a file.
///
/// Without [`Self::free`] or [`Self::into_pfn`] the pages are kept for ever: they are the user's data.
///
/// # Invariants
///
/// The pages that it lists, as plain frame numbers, are ours, single pages with a reference each. They
/// are in no file.
pub(super) struct RestoredTable(IncomingTable);

impl RestoredTable {
    /// A table whose pages were [claimed](IncomingTable::claim_pages).
    ///
    /// # Safety
    ///
    /// The claim was successful.
    pub(super) unsafe fn new(table: IncomingTable) -> Self {
        // INVARIANT: By the contract of this function.
        Self(table)
    }

    /// Where in the file the pages are to be, in pages.
    pub(super) fn index(&self) -> u64 {
        self.0.index
    }

    /// Gives up the table with all of its pages. Returns its frame.
    pub(super) fn into_pfn(self) -> u64 {
        self.0.page.into_pfn()
    }

    /// Frees the pages.
    pub(super) fn free(mut self) {
        for slot in frames_mut(&mut self.0.page).unwrap_or(&mut []) {
            let page = Extent::folio(slot.frame().pfn(), 0, 0);
            // SAFETY: By the type invariant the page is ours, and this gives it up.
            unsafe { RestoredExtent::new(&page) }.free();
        }
    }
}

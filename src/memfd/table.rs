// SPDX-License-Identifier: GPL-2.0

//! The tables of a memfd: frames of pages that follow one another in the file, and not in memory.
//!
//! A guest that touched its memory in random order, or that got it from a host that was not just
//! booted, has hardly two pages that are neighbours in both. An extent for each would be twice the
//! memory, and the next kernel would have to make an entry in the file for each.

use super::{
    extent::Entries,
    frames::{preserve_singles, unpin, unpreserve_singles},
    shmem,
};
use crate::{
    handover::{
        extent::{Extent, ExtentSer},
        table::{singles, Frame, FrameSer, TABLE_FRAMES},
    },
    kho::PreservedPage,
};
use core::mem::take;
use kernel::prelude::*;

/// From how many extents on a table is better.
///
/// It takes the next kernel 90 instructions for each frame, 46,000 in all. An extent of a few pages
/// is several entries in the file, as these are aligned, and takes more than a thousand; and each of
/// these entries is to be split for the first touch. In memory an extent takes 16 bytes, so that a
/// table takes up to eight times as much: it is the time that users wait for.
const MIN_EXTENTS: usize = TABLE_FRAMES / 16;

/// A table.
struct PreservedTable {
    page: PreservedPage,
    /// Where its pages are in the file, in pages.
    index: u64,
}

impl PreservedTable {
    fn frames(&self) -> &[FrameSer] {
        <[FrameSer]>::ref_from_bytes(&self.page.0).unwrap_or(&[])
    }

    fn frames_mut(&mut self) -> &mut [FrameSer] {
        <[FrameSer]>::mut_from_bytes(&mut self.page.0).unwrap_or(&mut [])
    }

    /// Preserves the pages that are in no range. On failure none of them is.
    fn preserve(&self) -> Result {
        shmem::yield_cpu()?;
        for (i, pfns) in singles(self.frames()).enumerate() {
            if let Err(err) = preserve_singles(pfns) {
                singles(self.frames()).take(i).for_each(unpreserve_singles);
                return Err(err);
            }
        }
        Ok(())
    }

    /// Undoes [`Self::preserve`].
    fn unpreserve(&self) {
        singles(self.frames()).for_each(unpreserve_singles);
    }
}

/// The tables of a memfd.
///
/// # Invariants
///
/// This owns a pin of each page in the first `committed` of `tables`, and the preservations of those
/// that are single ones there.
pub(super) struct Tables {
    tables: KVVec<PreservedTable>,
    /// For which blocks of the file there will be more of them, in order.
    planned: KVVec<u64>,
    /// How many of them are written and preserved.
    committed: usize,
}

impl Tables {
    /// No tables.
    pub(super) fn new() -> Self {
        Self {
            tables: KVVec::new(),
            planned: KVVec::new(),
            committed: 0,
        }
    }

    /// Plans a table for block number `block` of the file, where `extents` are, if that is better: then
    /// each of these becomes [`ExtentSer::placed_at`] its position in all tables.
    ///
    /// On failure nothing has changed. Context: may sleep.
    pub(super) fn plan(&mut self, extents: &mut [ExtentSer], block: u64) -> Result {
        let nr_pages = |entry: &ExtentSer| entry.extent().nr_pages;
        if extents.len() < MIN_EXTENTS
            || extents.iter().map(nr_pages).sum::<u64>() != TABLE_FRAMES as u64
            || extents.iter().any(|entry| entry.extent().order != 0)
        {
            return Ok(());
        }
        let nr_tables = self.tables.len() + self.planned.len();
        let mut position = u32::try_from(nr_tables * TABLE_FRAMES)?;
        self.planned.push(block, GFP_KERNEL_ACCOUNT)?;
        for entry in extents {
            let nr_pages = nr_pages(entry) as u32;
            *entry = entry.placed_at(position);
            position += nr_pages;
        }
        Ok(())
    }

    /// Makes the tables that were planned.
    ///
    /// Not before the whole file was looked at: their pages would lie between those that it is moved
    /// to, and make many ranges of one.
    ///
    /// Context: may sleep.
    pub(super) fn make(&mut self) -> Result {
        for block in take(&mut self.planned).iter() {
            let table = PreservedTable {
                page: PreservedPage::new()?,
                index: block * TABLE_FRAMES as u64,
            };
            self.tables.push(table, GFP_KERNEL_ACCOUNT)?;
        }
        Ok(())
    }

    /// Writes pages, placed at a position, into their table. `frame` tells how they are preserved.
    pub(super) fn place(&mut self, pages: &Extent, frame: fn(u64) -> Frame) -> Result {
        let position = pages.index as usize;
        let table = self.tables.get_mut(position / TABLE_FRAMES);
        let slots = table.ok_or(EINVAL)?.frames_mut();
        let slots = slots.get_mut(position % TABLE_FRAMES..).ok_or(EINVAL)?;
        for (slot, pfn) in slots.iter_mut().zip(pages.pfn..pages.end_pfn()) {
            *slot = FrameSer::new(frame(pfn));
        }
        Ok(())
    }

    fn added(&self) -> &[PreservedTable] {
        self.tables.get(self.committed..).unwrap_or(&[])
    }

    /// Writes entries for the tables that were added.
    pub(super) fn list_added(&self, entries: &mut Entries) -> Result {
        for table in self.added() {
            let pfn = table.page.phys() >> kernel::page::PAGE_SHIFT;
            entries.push(&ExtentSer::table(pfn, table.index).ok_or(EFBIG)?)?;
        }
        Ok(())
    }

    /// Preserves the single pages of the tables that were added. On failure none of them is.
    pub(super) fn preserve_added(&self) -> Result {
        for (i, table) in self.added().iter().enumerate() {
            if let Err(err) = table.preserve() {
                self.added()
                    .iter()
                    .take(i)
                    .for_each(PreservedTable::unpreserve);
                return Err(err);
            }
        }
        Ok(())
    }

    /// Keeps what [`Self::preserve_added`] has preserved, and takes over the pins of all pages in the
    /// tables that were added.
    pub(super) fn commit(&mut self) {
        // INVARIANT: By the contract of this function.
        self.committed = self.tables.len();
    }

    /// Lets go of the tables that were added since the last [`Self::commit`].
    pub(super) fn rollback(&mut self) {
        self.planned.clear();
        self.tables.truncate(self.committed);
    }
}

impl Drop for Tables {
    fn drop(&mut self) {
        self.rollback();
        for table in self.tables.iter() {
            table.unpreserve();
            for frame in table.frames() {
                // SAFETY: By the type invariant this owns the pin.
                unsafe { unpin(&Extent::folio(frame.frame().pfn(), 0, 0)) };
            }
        }
    }
}

// SPDX-License-Identifier: GPL-2.0

//! The tables of a memfd: frames of pages that follow one another in the file, and not in memory.
//!
//! A guest that touched its memory in random order, or that got it from a host that was not just
//! booted, has hardly two pages that are neighbours in both. An extent for each would be twice the
//! memory, and the next kernel would have to make an entry in the file for each.

use super::{
    extent::Entries,
    frame_set::FrameSet,
    frames::{preserve_each, unpin_singles, unpreserve_each, MIN_BLOCKS},
    pinned_run::PinnedRun,
};
use crate::{
    handover::{
        extent::ExtentSer,
        table::{singles, Frame, FrameSer, TABLE_FRAMES},
    },
    kho::PreservedPage,
    task,
};
use core::{mem::replace, ops::Range};
use kernel::prelude::*;

/// From how many extents on a table is better.
///
/// It takes the next kernel 90 instructions for each frame, 46,000 in all. An extent of a few pages
/// is several entries in the file, as these are aligned, and takes more than a thousand; and each of
/// these entries is to be split for the first touch. In memory an extent takes 16 bytes, so that a
/// table takes up to eight times as much: it is the time that users wait for.
const MIN_EXTENTS: usize = TABLE_FRAMES / 16;

/// What is going to be tables, until this is dropped.
///
/// # Invariants
///
/// This owns a pin of each page in `frames`, which has [`TABLE_FRAMES`] of them for each of `indices`.
struct PlannedTables {
    /// Where in the file the first page of each table is, in pages.
    indices: KVVec<u64>,
    /// The page frame numbers, in the order of the file.
    frames: KVVec<u64>,
}

impl PlannedTables {
    const fn new() -> Self {
        Self {
            indices: KVVec::new(),
            frames: KVVec::new(),
        }
    }

    /// Ends this, whose pins the caller has taken over.
    fn forget(mut self) {
        self.frames.clear();
    }

    /// The runs in memory that are long enough to be preserved as blocks, in order.
    fn long_runs(&self) -> Result<LongRuns> {
        let mut runs = LongRuns(KVVec::new());
        if !self.frames.is_empty() {
            FrameSet::new(&self.frames)?.for_each_run(|run| runs.push(run))?;
        }
        Ok(runs)
    }
}

impl Drop for PlannedTables {
    fn drop(&mut self) {
        // SAFETY: By the type invariant this owns the pins.
        unsafe { unpin_singles(self.frames.iter().copied()) };
    }
}

/// Runs of page frames, in order.
struct LongRuns(KVVec<Range<u64>>);

impl LongRuns {
    /// Adds the next run, if it is long.
    fn push(&mut self, run: Range<u64>) -> Result {
        if run.end - run.start >= MIN_BLOCKS {
            self.0.push(run, GFP_KERNEL_ACCOUNT)?;
        }
        Ok(())
    }

    /// How a page is preserved.
    fn frame(&self, pfn: u64) -> Frame {
        let run = self.0.partition_point(|run| run.end <= pfn);
        match self.0.get(run) {
            Some(run) if run.start <= pfn => Frame::Placed(pfn),
            _ => Frame::Single(pfn),
        }
    }
}

/// The page of a table.
struct PreservedTable(PreservedPage);

impl PreservedTable {
    fn frames(&self) -> &[FrameSer] {
        <[FrameSer]>::ref_from_bytes(&self.0 .0).unwrap_or(&[])
    }

    /// Preserves the pages that are in no range. On failure none of them is.
    fn preserve(&self) -> Result {
        task::yield_cpu()?;
        for (i, pfns) in singles(self.frames()).enumerate() {
            if let Err(err) = preserve_each(pfns, 0) {
                let done = singles(self.frames()).take(i);
                done.for_each(|pfns| unpreserve_each(pfns, 0));
                return Err(err);
            }
        }
        Ok(())
    }

    /// Undoes [`Self::preserve`].
    fn unpreserve(&self) {
        singles(self.frames()).for_each(|pfns| unpreserve_each(pfns, 0));
    }
}

/// The tables of a memfd.
///
/// # Invariants
///
/// This owns a pin of each page in the first `preserved` of `tables`, and the preservations of those
/// that are single ones there.
pub(super) struct Tables {
    tables: KVVec<PreservedTable>,
    /// How many of them are written and preserved. The others are those that are planned.
    preserved: usize,
    /// How many of them [`Self::rollback`] keeps.
    committed: usize,
    planned: PlannedTables,
}

impl Tables {
    /// No tables.
    pub(super) const fn new() -> Self {
        Self {
            tables: KVVec::new(),
            preserved: 0,
            committed: 0,
            planned: PlannedTables::new(),
        }
    }

    /// Plans a table for a run and takes that over, if a table is better than its extents. On failure
    /// nothing has changed.
    ///
    /// Context: may sleep.
    pub(super) fn plan(&mut self, run: &mut PinnedRun) -> Result {
        let Some((index, pfns)) = run.as_table() else {
            return Ok(());
        };
        if run.extents().nth(MIN_EXTENTS - 1).is_none() {
            return Ok(());
        }
        let PlannedTables { indices, frames } = &mut self.planned;
        indices.reserve(1, GFP_KERNEL_ACCOUNT)?;
        frames.extend_from_slice(pfns, GFP_KERNEL_ACCOUNT)?;
        indices.push(index, GFP_KERNEL_ACCOUNT)?;
        // INVARIANT: The pins are those of the planned table from now on.
        run.forget();
        Ok(())
    }

    /// Number of pages in the tables that are planned.
    pub(super) fn nr_planned_pages(&self) -> usize {
        self.planned.frames.len()
    }

    /// Makes the tables that were planned, and lists them, and the runs of their pages that are long.
    ///
    /// Not before all of the file was looked at, or a very large part of it: the pages that they are
    /// would lie between those that it is moved to, and make many ranges of one. On failure only
    /// [`Self::rollback`] may follow.
    ///
    /// Context: may sleep, and yields the CPU.
    pub(super) fn list_planned(&mut self, entries: &mut Entries) -> Result {
        let PlannedTables { indices, frames } = &self.planned;
        let runs = self.planned.long_runs()?;
        for run in runs.0.iter() {
            let placed = ExtentSer::placed(run.start, run.end - run.start);
            entries.push(&placed.ok_or(EFBIG)?.starting_range(true))?;
        }
        for (&index, frames) in indices.iter().zip(frames.chunks_exact(TABLE_FRAMES)) {
            task::yield_cpu()?;
            let mut page = PreservedPage::new()?;
            let slots = <[FrameSer]>::mut_from_bytes(&mut page.0).map_err(|_| EINVAL)?;
            for (slot, &pfn) in slots.iter_mut().zip(frames) {
                *slot = FrameSer::new(runs.frame(pfn));
            }
            let entry = ExtentSer::table(page.phys() >> kernel::page::PAGE_SHIFT, index);
            entries.push(&entry.ok_or(EFBIG)?)?;
            self.tables.push(PreservedTable(page), GFP_KERNEL_ACCOUNT)?;
        }
        Ok(())
    }

    fn added(&self) -> &[PreservedTable] {
        self.tables.get(self.preserved..).unwrap_or(&[])
    }

    /// Preserves the single pages of the tables that were listed. On failure none of them is.
    ///
    /// Context: may sleep, and yields the CPU.
    pub(super) fn preserve_added(&self) -> Result {
        for (i, table) in self.added().iter().enumerate() {
            if let Err(err) = table.preserve() {
                let done = self.added().iter().take(i);
                done.for_each(PreservedTable::unpreserve);
                return Err(err);
            }
        }
        Ok(())
    }

    /// Takes over the pages of the tables that were listed and preserved.
    pub(super) fn take_over_added(&mut self) {
        // INVARIANT: The tables have taken over the pins.
        replace(&mut self.planned, PlannedTables::new()).forget();
        self.preserved = self.tables.len();
    }

    /// Keeps the tables that are preserved.
    pub(super) fn commit(&mut self) {
        self.committed = self.preserved;
    }

    /// Lets go of what was planned and preserved since the last [`Self::commit`].
    pub(super) fn rollback(&mut self) {
        self.planned = PlannedTables::new();
        self.tables.truncate(self.preserved);
        for table in self.tables.iter().skip(self.committed) {
            table.unpreserve();
            let pfns = table.frames().iter().map(|frame| frame.frame().pfn());
            // SAFETY: By the type invariant this owns the pins, and gives the tables up below.
            unsafe { unpin_singles(pfns) };
        }
        self.tables.truncate(self.committed);
        self.preserved = self.committed;
    }
}

impl Drop for Tables {
    fn drop(&mut self) {
        self.committed = 0;
        self.rollback();
    }
}

// SPDX-License-Identifier: GPL-2.0

//! The extents of a memfd: runs of pages, in memory and in the file.

use super::{
    folio::Pinned,
    frames::{preserve, unpin, unpreserve, Frames},
    large::LargeFolios,
    pinned_extents::PinnedExtents,
    pinned_run::PinnedRun,
    scan::{Encoding, Properties},
    table::Tables,
};
use crate::{
    handover::{
        extent::{Entry, Extent, ExtentSer, IN_HEAD},
        memfd::MemfdSer,
    },
    kho::{PreservedArray, PreservedPage},
    task,
};
use core::{
    mem::{replace, size_of},
    ops::Range,
};
use kernel::prelude::*;

/// How many extents are dealt with without a pause.
const PAUSE: usize = 512;

/// From how many extents on, or pages of tables, what was added is put in order and preserved, before
/// more is looked at. In pages that are no neighbours these are 64 GiB, and take 512 MiB meanwhile: a
/// memfd of many TiB takes no more. Where steps are made to fail a few pages are many.
const MANY: usize = if cfg!(CONFIG_LIVEUPDATE_RUST_FAULT_INJECTION) {
    64
} else {
    1 << 24
};

/// The entries as the next kernel finds them: behind the description in its page, and the rest in an
/// array.
pub(super) struct Entries {
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
    pub(super) fn push(&mut self, entry: &ExtentSer) -> Result {
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

    /// Iterates over the extents of these.
    fn extents_from(&self, start: usize) -> impl Iterator<Item = Extent> + '_ {
        self.iter_from(start).map(|entry| entry.extent())
    }
}

/// The folios of a memfd as "memfd-extents-v2" has them: few entries, and few KHO keys.
///
/// # Invariants
///
/// This owns the pins of the folios in each extent of `entries`, save placed ones, which are those of
/// `tables`. The first `preserved` entries are whole ranges, tables and large folios, and this owns the
/// preservation of those ranges and folios. The entries behind them are large folios that are not
/// preserved yet.
pub(super) struct PreservedExtents {
    entries: Entries,
    /// How many of them are preserved.
    preserved: usize,
    /// What [`Encoding::rollback`] goes back to: number of entries, and of pages.
    committed: (usize, u64),
    /// What was added last, and will be extents or a table.
    run: PinnedRun,
    /// The extents of single pages that were added before.
    added: PinnedExtents,
    /// Where tables are better than extents.
    tables: Tables,
    /// How many pages are preserved.
    nr_pages: u64,
}

impl PreservedExtents {
    /// No extents.
    pub(super) fn new() -> Result<Self> {
        Ok(Self {
            entries: Entries::new()?,
            preserved: 0,
            committed: (0, 0),
            run: PinnedRun::new(),
            added: PinnedExtents::new(),
            tables: Tables::new(),
            nr_pages: 0,
        })
    }

    /// Lists a large folio. On failure nothing has changed.
    fn add_large(&mut self, folio: Pinned, extent: &Extent) -> Result {
        let entry = ExtentSer::new(extent).ok_or(EFBIG)?;
        self.entries.push(&entry.starting_range(true))?;
        // INVARIANT: The entry has taken over the pin.
        folio.forget();
        Ok(())
    }

    /// Preserves the large folios from entry number `start` on. On failure none of them is. Returns their
    /// number of pages.
    fn preserve_large_from(&self, start: usize) -> Result<u64> {
        let mut nr_pages = 0;
        LargeFolios::try_for_each(self.entries.extents_from(start), |folios| -> Result {
            task::yield_cpu()?;
            folios.preserve()?;
            nr_pages += folios.nr_pages();
            Ok(())
        })
        .inspect_err(|_| self.unpreserve_large_from(start, nr_pages))?;
        Ok(nr_pages)
    }

    /// Undoes [`Self::preserve_large_from`] for the first `nr_pages` pages.
    fn unpreserve_large_from(&self, start: usize, nr_pages: u64) {
        let mut left = nr_pages;
        // They are cut as they were when they were preserved, from the same `start`: between two of these
        // nothing is left, and it ends there with an error.
        let _ = LargeFolios::try_for_each(self.entries.extents_from(start), |folios| -> Result {
            left = left.checked_sub(folios.nr_pages()).ok_or(EINVAL)?;
            folios.unpreserve();
            Ok(())
        });
    }

    /// Undoes [`Self::preserve_ranges_from`].
    fn unpreserve_ranges_from(&self, start: usize) {
        ranges(&self.entries, start).for_each(|range| unpreserve(&range));
    }

    /// Unpins all folios from entry number `start` on.
    ///
    /// # Safety
    ///
    /// The folios are not preserved, and the caller ends these entries without unpinning again.
    unsafe fn unpin_from(&self, start: usize) {
        self.entries.iter_from(start).for_each(|entry| {
            if let Entry::Pages {
                extent,
                is_placed: false,
                ..
            } = entry.entry()
            {
                // SAFETY: By the type invariant this owns the pins, which the caller gives up with the
                // entries.
                unsafe { unpin(&extent) };
            }
        });
    }

    /// Makes a table or extents of the run.
    fn end_run(&mut self) -> Result {
        self.tables.plan(&mut self.run)?;
        self.added.append(&mut self.run)
    }

    /// Preserves what was added. On failure nothing of it is, and only [`Encoding::rollback`] may follow.
    ///
    /// Context: may sleep, and yields the CPU.
    fn preserve(&mut self) -> Result {
        let nr_listed = self.entries.len();
        let nr_large = self.preserve_large_from(self.preserved)?;
        match self.preserve_added() {
            Ok(nr_pages) => {
                // INVARIANT: The entries have taken over the pins, and all of them are preserved.
                replace(&mut self.added, PinnedExtents::new()).forget();
                self.tables.take_over_added();
                self.preserved = self.entries.len();
                self.nr_pages += nr_large + nr_pages;
                Ok(())
            }
            Err(err) => {
                self.entries.truncate(nr_listed);
                self.unpreserve_large_from(self.preserved, nr_large);
                Err(err)
            }
        }
    }

    /// Lists and preserves all single pages that were added. On failure none of them is preserved.
    /// Returns their number.
    fn preserve_added(&mut self) -> Result<u64> {
        let start = self.entries.len();
        self.end_run()?;
        let nr_pages = list(self.added.sorted()?, &mut self.entries)?;
        self.tables.list_planned(&mut self.entries)?;
        self.preserve_ranges_from(start)?;
        self.tables
            .preserve_added()
            .inspect_err(|_| self.unpreserve_ranges_from(start))?;
        Ok(nr_pages + self.tables.nr_planned_pages() as u64)
    }

    /// Preserves the ranges of single pages from entry number `start` on. On failure none of them is.
    fn preserve_ranges_from(&self, start: usize) -> Result {
        for (i, range) in ranges(&self.entries, start).enumerate() {
            let yielded = match i % PAUSE {
                0 => task::yield_cpu(),
                _ => Ok(()),
            };
            let preserved = yielded.and_then(|()| preserve(&range));
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
        if extent.order != 0 {
            return self.add_large(folio, &extent);
        }
        if !self.run.is_followed_by(extent.index) {
            self.end_run()?;
            if self.added.len().max(self.tables.nr_planned_pages()) >= MANY {
                self.preserve()?;
            }
        }
        self.run.push(folio, extent.pfn, extent.index)
    }

    fn commit(&mut self) -> Result {
        self.preserve()?;
        self.tables.commit();
        self.committed = (self.preserved, self.nr_pages);
        Ok(())
    }

    fn rollback(&mut self) {
        self.run = PinnedRun::new();
        self.added = PinnedExtents::new();
        // SAFETY: They are not preserved, and taken back.
        unsafe { self.unpin_from(self.preserved) };
        self.entries.truncate(self.preserved);
        let (len, nr_pages) = self.committed;
        self.unpreserve_ranges_from(len);
        self.unpreserve_large_from(len, u64::MAX);
        // Not before the ranges that its pages are in: who unpins a page may not have it preserved.
        self.tables.rollback();
        // SAFETY: They are not preserved any more, and taken back.
        unsafe { self.unpin_from(len) };
        self.entries.truncate(len);
        self.preserved = len;
        self.nr_pages = nr_pages;
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
        self.committed = (0, 0);
        self.rollback();
    }
}

/// Writes entries for extents, which are in the order of memory. Returns the number of pages.
fn list(extents: &[ExtentSer], entries: &mut Entries) -> Result<u64> {
    let mut nr_pages = 0;
    // What is to be written, and whether a range starts with it.
    let mut last: Option<(Extent, bool)> = None;
    for some in extents.chunks(PAUSE) {
        task::yield_cpu()?;
        for extent in some.iter().map(ExtentSer::extent) {
            nr_pages += extent.nr_pages;
            let mut starts_range = true;
            if let Some((before, _)) = &mut last {
                if before.merge(&extent) {
                    continue;
                }
                starts_range = !before.adjoins(&extent);
            }
            if let Some((before, starts_range)) = last.replace((extent, starts_range)) {
                push(entries, &before, starts_range)?;
            }
        }
    }
    if let Some((extent, starts_range)) = last {
        push(entries, &extent, starts_range)?;
    }
    Ok(nr_pages)
}

fn push(entries: &mut Entries, extent: &Extent, starts_range: bool) -> Result {
    let entry = ExtentSer::new(extent).ok_or(EFBIG)?;
    entries.push(&entry.starting_range(starts_range))
}

/// The ranges of single pages that the entries from number `start` on make, the first of which starts
/// one.
fn ranges(entries: &Entries, start: usize) -> impl Iterator<Item = Frames> + '_ {
    let entries = entries.iter_from(start);
    let mut entries = entries.filter(|entry| entry.is_run()).peekable();
    core::iter::from_fn(move || {
        let first = entries.next()?.extent();
        let mut range = Frames::of(&first);
        while let Some(entry) = entries.next_if(|entry| !entry.starts_range()) {
            range.end = entry.extent().end_pfn();
        }
        Some(range)
    })
}

// SPDX-License-Identifier: GPL-2.0

//! The extents of a memfd: runs of pages, in memory and in the file.

use super::{
    folio::Pinned,
    frames::{preserve, unpin, unpreserve, Frames},
    pinned_extents::PinnedExtents,
    pinned_run::PinnedRun,
    scan::{Encoding, Properties},
    shmem,
    table::Tables,
};
use crate::{
    handover::{
        extent::{Entry, Extent, ExtentSer, IN_HEAD},
        memfd::MemfdSer,
    },
    kho::{PreservedArray, PreservedPage},
};
use core::{
    mem::{replace, size_of},
    ops::Range,
};
use kernel::prelude::*;

/// How many extents are dealt with without a pause.
const PAUSE: usize = 512;

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
}

/// The folios of a memfd as "memfd-extents-v2" has them: few entries, and few KHO keys.
///
/// # Invariants
///
/// For each extent of `entries` this owns the pins of its folios, and the preservation of each range
/// in them. Each [`Encoding::commit`] adds whole ranges; those behind it are large folios.
pub(super) struct PreservedExtents {
    entries: Entries,
    /// How many of them [`Encoding::rollback`] keeps.
    committed: usize,
    /// What was added last, and will be extents or a table.
    run: PinnedRun,
    /// The extents of single pages that were added before.
    added: PinnedExtents,
    /// Where tables are better than extents.
    tables: Tables,
    nr_pages: u64,
}

impl PreservedExtents {
    /// No extents.
    pub(super) fn new() -> Result<Self> {
        Ok(Self {
            entries: Entries::new()?,
            committed: 0,
            run: PinnedRun::new(),
            added: PinnedExtents::new(),
            tables: Tables::new(),
            nr_pages: 0,
        })
    }

    /// Lists and preserves a large folio, which is a range by itself. On failure nothing has changed.
    fn add_large(&mut self, folio: Pinned, extent: &Extent) -> Result {
        let entry = ExtentSer::new(extent).ok_or(EFBIG)?.starting_range(true);
        let range = Frames::of(extent);
        preserve(&range)?;
        self.entries
            .push(&entry)
            .inspect_err(|_| unpreserve(&range))?;
        // INVARIANT: The entry has taken over the pin, and its range is preserved.
        folio.forget();
        Ok(())
    }

    /// Lets go of all entries from number `start` on.
    fn let_go(&self, start: usize) {
        for range in ranges(&self.entries, start) {
            unpreserve(&range);
        }
        for entry in self.entries.iter_from(start) {
            if let Entry::Pages {
                extent,
                is_placed: false,
                ..
            } = entry.entry()
            {
                // SAFETY: By the type invariant this owns the pins.
                unsafe { unpin(&extent) };
            }
        }
    }

    /// Makes a table or extents of the run.
    fn end_run(&mut self) -> Result {
        self.tables.plan(&mut self.run)?;
        self.added.append(&mut self.run)
    }

    /// Lists and preserves all single pages that were added. On failure none of them is preserved.
    /// Returns their number.
    fn preserve_added(&mut self) -> Result<u64> {
        let start = self.entries.len();
        self.end_run()?;
        let nr_pages = list(self.added.sorted()?, &mut self.entries)?;
        self.tables.list_planned(&mut self.entries)?;
        self.preserve_from(start)?;
        self.tables.preserve_added().inspect_err(|_| {
            for range in ranges(&self.entries, start) {
                unpreserve(&range);
            }
        })?;
        Ok(nr_pages + self.tables.nr_planned_pages())
    }

    /// Preserves the ranges from entry number `start` on. On failure none of them is.
    fn preserve_from(&self, start: usize) -> Result {
        for (i, range) in ranges(&self.entries, start).enumerate() {
            let yielded = match i % PAUSE {
                0 => shmem::yield_cpu(),
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
        }
        self.run.push(folio, extent.pfn, extent.index)
    }

    fn commit(&mut self) -> Result {
        let start = self.entries.len();
        let large = self.entries.iter_from(self.committed);
        let nr_large: u64 = large.map(|entry| entry.extent().nr_pages).sum();
        match self.preserve_added() {
            Ok(nr_pages) => {
                // INVARIANT: The entries have taken over the pins, and their ranges are preserved.
                replace(&mut self.added, PinnedExtents::new()).forget();
                self.run = PinnedRun::new();
                self.tables.commit();
                self.committed = self.entries.len();
                self.nr_pages += nr_large + nr_pages;
                Ok(())
            }
            Err(err) => {
                self.entries.truncate(start);
                Err(err)
            }
        }
    }

    fn rollback(&mut self) {
        self.run = PinnedRun::new();
        self.added = PinnedExtents::new();
        self.tables.rollback();
        self.let_go(self.committed);
        self.entries.truncate(self.committed);
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
        self.let_go(0);
    }
}

/// Writes entries for extents, which are in the order of memory. Returns the number of pages.
fn list(extents: &[ExtentSer], entries: &mut Entries) -> Result<u64> {
    let mut nr_pages = 0;
    // What is to be written, and whether a range starts with it.
    let mut last: Option<(Extent, bool)> = None;
    for some in extents.chunks(PAUSE) {
        shmem::yield_cpu()?;
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

/// The ranges of page frames that the entries from number `start` on make, the first of which starts
/// one.
fn ranges(entries: &Entries, start: usize) -> impl Iterator<Item = Frames> + '_ {
    let is_of_range = |entry: &&ExtentSer| !matches!(entry.entry(), Entry::Table(_));
    let mut entries = entries.iter_from(start).filter(is_of_range).peekable();
    core::iter::from_fn(move || {
        let first = entries.next()?.extent();
        let mut range = Frames::of(&first);
        while let Some(entry) = entries.next_if(|entry| !entry.starts_range()) {
            range.end = entry.extent().end_pfn();
        }
        Some(range)
    })
}

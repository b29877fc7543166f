// SPDX-License-Identifier: GPL-2.0

//! The extents of a memfd: runs of pages, in memory and in the file.

use super::{
    folio::{Pinned, PinnedBatch},
    frames::{preserve, unpin, unpreserve, Frames, MIN_BLOCKS},
    scan::{Encoding, Properties},
    shmem, sort,
    table::Tables,
};
use crate::{
    handover::{
        extent::{Entry, Extent, ExtentSer, IN_HEAD},
        memfd::MemfdSer,
        table::{Frame, TABLE_FRAMES},
    },
    kho::{PreservedArray, PreservedPage},
};
use core::{
    mem::{replace, size_of},
    ops::Range,
};
use kernel::prelude::*;

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

/// Extents whose folios are pinned, until this is dropped.
///
/// # Invariants
///
/// This owns a pin of each folio in the extents.
struct PinnedExtents(KVVec<ExtentSer>);

impl PinnedExtents {
    /// Ends this, whose pins the caller has taken over.
    fn forget(mut self) {
        self.0.clear();
    }
}

impl Drop for PinnedExtents {
    fn drop(&mut self) {
        for entry in self.0.iter() {
            // SAFETY: By the type invariant this owns the pins.
            unsafe { unpin(&entry.extent()) };
        }
    }
}

/// The folios of a memfd as "memfd-extents-v2" has them: few entries, and few KHO keys.
///
/// # Invariants
///
/// For each extent of `entries` this owns the pins of its folios, and the preservation of each range
/// in them. Each [`Encoding::commit`] adds whole ranges.
pub(super) struct PreservedExtents {
    entries: Entries,
    added: PinnedExtents,
    /// Where tables are better than extents.
    tables: Tables,
    /// Of those that were added, from where on they are in the last block of the file that can become
    /// a table, and its number.
    block: (usize, u64),
    nr_pages: u64,
}

impl PreservedExtents {
    /// No extents.
    pub(super) fn new() -> Result<Self> {
        Ok(Self {
            entries: Entries::new()?,
            added: PinnedExtents(KVVec::new()),
            tables: Tables::new(),
            block: (0, 0),
            nr_pages: 0,
        })
    }

    /// Plans a table for the last block if that is better.
    fn end_block(&mut self) -> Result {
        let (start, block) = self.block;
        let extents = self.added.0.get_mut(start..).unwrap_or(&mut []);
        self.tables.plan(extents, block)
    }

    /// Writes entries for what was added, in the order of memory. Returns their number of pages.
    fn list_added(&mut self) -> Result<u64> {
        sort::by_key(&mut self.added.0, ExtentSer::pfn)?;
        let mut nr_pages = 0;
        let adjoin = |entry: &ExtentSer, next: &ExtentSer| entry.extent().adjoins(&next.extent());
        for range in self.added.0.chunk_by(adjoin) {
            nr_pages += list_range(range, &mut self.entries, &mut self.tables)?;
        }
        self.tables.list_added(&mut self.entries)?;
        Ok(nr_pages)
    }

    /// Lists and preserves all that was added. On failure nothing of it is preserved. Returns the
    /// number of pages.
    fn preserve_added(&mut self) -> Result<u64> {
        let start = self.entries.len();
        self.end_block()?;
        self.tables.make()?;
        let nr_pages = self.list_added()?;
        self.preserve_from(start)?;
        self.tables.preserve_added().inspect_err(|_| {
            for range in ranges(&self.entries, start) {
                unpreserve(&range);
            }
        })?;
        Ok(nr_pages)
    }

    /// Preserves the ranges from entry number `start` on. On failure none of them is.
    fn preserve_from(&self, start: usize) -> Result {
        for range in ranges(&self.entries, start) {
            let preserved = shmem::yield_cpu().and_then(|()| preserve(&range));
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
        let block = extent.index / TABLE_FRAMES as u64;
        if block != self.block.1 {
            self.end_block()?;
            self.block = (self.added.0.len(), block);
        }
        let in_block = self.added.0.get_mut(self.block.0..);
        let merged = match in_block.and_then(|extents| extents.last_mut()) {
            Some(last) => last.merge(&extent),
            None => false,
        };
        if !merged {
            let entry = ExtentSer::new(&extent).ok_or(EFBIG)?;
            self.added.0.push(entry, GFP_KERNEL_ACCOUNT)?;
        }
        // INVARIANT: The extent has taken over the pin.
        folio.forget();
        Ok(())
    }

    fn commit(&mut self) -> Result {
        let start = self.entries.len();
        match self.preserve_added() {
            Ok(nr_pages) => {
                // INVARIANT: The entries have taken over the pins, and their ranges are preserved.
                replace(&mut self.added, PinnedExtents(KVVec::new())).forget();
                self.tables.commit();
                self.block = (0, 0);
                self.nr_pages += nr_pages;
                Ok(())
            }
            Err(err) => {
                self.entries.truncate(start);
                Err(err)
            }
        }
    }

    fn rollback(&mut self) {
        self.added = PinnedExtents(KVVec::new());
        self.tables.rollback();
        self.block = (0, 0);
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
        for range in ranges(&self.entries, 0) {
            unpreserve(&range);
        }
        for entry in self.entries.iter_from(0) {
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
}

/// Writes entries for extents and placed pages that adjoin in memory, and the latter into their tables.
/// Returns the number of pages.
///
/// Where there are only placed pages, and not many, they are preserved by themselves, without an entry.
fn list_range(range: &[ExtentSer], entries: &mut Entries, tables: &mut Tables) -> Result<u64> {
    let nr_pages = range.iter().map(|entry| entry.extent().nr_pages).sum();
    let are_singles = nr_pages < MIN_BLOCKS && range.iter().all(ExtentSer::is_placed);
    // What is to be written, and whether it is placed pages.
    let mut last: Option<(Extent, bool)> = None;
    let mut starts_range = true;
    for (i, entry) in range.iter().enumerate() {
        if i % PinnedBatch::MAX == 0 {
            shmem::yield_cpu()?;
        }
        let mut extent = entry.extent();
        if entry.is_placed() {
            if are_singles {
                tables.place(&extent, Frame::Single)?;
                continue;
            }
            tables.place(&extent, Frame::Placed)?;
            // So that they merge with those before.
            extent.index = last.map_or(0, |(before, _)| before.end_index());
        }
        match &mut last {
            Some((before, is_placed)) if *is_placed == entry.is_placed() => {
                if before.merge(&extent) {
                    continue;
                }
            }
            _ => {}
        }
        if let Some((before, is_placed)) = last.replace((extent, entry.is_placed())) {
            entries.push(&listed(&before, is_placed)?.starting_range(starts_range))?;
            starts_range = false;
        }
    }
    if let Some((extent, is_placed)) = last {
        entries.push(&listed(&extent, is_placed)?.starting_range(starts_range))?;
    }
    Ok(nr_pages)
}

/// The entry for an extent, or for placed pages.
fn listed(extent: &Extent, is_placed: bool) -> Result<ExtentSer> {
    let entry = if is_placed {
        ExtentSer::placed(extent.pfn, extent.nr_pages)
    } else {
        ExtentSer::new(extent)
    };
    entry.ok_or(EFBIG)
}

/// The ranges of page frames that the entries from number `start` on make, the first of which starts
/// one.
fn ranges(entries: &Entries, start: usize) -> impl Iterator<Item = Frames> + '_ {
    let is_of_range = |entry: &&ExtentSer| !matches!(entry.entry(), Entry::Table(_));
    let mut entries = entries.iter_from(start).filter(is_of_range).peekable();
    core::iter::from_fn(move || {
        let first = entries.next()?.extent();
        let mut range = Frames {
            start: first.pfn,
            end: first.end_pfn(),
            is_folio: first.order != 0,
        };
        while let Some(entry) = entries.next_if(|entry| !entry.starts_range()) {
            range.end = entry.extent().end_pfn();
        }
        Some(range)
    })
}

// SPDX-License-Identifier: GPL-2.0

//! The description of a memfd that the previous kernel handed over.
//!
//! Everything is checked before anything of the data is touched: what is not understood is neither
//! freed nor shown to anybody.

use super::{
    large::LargeFolios,
    new_memfd::{key_order, PreservedRange, Restored, RestoredExtent},
    patience::Patience,
    restored_table::{IncomingTable, PlacedPages, RestoredTable},
    Format,
};
use crate::{
    handler::NotRetrieved,
    handover::{
        extent::{Entry, Extent, ExtentCheck, ExtentSer, KeyWalk},
        memfd::{FolioCheck, FolioSer, MemfdSer, KNOWN_SEALS},
        vmalloc, Malformed, Page, Source,
    },
    kho::{Incoming, RestoredPages},
    log::err_limited,
};
use kernel::prelude::*;
use zerocopy::{Immutable, KnownLayout};

/// The description of a memfd, taken over from the previous kernel: freed when dropped.
pub(super) struct Description {
    format: Format,
    memfd: MemfdSer,
    /// The page of the description itself.
    head: Option<RestoredPages>,
    /// The pages with the array of entries, in order.
    array: KVVec<RestoredPages>,
    /// In which ranges the data is preserved, once that was checked.
    ranges: KVVec<PreservedRange>,
    /// Tables of frames, which were not looked at yet.
    tables: KVVec<IncomingTable>,
    /// All other pages.
    other: KVVec<RestoredPages>,
}

/// Why a memfd is refused.
pub(super) enum Refusal {
    Malformed(Malformed),
    UnknownSeals(u32),
    Failed(Error),
}

impl From<Malformed> for Refusal {
    fn from(malformed: Malformed) -> Self {
        Refusal::Malformed(malformed)
    }
}

impl From<kernel::alloc::AllocError> for Refusal {
    fn from(_: kernel::alloc::AllocError) -> Self {
        Refusal::Failed(ENOMEM)
    }
}

impl From<core::num::TryFromIntError> for Refusal {
    fn from(_: core::num::TryFromIntError) -> Self {
        Refusal::Failed(EOVERFLOW)
    }
}

impl From<Error> for Refusal {
    fn from(err: Error) -> Self {
        Refusal::Failed(err)
    }
}

impl From<Refusal> for NotRetrieved {
    fn from(refusal: Refusal) -> Self {
        refusal.report().into()
    }
}

impl Refusal {
    /// Says in the log what of the handover is refused, and returns the error for it.
    pub(super) fn report(self) -> Error {
        match self {
            Refusal::Malformed(why) => {
                err_limited!("a memfd of the previous kernel is refused: {:?}\n", why);
                EINVAL
            }
            Refusal::UnknownSeals(seals) => {
                err_limited!(
                    "a memfd of the previous kernel has unknown seals: {:#x}\n",
                    seals
                );
                EOPNOTSUPP
            }
            Refusal::Failed(err) => err,
        }
    }
}

/// The head of a description, as it was read and checked: nothing is taken over yet.
pub(super) struct Head {
    format: Format,
    pa: u64,
    memfd: MemfdSer,
    scratch: KBox<Page>,
}

impl Head {
    /// Reads the head of the description at `pa`, of any value.
    pub(super) fn read(format: Format, pa: u64, patience: &mut Patience) -> Result<Self, Refusal> {
        let mut scratch = patience.insist(|| KBox::new(Page::ZERO, GFP_KERNEL))?;
        if !Incoming.read(pa, &mut scratch) {
            return Err(Malformed::NotPreserved(pa).into());
        }
        let (memfd, _) =
            MemfdSer::read_from_prefix(&scratch.0).map_err(|_| Malformed::NotPreserved(pa))?;
        memfd.validate(format.in_head())?;
        if memfd.seals & !KNOWN_SEALS != 0 {
            return Err(Refusal::UnknownSeals(memfd.seals));
        }
        Ok(Self {
            format,
            pa,
            memfd,
            scratch,
        })
    }

    /// What the memfd is beside its pages.
    pub(super) fn memfd(&self) -> &MemfdSer {
        &self.memfd
    }
}

impl Description {
    /// Takes over the description with this head.
    ///
    /// The pages are ours before they are believed: an entry that claims one of them as the user's
    /// data is found out. On failure they are kept.
    pub(super) fn claim(mut head: Head, patience: &mut Patience) -> Result<Self, Refusal> {
        let mut description = Self {
            format: head.format,
            memfd: head.memfd,
            head: None,
            array: KVVec::new(),
            ranges: KVVec::new(),
            tables: KVVec::new(),
            other: KVVec::new(),
        };
        let checked = description
            .claim_pages(head.pa, &mut head.scratch, patience)
            .and_then(|()| description.check(patience));
        match checked {
            Ok(()) => Ok(description),
            Err(why) => {
                description.leak();
                Err(why)
            }
        }
    }

    fn claim_pages(
        &mut self,
        pa: u64,
        scratch: &mut Page,
        patience: &mut Patience,
    ) -> Result<(), Refusal> {
        let in_head = self.format.in_head();
        let Self {
            memfd,
            head,
            array,
            other,
            ..
        } = self;
        *head = Some(claim(pa, 0)?);
        if memfd.nr_in_array(in_head) == 0 {
            return Ok(());
        }
        let order = memfd.entries.order;
        memfd.entries.walk(&Incoming, scratch, |piece| {
            match piece {
                // With room for them first: what cannot be kept here would be freed.
                vmalloc::Piece::Chunk(pa) => {
                    patience.insist(|| other.reserve(1, GFP_KERNEL))?;
                    other.push(claim(pa, 0)?, GFP_KERNEL)?;
                }
                vmalloc::Piece::Pages(pa) => {
                    patience.insist(|| array.reserve(1, GFP_KERNEL))?;
                    array.push(claim(pa, order.into())?, GFP_KERNEL)?;
                }
            }
            Ok(())
        })
    }

    /// Calls `visit` with each entry, and whether its data is valid. `order` says of which order the
    /// preservation at a frame is, or was.
    fn for_each(
        &self,
        order: impl FnMut(u64) -> Result<u32, Malformed>,
        mut visit: impl FnMut(Entry, bool) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        if self.format == Format::V2 {
            return self.for_each_folio(order, visit);
        }
        let mut check = ExtentCheck::new(&self.memfd);
        self.for_each_entry(|entry| visit(check.next(entry)?, true))
    }

    /// As [`Self::for_each`], once that has found all of them to be good: a paused workload waits.
    fn for_each_again(
        &self,
        mut visit: impl FnMut(Entry, bool) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        match self.format {
            Format::V2 => self.for_each_folio(self.claimed_orders(), visit),
            Format::Extents => self.for_each_entry(|entry: &ExtentSer| visit(entry.entry(), true)),
        }
    }

    fn for_each_folio(
        &self,
        mut order: impl FnMut(u64) -> Result<u32, Malformed>,
        mut visit: impl FnMut(Entry, bool) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        let check = FolioCheck::new(&self.memfd);
        let mut before: Option<Extent> = None;
        self.for_each_entry(|entry: &FolioSer| {
            if entry.pfn() == 0 {
                return Ok(());
            }
            let folio = check.check(entry, order(entry.pfn())?)?;
            let extent = Extent::folio(folio.pfn, folio.index, folio.order);
            let starts_range = !before.is_some_and(|before| before.adjoins(&extent));
            before = Some(extent);
            let entry = Entry::Pages {
                extent,
                is_placed: false,
                starts_range,
            };
            visit(entry, folio.uptodate)
        })
    }

    /// Calls `visit` with each entry of the array.
    fn for_each_entry<T: FromBytes + KnownLayout + Immutable>(
        &self,
        mut visit: impl FnMut(&T) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        let mut left = self.memfd.nr_entries;
        let head = self.head.iter().flat_map(|pages| pages.as_pages());
        for page in head {
            let (_, rest) = MemfdSer::ref_from_prefix(&page.0)
                .map_err(|_| Malformed::Field("description of a memfd"))?;
            let in_head = self.format.in_head().min(usize::try_from(left)?);
            let (entries, _) = <[T]>::ref_from_prefix_with_elems(rest, in_head)
                .map_err(|_| Malformed::Count(left))?;
            for entry in entries {
                left -= 1;
                visit(entry)?;
            }
        }
        for page in self.array.iter().flat_map(|pages| pages.as_pages()) {
            let entries =
                <[T]>::ref_from_bytes(&page.0).map_err(|_| Malformed::Field("array of a memfd"))?;
            for entry in entries {
                if left == 0 {
                    return Ok(());
                }
                left -= 1;
                visit(entry)?;
            }
        }
        Ok(())
    }

    /// Checks that all extents are what they claim to be, without touching any, and notes in which
    /// ranges they are preserved. Takes over the tables, which are parts of the description.
    fn check(&mut self, patience: &mut Patience) -> Result<(), Refusal> {
        let mut ranges: KVVec<PreservedRange> = KVVec::new();
        let mut tables = KVVec::new();
        let mut keys = KeyWalk::new();
        let checked = self.for_each(key_order, |entry, _| {
            let (extent, starts_range) = match entry {
                Entry::Pages {
                    extent,
                    starts_range,
                    ..
                } => (extent, starts_range),
                Entry::Table(table) => {
                    patience.insist(|| tables.reserve(1, GFP_KERNEL))?;
                    return Ok(tables.push(IncomingTable::claim(&table)?, GFP_KERNEL)?);
                }
            };
            keys.advance(&extent, starts_range, |pfn| {
                Ok::<_, Refusal>(key_order(pfn)?)
            })?;
            match ranges.last_mut() {
                Some(range) if !starts_range => range.end = extent.end_pfn(),
                _ => {
                    patience.insist(|| ranges.reserve(1, GFP_KERNEL))?;
                    let range = PreservedRange {
                        pfn: extent.pfn,
                        end: extent.end_pfn(),
                        is_folio: extent.order != 0,
                    };
                    ranges.push(range, GFP_KERNEL)?;
                }
            }
            Ok(())
        });
        // Whatever they are, they are kept if the description is refused.
        self.tables = tables;
        checked?;
        keys.finish()?;
        self.ranges = ranges;
        Ok(())
    }

    /// Takes all pages over, and calls `visit` with each piece of the file once all of them are ours.
    pub(super) fn claim_all(
        &mut self,
        mut visit: impl FnMut(Restored) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        for range in self.ranges.iter().filter(|range| !range.is_folio) {
            range.claim()?;
        }
        let folios = self.ranges.iter().filter_map(|range| range.folio());
        LargeFolios::try_for_each(folios, |folios| -> Result<(), Refusal> {
            Ok(folios.claim()?)
        })?;
        self.claim_tables()?;
        self.for_each_again(|entry, uptodate| {
            if let Entry::Pages {
                extent,
                is_placed: false,
                ..
            } = entry
            {
                // SAFETY: All ranges were claimed, and `check` found the extents to be in them, one
                // behind the other. Two ranges cannot have claimed the same page.
                let restored = unsafe { RestoredExtent::new(&extent) };
                if !uptodate {
                    restored.zero();
                }
                visit(Restored::Extent(restored))?;
            }
            Ok(())
        })?;
        while let Some(table) = self.tables.pop() {
            // SAFETY: Its pages were claimed above.
            visit(Restored::Table(unsafe { RestoredTable::new(table) }))?;
        }
        Ok(())
    }

    /// Takes over the pages that tables list. All ranges were claimed.
    fn claim_tables(&mut self) -> Result<(), Refusal> {
        let head = self.head.as_ref();
        let mut placed = PlacedPages::new(head.ok_or(Malformed::Field("description of a memfd"))?);
        if self.format == Format::Extents {
            self.for_each_entry(|entry: &ExtentSer| {
                if entry.is_placed() {
                    // SAFETY: As for those that are not placed, in `claim_all`.
                    placed.add(unsafe { RestoredExtent::new(&entry.extent()) });
                }
                Ok(())
            })?;
        }
        for table in self.tables.iter_mut() {
            table.claim_pages(&mut placed)?;
        }
        Ok(placed.finish()?)
    }

    /// Says of which order the preservations were, in the order of the ranges: KHO does not know any
    /// more.
    fn claimed_orders(&self) -> impl FnMut(u64) -> Result<u32, Malformed> + '_ {
        let mut ranges = self.ranges.iter().peekable();
        move |pfn| {
            while ranges.next_if(|range| !range.contains(pfn)).is_some() {}
            let range = ranges.peek().ok_or(Malformed::Field("frame"))?;
            Ok(range.folio_order())
        }
    }

    /// Keeps the pages for ever, but not the lists of them.
    pub(super) fn leak(self) {
        let Self {
            head,
            array,
            tables,
            other,
            ..
        } = self;
        core::mem::forget(head);
        array.into_iter().for_each(core::mem::forget);
        tables.into_iter().for_each(core::mem::forget);
        other.into_iter().for_each(core::mem::forget);
    }
}

/// Takes over pages of the description.
fn claim(pa: u64, order: u32) -> Result<RestoredPages, Malformed> {
    RestoredPages::claim(pa, order).ok_or(Malformed::NotPreserved(pa))
}

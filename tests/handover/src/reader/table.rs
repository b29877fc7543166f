// SPDX-License-Identifier: GPL-2.0

//! Takes over tables and the pages that they list, in the steps of the module's `memfd/restored_table.rs`.

use super::{memfd::Frames, Incoming};
use crate::{
    handover::{
        extent::Extent,
        table::{all_singles, singles, Frame, FrameSer, TABLE_FRAMES},
        Malformed, PAGE_SIZE,
    },
    write::{Slot, Table},
};
use rustc_hash::FxHashSet;
use zerocopy::FromBytes;

/// Placed pages, each of which a table may list once.
#[derive(Default)]
pub(super) struct PlacedPages {
    /// The first frame of each run of them, and the one behind it.
    ranges: Vec<(u64, u64)>,
    taken: FxHashSet<u64>,
    left: u64,
}

impl PlacedPages {
    /// Adds pages of a range that was claimed.
    pub(super) fn add(&mut self, pages: &Extent) {
        self.ranges.push((pages.pfn, pages.end_pfn()));
        self.left += pages.nr_pages;
    }

    /// Takes out the page with frame `pfn`, of any value.
    fn take(&mut self, pfn: u64) -> Result<Slot, Malformed> {
        let mut ranges = self.ranges.iter().enumerate();
        let found = ranges.find(|(_, &(start, end))| (start..end).contains(&pfn));
        match found {
            Some((number, &(start, _))) if self.taken.insert(pfn) => {
                self.left -= 1;
                Ok(Slot::Placed(number, pfn - start))
            }
            _ => Err(Malformed::NotPreserved(pfn * PAGE_SIZE as u64)),
        }
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
    pa: u64,
    index: u64,
}

impl IncomingTable {
    /// Takes over the page of a table, as its entry tells.
    pub(super) fn claim(incoming: &Incoming<'_>, entry: &Extent) -> Result<Self, Malformed> {
        let pa = entry.pfn.saturating_mul(PAGE_SIZE as u64);
        incoming.claim(pa, 0)?;
        Ok(Self {
            pa,
            index: entry.index,
        })
    }

    /// Takes over all pages that it lists.
    pub(super) fn restore(
        &self,
        incoming: &Incoming<'_>,
        placed: &mut PlacedPages,
    ) -> Result<RestoredTable, Malformed> {
        let page = incoming.memory.bytes(self.pa);
        let frames: Vec<_> = page
            .chunks_exact(size_of::<FrameSer>())
            .map(|bytes| FrameSer::read_from_bytes(bytes).expect("the size of an entry"))
            .collect();
        check_singles(&frames);
        let slots = match all_singles(&frames) {
            Some(pfns) => {
                claim_frames(incoming, pfns)?;
                pfns.iter().map(|&pfn| (pfn, Slot::Single)).collect()
            }
            None => {
                let slot = |frame: &FrameSer| {
                    Ok(match frame.check()? {
                        Frame::Placed(pfn) => (pfn, placed.take(pfn)?),
                        Frame::Single(pfn) => (pfn, Slot::Single),
                    })
                };
                let slots = frames.iter().map(slot).collect::<Result<Vec<_>, _>>()?;
                singles(&frames).try_for_each(|pfns| claim_frames(incoming, pfns))?;
                slots
            }
        };
        assert!(slots.iter().all(|(pfn, _)| (1..1 << 52).contains(pfn)));
        assert_eq!(slots.len(), TABLE_FRAMES);
        Ok(RestoredTable {
            pa: self.pa,
            index: self.index,
            slots,
        })
    }
}

/// Takes over pages that are preserved one by one.
fn claim_frames(incoming: &Incoming<'_>, pfns: &[u64]) -> Result<(), Malformed> {
    let mut pages = pfns.iter().map(|pfn| pfn.saturating_mul(PAGE_SIZE as u64));
    pages.try_for_each(|pa| incoming.claim(pa, 0))
}

/// Checks that what is told of these frames at once is what is told of each of them.
pub(crate) fn check_singles(frames: &[FrameSer]) {
    let checked: Vec<_> = frames.iter().map(|frame| frame.check()).collect();
    let words = frames.iter().map(|frame| zerocopy::transmute!(*frame));
    // Frame 0 is for KHO to refuse there.
    let is_single = |(word, checked): (u64, &Result<Frame, _>)| match word {
        0 => checked.is_err(),
        pfn => *checked == Ok(Frame::Single(pfn)),
    };
    let are_singles = words.clone().zip(&checked).all(is_single);
    let all = all_singles(frames);
    assert_eq!(all.is_some(), are_singles, "{checked:x?}");
    assert!(all.is_none_or(|pfns| pfns.iter().copied().eq(words)));

    // The rest is promised of good ones only.
    let Ok(good) = checked.into_iter().collect::<Result<Vec<_>, _>>() else {
        return;
    };
    let single = |frame: &Frame| matches!(frame, Frame::Single(_));
    let runs = good.chunk_by(|frame, next| single(frame) == single(next));
    let mut found = singles(frames);
    for wanted in runs.filter(|run| single(&run[0])) {
        let pfns = found.next().unwrap_or(&[]);
        let is_run = wanted
            .iter()
            .map(|frame| frame.pfn())
            .eq(pfns.iter().copied());
        assert!(is_run, "{pfns:x?} instead of {wanted:x?}");
    }
    assert_eq!(found.next(), None, "more than there is");
}

/// A table all of whose pages were taken over.
pub(super) struct RestoredTable {
    pa: u64,
    index: u64,
    /// The frame of each, and how it was preserved.
    slots: Vec<(u64, Slot)>,
}

impl RestoredTable {
    /// Where the table itself is.
    pub(super) fn pa(&self) -> u64 {
        self.pa
    }

    /// Where in the file its pages are, and how many.
    pub(super) fn place(&self) -> (u64, u64) {
        (self.index, self.slots.len() as u64)
    }

    /// Where its pages are, one by one.
    pub(super) fn frames(&self) -> impl Iterator<Item = Frames> + '_ {
        let indices = self.index..;
        let pages = self.slots.iter().zip(indices);
        pages.map(|(&(pfn, _), index)| Frames {
            pfn,
            index,
            nr_pages: 1,
            uptodate: true,
        })
    }

    /// As it was written.
    pub(super) fn into_table(self) -> Table {
        Table {
            index: self.index,
            slots: self.slots.into_iter().map(|(_, slot)| slot).collect(),
        }
    }
}

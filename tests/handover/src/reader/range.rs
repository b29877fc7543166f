// SPDX-License-Identifier: GPL-2.0

//! Ranges of frames that are preserved as a whole.

use super::{table::IncomingTable, Incoming};
use crate::handover::{
    extent::{Extent, KeyWalk},
    Malformed, PAGE_SIZE,
};

/// Frames that are preserved as a whole.
pub(super) struct Preserved {
    pub(super) pfn: u64,
    pub(super) end: u64,
    /// 0 for pages of their own, else the range is one folio of this order.
    pub(super) order: u32,
    /// What is in it, in order.
    pub(super) pieces: Vec<Piece>,
}

/// A part of a range.
pub(super) struct Piece {
    pub(super) extent: Extent,
    /// Whether tables tell the places of its pages.
    pub(super) is_placed: bool,
    /// Whether its data is valid.
    pub(super) uptodate: bool,
}

impl Preserved {
    /// Index and number of pages of each extent that has a place of its own.
    pub(super) fn places(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let extents = self.pieces.iter().filter(|piece| !piece.is_placed);
        extents.map(|piece| (piece.extent.index, piece.extent.nr_pages))
    }

    /// The placed pages.
    pub(super) fn placed(&self) -> impl Iterator<Item = &Extent> + '_ {
        let pieces = self.pieces.iter().filter(|piece| piece.is_placed);
        pieces.map(|piece| &piece.extent)
    }
}

/// The ranges that extents make, with the keys that they are preserved by.
pub(super) struct Ranges<'a> {
    incoming: &'a Incoming<'a>,
    keys: KeyWalk,
    ranges: Vec<Preserved>,
    tables: Vec<IncomingTable>,
    pub(super) nr_entries: usize,
}

impl<'a> Ranges<'a> {
    pub(super) fn new(incoming: &'a Incoming<'a>) -> Self {
        Self {
            incoming,
            keys: KeyWalk::new(),
            ranges: Vec::new(),
            tables: Vec::new(),
            nr_entries: 0,
        }
    }

    /// Adds pages with a place in the file, or placed ones.
    pub(super) fn add(&mut self, piece: Piece, starts_range: bool) -> Result<(), Malformed> {
        let extent = piece.extent;
        let key = |pfn| key_order(self.incoming, pfn);
        self.keys.advance(&extent, starts_range, key)?;
        match self.ranges.last_mut() {
            Some(last) if !starts_range => {
                assert_eq!((last.end, last.order, extent.order), (extent.pfn, 0, 0));
                last.end = extent.end_pfn();
                last.pieces.push(piece);
            }
            _ => self.ranges.push(Preserved {
                pfn: extent.pfn,
                end: extent.end_pfn(),
                order: extent.order,
                pieces: vec![piece],
            }),
        }
        Ok(())
    }

    /// Takes over the page of a table, which is a part of the description.
    pub(super) fn add_table(&mut self, entry: &Extent) -> Result<(), Malformed> {
        self.tables
            .push(IncomingTable::claim(self.incoming, entry)?);
        Ok(())
    }

    pub(super) fn finish(self) -> Result<Found, Malformed> {
        self.keys.finish()?;
        Ok(Found {
            ranges: self.ranges,
            tables: self.tables,
            nr_entries: self.nr_entries,
        })
    }
}

/// All that a description tells of, checked.
pub(super) struct Found {
    pub(super) ranges: Vec<Preserved>,
    /// Tables, which were not looked at yet.
    pub(super) tables: Vec<IncomingTable>,
    pub(super) nr_entries: usize,
}

/// Of which order the preservation at a frame is.
pub(super) fn key_order(incoming: &Incoming<'_>, pfn: u64) -> Result<u32, Malformed> {
    let pa = pfn
        .checked_mul(PAGE_SIZE as u64)
        .ok_or(Malformed::Field("frame"))?;
    incoming.order(pa).ok_or(Malformed::NotPreserved(pa))
}

/// Takes the pages of a range over, key by key.
pub(super) fn claim_range(incoming: &Incoming<'_>, range: &Preserved) -> Result<(), Malformed> {
    let mut pfn = range.pfn;
    while pfn < range.end {
        let order = key_order(incoming, pfn)?;
        let whole = range.order;
        assert!(whole == 0 || order == whole, "a folio of {whole} in pieces");
        incoming.claim(pfn * PAGE_SIZE as u64, order)?;
        pfn += 1 << order;
    }
    assert_eq!(
        pfn, range.end,
        "keys reach beyond the range that was checked"
    );
    Ok(())
}

// SPDX-License-Identifier: GPL-2.0

//! Layout of a table of "memfd-extents-v2": a page with the frames of pages that follow one another
//! in a file, and nowhere else.
//!
//! This project's own. It takes half the memory of as many extents. The next kernel checks it, takes
//! the pages over, and puts it into the file as it is: what a guest's memory becomes then, a page at a
//! time, is done when the guest runs again.

use super::{Malformed, PAGE_SIZE, PFN_BITS};
use core::mem::size_of;
use zerocopy::{FromBytes, IntoBytes};
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// How many frames a table lists.
pub(crate) const TABLE_FRAMES: usize = PAGE_SIZE / size_of::<FrameSer>();

/// A frame in a table.
#[repr(transparent)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub(crate) struct FrameSer(u64);

const _: () = assert!(TABLE_FRAMES == 512);

/// The page is one of the placed pages; else it is preserved by itself.
const FLAG_PLACED: u64 = 1 << 0;

/// How a page of a table is preserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    /// As a KHO key of its own.
    Single(u64),
    /// With others, in a range: it is one of the placed pages.
    Placed(u64),
}

impl Frame {
    /// The page frame number.
    pub(crate) fn pfn(self) -> u64 {
        match self {
            Frame::Single(pfn) | Frame::Placed(pfn) => pfn,
        }
    }
}

impl FrameSer {
    /// An entry of a table.
    pub(crate) fn new(frame: Frame) -> Self {
        match frame {
            Frame::Single(pfn) => Self(pfn),
            Frame::Placed(pfn) => Self(pfn | FLAG_PLACED << PFN_BITS),
        }
    }

    /// The frame as it was written, unchecked: for who wrote it.
    pub(crate) fn frame(self) -> Frame {
        let pfn = self.0 & ((1 << PFN_BITS) - 1);
        if self.0 >> PFN_BITS & FLAG_PLACED != 0 {
            Frame::Placed(pfn)
        } else {
            Frame::Single(pfn)
        }
    }

    /// Checks an entry of a table.
    ///
    /// That a page is listed twice is found out later, as KHO gives each page once, and so do the placed pages.
    pub(crate) fn check(self) -> Result<Frame, Malformed> {
        if self.0 >> PFN_BITS & !FLAG_PLACED != 0 {
            return Err(Malformed::Field("flags of a frame"));
        }
        if self.frame().pfn() == 0 {
            return Err(Malformed::Field("frame of a table"));
        }
        Ok(self.frame())
    }
}

/// The page frame numbers in `frames` that are of single pages, in runs as long as can be.
pub(crate) fn singles(frames: &[FrameSer]) -> impl Iterator<Item = &[u64]> {
    let is_single = |frame: &FrameSer| matches!(frame.frame(), Frame::Single(_));
    let all = all_singles(frames);
    let mixed = if all.is_some() { &[] } else { frames };
    let runs = mixed
        .chunk_by(move |frame, next| is_single(frame) == is_single(next))
        .filter(move |run| run.first().is_some_and(is_single))
        .filter_map(|run| <[u64]>::ref_from_bytes(run.as_bytes()).ok());
    all.into_iter().chain(runs)
}

/// The page frame numbers in `frames`, if all of them are of single pages and without flags: in a
/// fraction of the time of [`FrameSer::check`], for fragmented memory. Frame 0 is not refused here:
/// the previous kernel does not preserve it.
pub(crate) fn all_singles(frames: &[FrameSer]) -> Option<&[u64]> {
    let words = <[u64]>::ref_from_bytes(frames.as_bytes()).ok()?;
    let all = words.iter().fold(0, |all, word| all | word);
    (all >> PFN_BITS == 0).then_some(words)
}

// SPDX-License-Identifier: GPL-2.0

//! Layout of an array over many pages, as KHO hands over vmalloc memory.
//!
//! Source: `struct kho_vmalloc` in `include/linux/kho/abi/kexec_handover.h` of Linux 7.3. The
//! array's pages need not be contiguous; chunks, a page each, list their addresses. The array is
//! written and read page by page here, and never mapped.

use super::{Malformed, Page, Source, PAGE_SIZE};
use core::mem::size_of;
use zerocopy::FromBytes;
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The vmalloc area was made by vmalloc(), as opposed to vmap().
const FLAG_ALLOC: u16 = 1;
/// The vmalloc area may consist of pages of more than order 0.
const FLAG_HUGE: u16 = 2;

/// The largest order that the page allocator gives out.
const MAX_ORDER: u16 = 10;

/// Describes an array.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub(crate) struct VmallocSer {
    /// Physical address of the first [`Chunk`].
    pub(crate) first: u64,
    /// Number of pages of the array, of order 0 whatever `order` is.
    pub(crate) nr_pages: u32,
    /// How the vmalloc area was made.
    pub(crate) flags: u16,
    /// Order of the pages that the chunks list.
    pub(crate) order: u16,
}

/// How many addresses a chunk lists.
pub(crate) const CHUNK_CAPACITY: usize = PAGE_SIZE / size_of::<u64>() - 1;

/// A page that lists pages of the array.
#[repr(C)]
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
pub(crate) struct Chunk {
    /// Physical address of the next chunk, or 0.
    pub(crate) next: u64,
    /// Physical addresses of the array's pages, in order, up to the first 0.
    pub(crate) pages: [u64; CHUNK_CAPACITY],
}

const _: () = assert!(size_of::<VmallocSer>() == 16);
const _: () = assert!(size_of::<Chunk>() == PAGE_SIZE);

impl VmallocSer {
    /// An array of `nr_pages` single pages.
    pub(crate) const fn new(first: u64, nr_pages: u32) -> Self {
        Self {
            first,
            nr_pages,
            flags: FLAG_ALLOC,
            order: 0,
        }
    }

    /// Walks the chunks. `visit` gets each chunk's address and each of the array's pages, in order.
    ///
    /// Ends whatever the memory holds: there are never more chunks than `nr_pages` asks for.
    pub(crate) fn walk<S: Source, E: From<Malformed>>(
        &self,
        source: &S,
        scratch: &mut Page,
        mut visit: impl FnMut(Piece) -> Result<(), E>,
    ) -> Result<(), E> {
        if self.flags & !(FLAG_ALLOC | FLAG_HUGE) != 0 {
            return Err(Malformed::Field("vmalloc flags").into());
        }
        if self.order > MAX_ORDER {
            return Err(Malformed::Field("vmalloc order").into());
        }
        let per_entry = 1u32 << self.order;
        let mut left = self.nr_pages;
        let mut pa = self.first;
        // A chunk that is just full is followed by an empty one.
        while pa != 0 {
            if !source.read(pa, scratch) {
                return Err(Malformed::NotPreserved(pa).into());
            }
            let chunk =
                Chunk::ref_from_bytes(&scratch.0).map_err(|_| Malformed::NotPreserved(pa))?;
            visit(Piece::Chunk(pa))?;
            let full = chunk.pages.iter().all(|&page| page != 0);
            for &page in chunk.pages.iter().take_while(|&&page| page != 0) {
                left = left
                    .checked_sub(per_entry)
                    .ok_or(Malformed::Count(self.nr_pages.into()))?;
                visit(Piece::Pages(page))?;
            }
            pa = chunk.next;
            if pa != 0 && !full {
                return Err(Malformed::Field("vmalloc chunk").into());
            }
        }
        if left != 0 {
            return Err(Malformed::Count(self.nr_pages.into()).into());
        }
        Ok(())
    }
}

/// What [`VmallocSer::walk`] comes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    /// A chunk, at this physical address.
    Chunk(u64),
    /// Pages of the array, of the array's order, at this physical address.
    Pages(u64),
}

// SPDX-License-Identifier: GPL-2.0

//! Arrays over many preserved pages, as they are written: no large contiguous memory is needed.

use super::PreservedPage;
use crate::handover::{
    vmalloc::{Chunk, VmallocSer, CHUNK_CAPACITY},
    PAGE_SIZE,
};
use core::{marker::PhantomData, mem::size_of};
use kernel::prelude::*;
use zerocopy::{Immutable, KnownLayout};

/// An array that grows a page at a time and never moves.
///
/// # Invariants
///
/// Page `i` of `pages` is listed as number `i % CHUNK_CAPACITY` in chunk `i / CHUNK_CAPACITY` of
/// `chunks`, each of which points to the next.
pub(crate) struct PreservedArray<T> {
    pages: KVVec<PreservedPage>,
    chunks: KVVec<PreservedPage>,
    len: usize,
    _entries: PhantomData<T>,
}

impl<T: FromBytes + IntoBytes + Immutable + KnownLayout> PreservedArray<T> {
    const PER_PAGE: usize = PAGE_SIZE / size_of::<T>();

    /// An array of nothing, without memory.
    pub(crate) const fn new() -> Self {
        Self {
            pages: KVVec::new(),
            chunks: KVVec::new(),
            len: 0,
            _entries: PhantomData,
        }
    }

    /// Number of entries.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Appends an entry. On failure the array is as before.
    ///
    /// Context: may sleep.
    pub(crate) fn push(&mut self, value: &T) -> Result {
        if self.len == self.pages.len() * Self::PER_PAGE {
            self.grow()?;
        }
        self.len += 1;
        let last = self.get_mut(self.len - 1).ok_or(EINVAL)?;
        value.write_to(last).map_err(|_| EINVAL)
    }

    /// Takes back all entries from number `len` on.
    pub(crate) fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
        while self.pages.len() > self.len.div_ceil(Self::PER_PAGE) {
            self.pages.pop();
            let slot = self.pages.len() % CHUNK_CAPACITY;
            let last = self
                .chunks
                .last_mut()
                .and_then(|chunk| chunk_mut(chunk).ok());
            if let Some(listed) = last.and_then(|chunk| chunk.pages.get_mut(slot)) {
                *listed = 0;
            }
            if slot == 0 {
                self.chunks.pop();
                let last = self
                    .chunks
                    .last_mut()
                    .and_then(|chunk| chunk_mut(chunk).ok());
                if let Some(chunk) = last {
                    chunk.next = 0;
                }
            }
        }
    }

    /// Appends a page, and a chunk to list it where it takes one. On failure nothing has changed.
    fn grow(&mut self) -> Result {
        let slot = self.pages.len() % CHUNK_CAPACITY;
        self.pages.reserve(1, GFP_KERNEL_ACCOUNT)?;
        let page = PreservedPage::new()?;
        if slot == 0 {
            // The last step that can fail: a chunk without a page would be taken for that of the
            // pages before.
            let chunk = PreservedPage::new()?;
            let pa = chunk.phys();
            self.chunks.push(chunk, GFP_KERNEL_ACCOUNT)?;
            let before = self.chunks.len().checked_sub(2);
            if let Some(before) = before.and_then(|i| self.chunks.get_mut(i)) {
                chunk_mut(before)?.next = pa;
            }
        }
        let chunk = chunk_mut(self.chunks.last_mut().ok_or(EINVAL)?)?;
        *chunk.pages.get_mut(slot).ok_or(EINVAL)? = page.phys();
        self.pages.push(page, GFP_KERNEL_ACCOUNT)?;
        Ok(())
    }

    /// The bytes of entry `i`.
    fn get_mut(&mut self, i: usize) -> Option<&mut [u8]> {
        let page = self.pages.get_mut(i / Self::PER_PAGE)?;
        let start = i % Self::PER_PAGE * size_of::<T>();
        page.0.get_mut(start..start + size_of::<T>())
    }

    /// Iterates over the entries from number `start` on, in order.
    pub(crate) fn iter_from(&self, start: usize) -> impl Iterator<Item = &T> {
        let first = start / Self::PER_PAGE;
        let before = first * Self::PER_PAGE;
        self.pages
            .iter()
            .skip(first)
            .flat_map(|page| {
                let entries = <[T]>::ref_from_prefix_with_elems(&page.0, Self::PER_PAGE);
                entries.map_or(&[][..], |(entries, _)| entries)
            })
            .take(self.len.saturating_sub(before))
            .skip(start - before)
    }

    /// Describes the array to the next kernel.
    pub(crate) fn serialize(&self) -> Result<VmallocSer> {
        Ok(VmallocSer::new(
            self.chunks.first().map_or(0, PreservedPage::phys),
            u32::try_from(self.pages.len())?,
        ))
    }
}

/// Views a page as a chunk.
fn chunk_mut(page: &mut PreservedPage) -> Result<&mut Chunk> {
    Chunk::mut_from_bytes(&mut page.0).map_err(|_| EINVAL)
}

// SPDX-License-Identifier: GPL-2.0

//! A physical memory, of which KHO preserves some pages.

use crate::handover::{Page, Source, PAGE_SIZE};
use std::{cell::Cell, collections::BTreeMap};

/// Size of a page in bytes, as the address of the next one is computed.
const PAGE: u64 = PAGE_SIZE as u64;

/// A page to read into. What is in it must not matter.
pub(crate) fn scratch() -> Page {
    Page([0xff; PAGE_SIZE])
}

/// The memory that the previous kernel left.
///
/// Addresses are given out such that no single flipped bit makes one preserved address of another, or of 0: what is
/// found by a damaged address is nothing, and the damage cannot spread by chance.
#[derive(Default)]
pub struct Memory {
    /// Contents by physical address. Pages that are not here are zero.
    pages: BTreeMap<u64, Box<Page>>,
    /// What is preserved: the order by physical address.
    orders: BTreeMap<u64, u32>,
    /// Number of allocations so far.
    allocated: u64,
    /// How often [`Source::read`] was called.
    reads: Cell<u64>,
}

impl Memory {
    /// Allocates and preserves `1 << order` zeroed pages. Returns their physical address.
    pub fn allocate(&mut self, order: u32) -> u64 {
        assert!(order <= 11, "not aligned for more");
        self.allocated += 1;
        let number = self.allocated;
        // An even number of bits is set.
        let pfn = number << 12 | u64::from(number.count_ones() % 2) << 11;
        let pa = pfn * PAGE;
        self.orders.insert(pa, order);
        pa
    }

    /// Forgets that anything is preserved at `pa`.
    pub fn unpreserve(&mut self, pa: u64) {
        self.orders.remove(&pa);
    }

    /// The order of what is preserved at `pa`.
    pub fn order(&self, pa: u64) -> Option<u32> {
        self.orders.get(&pa).copied()
    }

    /// The addresses of all that is preserved, in order.
    pub fn preserved(&self) -> Vec<u64> {
        self.orders.keys().copied().collect()
    }

    /// The bytes of the page at `pa`, which need not be the first of what is preserved there.
    pub fn bytes(&self, pa: u64) -> &[u8; PAGE_SIZE] {
        self.pages.get(&pa).map_or(&Page::ZERO.0, |page| &page.0)
    }

    /// As [`Memory::bytes`], to write.
    pub fn bytes_mut(&mut self, pa: u64) -> &mut [u8; PAGE_SIZE] {
        &mut self.page_mut(pa).0
    }

    /// The page at `pa`, to write.
    pub(crate) fn page_mut(&mut self, pa: u64) -> &mut Page {
        self.pages.entry(pa).or_insert_with(|| Box::new(Page::ZERO))
    }

    /// Copies `bytes` to `offset` of the page at `pa`.
    pub fn put(&mut self, pa: u64, offset: usize, bytes: &[u8]) {
        self.bytes_mut(pa)[offset..offset + bytes.len()].copy_from_slice(bytes);
    }

    /// The integer at `offset` of the page at `pa`.
    pub fn word(&self, pa: u64, offset: usize) -> u64 {
        let bytes = &self.bytes(pa)[offset..offset + 8];
        u64::from_ne_bytes(bytes.try_into().expect("8 bytes"))
    }

    /// Flips bit number `bit` of the page at `pa`.
    pub fn flip(&mut self, pa: u64, bit: usize) {
        self.bytes_mut(pa)[bit / 8] ^= 1 << (bit % 8);
    }

    /// How often the memory was read since the last call.
    pub fn take_reads(&self) -> u64 {
        self.reads.take()
    }
}

impl Source for Memory {
    fn read(&self, pa: u64, into: &mut Page) -> bool {
        self.reads.set(self.reads.get() + 1);
        if !self.orders.contains_key(&pa) {
            return false;
        }
        into.0.copy_from_slice(self.bytes(pa));
        true
    }
}

// SPDX-License-Identifier: GPL-2.0

//! A physical memory, of which KHO preserves some pages.

use crate::handover::{Page, Source, PAGE_SIZE};
use rustc_hash::FxHashMap;
use std::cell::Cell;

/// Size of a page in bytes, as the address of the next one is computed.
const PAGE: u64 = PAGE_SIZE as u64;

/// A page to read into. What is in it must not matter.
pub(crate) fn scratch() -> Page {
    Page([0xff; PAGE_SIZE])
}

/// The memory that the previous kernel left.
pub struct Memory {
    /// Contents by physical address. Pages that are not here are zero.
    pages: FxHashMap<u64, Box<Page>>,
    /// What is preserved: the order by physical address.
    orders: FxHashMap<u64, u32>,
    /// Finds room for so many contiguous pages, and says at which address.
    find_room: Box<dyn FnMut(u64) -> u64>,
    /// How often [`Source::read`] was called.
    reads: Cell<u64>,
}

impl Default for Memory {
    /// A memory that there is only here.
    ///
    /// Addresses are given out such that no single flipped bit makes one preserved address of another, or of 0: what
    /// is found by a damaged address is nothing, and the damage cannot spread by chance.
    fn default() -> Self {
        let mut allocated = 0u64;
        Self::new(move |nr_pages| {
            assert!(nr_pages <= 1 << 11, "not aligned for more");
            allocated += 1;
            // An even number of bits is set.
            let pfn = allocated << 12 | u64::from(allocated.count_ones() % 2) << 11;
            pfn * PAGE
        })
    }
}

impl Memory {
    /// A memory whose pages are where `find_room` says. It is asked for a number of pages, to be aligned to the next
    /// power of two.
    pub fn new(find_room: impl FnMut(u64) -> u64 + 'static) -> Self {
        Self {
            pages: FxHashMap::default(),
            orders: FxHashMap::default(),
            find_room: Box::new(find_room),
            reads: Cell::new(0),
        }
    }

    /// Allocates and preserves `1 << order` zeroed pages. Returns their physical address.
    pub fn allocate(&mut self, order: u32) -> u64 {
        self.allocate_pages(1 << order)
    }

    /// Allocates and preserves so many zeroed pages. Returns their physical address.
    pub fn allocate_pages(&mut self, nr_pages: u64) -> u64 {
        let first = (self.find_room)(nr_pages);
        let mut pfn = first / PAGE;
        let end = pfn + nr_pages;
        while pfn < end {
            // As KHO cuts it.
            let order = pfn.trailing_zeros().min((end - pfn).ilog2());
            self.orders.insert(pfn * PAGE, order);
            pfn += 1 << order;
        }
        first
    }

    /// The same, with each page preserved by itself.
    pub fn allocate_single_pages(&mut self, nr_pages: u64) -> u64 {
        let first = (self.find_room)(nr_pages);
        let pages = (0..nr_pages).map(|i| (first + i * PAGE, 0));
        self.orders.extend(pages);
        first
    }

    /// Allocates a page that is not preserved.
    pub fn allocate_lost(&mut self) -> u64 {
        (self.find_room)(1)
    }

    /// Lets KHO preserve something of order `order` at `pa`, or nothing.
    pub fn set_order(&mut self, pa: u64, order: Option<u32>) {
        match order {
            Some(order) => self.orders.insert(pa, order),
            None => self.orders.remove(&pa),
        };
    }

    /// Forgets that anything is preserved at `pa`.
    pub fn unpreserve(&mut self, pa: u64) {
        self.set_order(pa, None);
    }

    /// The order of what is preserved at `pa`.
    pub fn order(&self, pa: u64) -> Option<u32> {
        self.orders.get(&pa).copied()
    }

    /// The addresses of all that is preserved, in order.
    pub fn preserved(&self) -> Vec<u64> {
        sorted(self.orders.keys())
    }

    /// The number of frames up to the last one that is preserved.
    pub fn nr_frames(&self) -> u64 {
        let ends = self
            .orders
            .iter()
            .map(|(pa, order)| pa / PAGE + (1 << order));
        ends.max().unwrap_or(0)
    }

    /// The addresses of all pages that something was written to, in order.
    pub fn written(&self) -> Vec<u64> {
        sorted(self.pages.keys())
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

fn sorted<'a>(addresses: impl Iterator<Item = &'a u64>) -> Vec<u64> {
    let mut all: Vec<_> = addresses.copied().collect();
    all.sort_unstable();
    all
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

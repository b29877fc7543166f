// SPDX-License-Identifier: GPL-2.0

//! A good handover in which something is broken: what a fuzzer's bytes mean.
//!
//! Bytes are read as a list of damage: so every input is a handover that is nearly right, and gets as far as its
//! damage lets it. What each of them may do is bounded by nothing but the pages that there are.

use crate::{
    example::{example, EDGES, FLBS},
    memory::Memory,
    reader::{self, Report},
    write::{self, Written},
};
use arbitrary::{Arbitrary, Unstructured};
use rustc_hash::FxHashMap;

/// The most that is broken at a time. More of it is less likely to be read.
const MOST: usize = 24;

/// A page of the description of the handover, by its number.
#[derive(Arbitrary, Clone, Copy, Debug)]
struct PageNumber(u8);

/// A word in a page.
#[derive(Arbitrary, Clone, Copy, Debug)]
struct Word(u16);

impl Word {
    /// Its offset, more often than not near the start of the page, where fields are.
    fn offset(self) -> usize {
        let word = usize::from(self.0);
        8 * match word >> 14 {
            0 | 1 => word % 16,
            2 => word % 128,
            _ => word % 512,
        }
    }
}

/// One thing that is broken.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum Damage {
    /// A word gets a value that is likely to do harm: one at the edge of a range, an address, or an entry with it.
    Value(PageNumber, Word, u16),
    /// A word gets any value.
    Any(PageNumber, Word, u64),
    /// A bit is flipped.
    Flip(PageNumber, Word, u8),
    /// A small number is added to a word, or to its upper half.
    Add(PageNumber, Word, i8, bool),
    /// A word becomes that of another place.
    Word(PageNumber, Word, PageNumber, Word),
    /// A page becomes as another one.
    Page(PageNumber, PageNumber),
    /// What is at an address is not preserved.
    Gone(u16),
    /// What is at an address is preserved in another size.
    Order(u16, u8),
}

/// A handover that is damaged, read, and mended.
pub struct Victim {
    memory: Memory,
    good: Memory,
    written: Written,
    /// The pages that something is written in: all but the users' data.
    pages: Vec<u64>,
    /// All that is preserved, with its order.
    preserved: FxHashMap<u64, u32>,
    addresses: Vec<u64>,
    values: Vec<u64>,
}

impl Default for Victim {
    /// The [example](example()), not damaged.
    fn default() -> Self {
        let write = || {
            let mut memory = Memory::default();
            let written = write::handover(&mut memory, 1, &example());
            write::flbs(&mut memory, written.root_pa, FLBS);
            (memory, written)
        };
        let (memory, written) = write();
        let (good, _) = write();
        let pages = memory.written();
        let addresses = memory.preserved();
        let frames = addresses.iter().map(|pa| pa >> 12);
        let values = EDGES.iter().chain(&addresses).copied();
        // Flags of a folio; of an extent that starts a range; of a placed range; of a table; of a frame in one.
        let flags = [3, 1 << 4, 1 << 4 | 1 << 5, 1 << 6, 1];
        let values = values
            .chain(frames.flat_map(|pfn| flags.map(|flags| pfn | flags << 52)))
            .collect();
        let preserved = addresses
            .iter()
            .filter_map(|&pa| Some((pa, memory.order(pa)?)))
            .collect();
        Self {
            memory,
            good,
            written,
            pages,
            preserved,
            addresses,
            values,
        }
    }
}

/// One of a list, by any number.
fn one(list: &[u64], number: u16) -> u64 {
    list[usize::from(number) % list.len()]
}

impl Victim {
    /// Breaks what `bytes` say, reads all, and mends it.
    ///
    /// # Panics
    ///
    /// If `handover` breaks a promise, or something was accepted that must not be.
    pub fn run(&mut self, bytes: &[u8]) -> Report {
        let mut bytes = Unstructured::new(bytes);
        // Bytes that end too early are zeroes.
        let list = std::iter::from_fn(|| match bytes.is_empty() {
            true => None,
            false => Damage::arbitrary(&mut bytes).ok(),
        });
        let list: Vec<_> = list.take(MOST).collect();
        let dirty: Vec<_> = list
            .iter()
            .filter_map(|damage| self.apply(damage))
            .collect();
        let report = reader::read(&self.memory, self.written.root_pa);
        for pa in dirty {
            match self.preserved.get(&pa) {
                Some(&order) => self.memory.set_order(pa, Some(order)),
                None => self.memory.set_order(pa, None),
            }
            if self.pages.contains(&pa) {
                *self.memory.bytes_mut(pa) = *self.good.bytes(pa);
            }
        }
        report
    }

    /// Does the damage, and returns where.
    fn apply(&mut self, damage: &Damage) -> Option<u64> {
        let page = |number: PageNumber| one(&self.pages, number.0.into());
        let (page, offset, word) = match *damage {
            Damage::Value(at, word, number) => (page(at), word.offset(), one(&self.values, number)),
            Damage::Any(at, word, value) => (page(at), word.offset(), value),
            Damage::Flip(at, word, bit) => {
                let (pa, offset) = (page(at), word.offset());
                let value = self.memory.word(pa, offset) ^ (1 << (bit % 64));
                (pa, offset, value)
            }
            Damage::Add(at, word, number, upper) => {
                let (pa, offset) = (page(at), word.offset());
                let number = i64::from(number) << if upper { 32 } else { 0 };
                let value = self.memory.word(pa, offset).wrapping_add_signed(number);
                (pa, offset, value)
            }
            Damage::Word(at, word, from, other) => {
                let value = self.memory.word(page(from), other.offset());
                (page(at), word.offset(), value)
            }
            Damage::Page(at, from) => {
                let (pa, from) = (page(at), page(from));
                *self.memory.bytes_mut(pa) = *self.good.bytes(from);
                return Some(pa);
            }
            Damage::Gone(number) => {
                let pa = one(&self.addresses, number);
                self.memory.unpreserve(pa);
                return Some(pa);
            }
            Damage::Order(number, order) => {
                let pa = one(&self.addresses, number);
                // What KHO preserves does not overlap: it would not be LUO that is damaged.
                let next = self.addresses.partition_point(|&other| other <= pa);
                let room = self
                    .addresses
                    .get(next)
                    .map_or(1 << 51, |next| (next - pa) >> 12);
                let order = u32::from(order) % (room.ilog2() + 1);
                self.memory.set_order(pa, Some(order));
                return Some(pa);
            }
        };
        self.memory.put(page, offset, &word.to_ne_bytes());
        Some(page)
    }
}

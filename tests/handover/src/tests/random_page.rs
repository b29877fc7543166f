// SPDX-License-Identifier: GPL-2.0

//! Pages that nobody wrote, but that look as if they meant something.

use crate::memory::Memory;
use chacha20::ChaCha8Rng;
use rand::{seq::IndexedRandom, RngExt};

/// What a page is for. Page number so many of the pool is for the use of that number, modulo [`USES`].
const ROOT: usize = 0;
const SESSIONS: usize = 1;
const FILES: usize = 2;
const MEMFD: usize = 3;
const CHUNK: usize = 4;
const FOLIOS: usize = 5;
const DATA: usize = 6;
/// Number of uses.
const USES: usize = 7;

/// Preserved pages that refer to each other.
pub(super) struct Pool {
    pages: Vec<u64>,
    /// What a field may hold besides what belongs there.
    values: Vec<u64>,
}

impl Pool {
    /// Allocates the pages.
    pub(super) fn new(memory: &mut Memory, edges: &[u64]) -> Self {
        let pages: Vec<_> = (0..4 * USES).map(|_| memory.allocate(0)).collect();
        let values = [edges, &pages].concat();
        Self { pages, values }
    }

    /// Fills one page anew.
    pub(super) fn refill(&self, memory: &mut Memory, rng: &mut ChaCha8Rng) {
        let number = rng.random_range(0..self.pages.len());
        let pa = self.pages[number];
        memory.bytes_mut(pa).fill(0);
        for (i, word) in self.words(number % USES, rng).iter().enumerate() {
            memory.put(pa, i * 8, &word.to_ne_bytes());
        }
        let strangers = *[0, 0, 0, 0, 0, 1, 2, 20].choose(rng).expect("some");
        for _ in 0..strangers {
            let word = rng.random_range(0..64);
            let value = match rng.random_ratio(1, 8) {
                true => rng.random(),
                false => *self.values.choose(rng).expect("some"),
            };
            memory.put(pa, word * 8, &value.to_ne_bytes());
        }
    }

    /// A page that may be a root.
    pub(super) fn root(&self, rng: &mut ChaCha8Rng) -> u64 {
        self.page(ROOT, rng)
    }

    /// A page, mostly one for that use.
    fn page(&self, usage: usize, rng: &mut ChaCha8Rng) -> u64 {
        match rng.random_ratio(1, 30) {
            true => *self.pages.choose(rng).expect("some"),
            false => self.pages[rng.random_range(0..4) * USES + usage],
        }
    }

    /// Now and then a page for that use, else 0.
    fn next(&self, usage: usize, rng: &mut ChaCha8Rng) -> u64 {
        match rng.random_ratio(1, 8) {
            true => self.page(usage, rng),
            false => 0,
        }
    }

    /// What might stand at the start of a page for that use.
    fn words(&self, usage: usize, rng: &mut ChaCha8Rng) -> Vec<u64> {
        let mut few = |most| rng.random_range(1..=most);
        let (one, count) = (few(2), few(4));
        let mut words = Vec::new();
        match usage {
            ROOT => {
                words.extend([u64::from_ne_bytes(*b"luo-v5\0\0"), rng.random()]);
                words.extend([self.page(SESSIONS, rng), self.next(DATA, rng)]);
            }
            SESSIONS => {
                words.extend([self.next(SESSIONS, rng), count]);
                for _ in 0..count {
                    words.extend([rng.random_range(1..1 << 24), 0, 0, 0, 0, 0, 0, 0]);
                    words.extend([self.page(FILES, rng), rng.random_range(1..3)]);
                }
            }
            FILES => {
                words.extend([self.next(FILES, rng), one]);
                for _ in 0..one {
                    words.extend([u64::from_ne_bytes(*b"memfd-v2"), 0, 0, 0, 0, 0]);
                    words.extend([self.page(MEMFD, rng), rng.random()]);
                }
            }
            MEMFD => {
                let size = rng.random_range(0..20 * 4096);
                words.extend([rng.random_range(0..4096), size, rng.random_range(0..64)]);
                words.extend([count - 1, self.page(CHUNK, rng), one | 1 << 32]);
            }
            CHUNK => {
                words.push(self.next(CHUNK, rng));
                words.extend((0..one).map(|_| self.page(FOLIOS, rng)));
            }
            FOLIOS => {
                let folio = |i| [self.page(DATA, rng) >> 12 | 3 << 52, i * 2];
                words.extend((0..count).flat_map(folio));
            }
            _ => words.push(rng.random()),
        }
        words
    }
}

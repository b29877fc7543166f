// SPDX-License-Identifier: GPL-2.0

//! Random damage to whole memories, round after round. The reader checks every invariant.
//!
//! The same seed gives the same rounds. On a panic the number of the round is printed.

use super::{random_page::Pool, EDGES};
use crate::{
    example::example,
    memory::Memory,
    reader,
    write::{self, Contents, Part, Session, Written},
};
use chacha20::ChaCha8Rng;
use rand::{seq::IndexedRandom, RngExt, SeedableRng};
use std::{env, fmt::Debug, str::FromStr};

/// The seed unless another is asked for.
const SEED: u64 = 0x6c75_6f2d_7635;

/// A memory that is damaged and mended.
struct Victim {
    memory: Memory,
    good: Memory,
    written: Written,
    /// What to write: numbers at the edge of what is allowed, and every address.
    values: Vec<u64>,
}

impl Victim {
    fn new(sessions: &[Session]) -> Self {
        let mut memory = Memory::default();
        let written = write::handover(&mut memory, 1, sessions);
        let mut good = Memory::default();
        write::handover(&mut good, 1, sessions);
        let mut values = EDGES.to_vec();
        for pa in memory.preserved() {
            values.extend([pa, pa >> 12 | 3 << 52]);
        }
        Self {
            memory,
            good,
            written,
            values,
        }
    }

    /// Writes something into one page, and returns its address.
    fn damage(&mut self, rng: &mut ChaCha8Rng) -> u64 {
        // Half of all pages hold user data, which nobody looks at.
        let &(pa, _) = loop {
            let part = self.written.parts.choose(rng).expect("some");
            let used = self.memory.bytes(part.0).iter().any(|&byte| byte != 0);
            if used || matches!(part.1, Part::Root) || rng.random_ratio(1, 50) {
                break part;
            }
        };
        let word = match rng.random_range(0..4) {
            0 => rng.random_range(0..512),
            1 => rng.random_range(0..32),
            _ => rng.random_range(0..8),
        };
        match rng.random_range(0..8) {
            0 => self.memory.flip(pa, word * 64 + rng.random_range(0..64)),
            1 => {
                let bytes = rng.random::<[u8; 64]>();
                self.memory.put(pa, word.min(500) * 8, &bytes[..]);
            }
            2 => {
                let near = rng.random_range(-3..=3i64);
                let value = self.memory.word(pa, word * 8).wrapping_add_signed(near);
                self.memory.put(pa, word * 8, &value.to_ne_bytes());
            }
            3 => {
                // Another page, of whatever kind, in place of this one.
                let &(other, _) = self.written.parts.choose(rng).expect("some");
                let bytes = *self.good.bytes(other);
                self.memory.put(pa, 0, &bytes);
            }
            _ => {
                let value = *self.values.choose(rng).expect("some");
                self.memory.put(pa, word * 8, &value.to_ne_bytes());
            }
        }
        pa
    }

    /// One round: some damage, all read, all mended. Returns whether anything was refused, and how many sessions
    /// could be used.
    fn round(&mut self, rng: &mut ChaCha8Rng) -> (bool, usize) {
        let pages: Vec<_> = (0..rng.random_range(1..5))
            .map(|_| self.damage(rng))
            .collect();
        let report = reader::read(&self.memory, self.written.root_pa);
        for pa in pages {
            self.memory.put(pa, 0, self.good.bytes(pa));
        }
        (!report.refused.is_empty(), report.sessions.len())
    }
}

/// Runs `rounds` rounds of both kinds.
fn stress(seed: u64, rounds: u64) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut victim = Victim::new(&example());
    let (mut refused, mut usable) = (0u64, 0u64);
    for round in 0..rounds {
        let _context = Context { seed, round };
        let (bad, sessions) = victim.round(&mut rng);
        refused += u64::from(bad);
        usable += sessions as u64;
    }
    println!("{rounds} damaged: {refused} with something refused, {usable} sessions usable");
    // Else the damage is not where it matters, or does too much.
    assert!(refused > rounds / 10 && usable > rounds);

    let mut memory = Memory::default();
    let pool = Pool::new(&mut memory, EDGES);
    let (mut usable, mut memfds, mut folios) = (0, 0, 0);
    for round in 0..rounds {
        let _context = Context { seed, round };
        pool.refill(&mut memory, &mut rng);
        let report = reader::read(&memory, pool.root(&mut rng));
        usable += report.sessions.len();
        let found = report.sessions.iter().flat_map(|it| &it.files);
        for memfd in found.filter_map(|it| it.kind.as_ref().ok()) {
            memfds += 1;
            folios += match &memfd.contents {
                Contents::Folios { folios, .. } => folios.len(),
                Contents::MixedFolios { folios, .. } => folios.len(),
                Contents::Ranges(_) | Contents::Tables { .. } => 0,
            };
        }
    }
    println!("{rounds} random: {usable} sessions, {memfds} memfds, {folios} folios usable");
    // Else what is random is refused before it gets interesting.
    assert!(usable > 0 && memfds > 0 && folios > 0);
}

/// Prints which round it is if that panics.
struct Context {
    seed: u64,
    round: u64,
}

impl Drop for Context {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("LUO_STRESS_SEED={}, round {}", self.seed, self.round);
        }
    }
}

/// A number from the environment.
fn variable<T: FromStr<Err: Debug>>(name: &str, default: T) -> T {
    env::var(name).map_or(default, |text| text.parse().expect(name))
}

#[test]
fn stress_rounds() {
    let rounds = variable("LUO_STRESS_ITERATIONS", 400);
    stress(variable("LUO_STRESS_SEED", SEED), rounds);
}

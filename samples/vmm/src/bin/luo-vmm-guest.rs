// SPDX-License-Identifier: GPL-2.0

//! What runs in the guest, as process 1: it counts, keeps its memory busy, and says so on the console.
//!
//! A thread on each processor goes through memory of its own without a pause. It looks whether every word is what it
//! wrote the last time, and writes another. Ten times a second a line tells the count, that the memory was right so
//! far, and how long the guest stood still since the line before.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Memory of each thread.
const BYTES: usize = 8 << 20;
const TICK: Duration = Duration::from_millis(100);

/// What the threads have done.
#[derive(Default)]
struct Progress {
    passes: AtomicU64,
    wrong: AtomicU64,
}

fn main() {
    // Once in its life.
    println!("guest: up");
    let progress = Arc::new(Progress::default());
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    for seed in 0..processors as u64 {
        let progress = progress.clone();
        std::thread::spawn(move || work(seed, &progress));
    }
    let mut last = Instant::now();
    for count in 1u64.. {
        std::thread::sleep(TICK);
        let now = Instant::now();
        let since = now.duration_since(last).as_millis();
        last = now;
        let passes = progress.passes.load(Ordering::Relaxed);
        let wrong = progress.wrong.load(Ordering::Relaxed);
        println!(
            "guest: count {count}, {processors} processors, {passes} passes, {wrong} words wrong, \
             {since} ms since the last"
        );
    }
}

/// Never ends.
fn work(seed: u64, progress: &Progress) {
    let word = |pass: u64, index: usize| mix(seed << 56 ^ pass << 32 ^ index as u64);
    let mut memory: Vec<u64> = (0..BYTES / 8).map(|index| word(0, index)).collect();
    for pass in 1.. {
        for (index, value) in memory.iter_mut().enumerate() {
            // To the compiler it is plain what must be there.
            let seen = std::hint::black_box(*value);
            if seen != word(pass - 1, index) {
                progress.wrong.fetch_add(1, Ordering::Relaxed);
            }
            *value = word(pass, index);
        }
        progress.passes.fetch_add(1, Ordering::Relaxed);
    }
}

/// A word that depends on every bit of another (splitmix64).
fn mix(seed: u64) -> u64 {
    let mut word = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

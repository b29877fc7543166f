// SPDX-License-Identifier: GPL-2.0

//! Sorting extents by where they are: in memory when they are preserved, in the file when they are
//! retrieved.
//!
//! A guest with gigabytes of memory may have a million extents, in any order.
//! `core`'s sort recurses with more stack than a kernel thread has, and `lib/sort.c` takes twenty
//! comparisons an extent. Frames and offsets are small numbers, so a few passes over them do.
//!
//! Pure: `core` only, also compiled and tested on the host.

use core::mem::swap;

/// Bits of a key that one pass looks at.
const BITS: u32 = 11;

/// How many items are looked at without a pause.
pub(crate) const PIECE: usize = 1 << 16;

/// How many counters [`sort`] needs.
pub(crate) const NR_COUNTERS: usize = 1 << BITS;

/// Sorts `items` by `key`, with `scratch` of the same length. `between` is called before each
/// [`PIECE`] of them in each pass; its error ends the sort, with the items in any order, but all of
/// them: what they own must not be lost, or owned twice.
///
/// A radix sort from the least significant digit on (Knuth, TAOCP 3, 5.2.5), which leaves out the
/// digits that all keys have in common.
pub(crate) fn sort<T: Copy, E>(
    items: &mut [T],
    scratch: &mut [T],
    counters: &mut [u32; NR_COUNTERS],
    key: impl Fn(&T) -> u64,
    mut between: impl FnMut() -> Result<(), E>,
) -> Result<(), E> {
    let (mut low, mut high) = (u64::MAX, 0);
    for piece in items.chunks(PIECE) {
        between()?;
        for item in piece {
            low = low.min(key(item));
            high = high.max(key(item));
        }
    }
    let nr_bits = u64::BITS - high.saturating_sub(low).leading_zeros();
    let (mut from, mut to) = (items, scratch);
    let mut nr_passes = 0;
    let mut done = Ok(());
    for shift in (0..nr_bits).step_by(BITS as usize) {
        let digit = |item: &T| ((key(item) - low) >> shift) as usize % NR_COUNTERS;
        done = pass(from, to, counters, digit, &mut between);
        if done.is_err() {
            break;
        }
        swap(&mut from, &mut to);
        nr_passes += 1;
    }
    if nr_passes % 2 == 1 {
        // What the last whole pass has made is in what was the scratch.
        to.copy_from_slice(from);
    }
    done
}

/// Copies `from` to `to` in the order of `digit`; those with equal digits stay in order. On failure
/// `to` is of no use.
fn pass<T: Copy, E>(
    from: &[T],
    to: &mut [T],
    counters: &mut [u32; NR_COUNTERS],
    digit: impl Fn(&T) -> usize,
    between: &mut impl FnMut() -> Result<(), E>,
) -> Result<(), E> {
    counters.fill(0);
    for piece in from.chunks(PIECE) {
        between()?;
        for item in piece {
            if let Some(counter) = counters.get_mut(digit(item)) {
                *counter += 1;
            }
        }
    }
    // From how many there are to where the first one goes.
    let mut place = 0;
    for counter in counters.iter_mut() {
        place += core::mem::replace(counter, place);
    }
    for piece in from.chunks(PIECE) {
        between()?;
        for item in piece {
            let Some(counter) = counters.get_mut(digit(item)) else {
                continue;
            };
            if let Some(slot) = to.get_mut(*counter as usize) {
                *slot = *item;
            }
            *counter += 1;
        }
    }
    Ok(())
}

// SPDX-License-Identifier: GPL-2.0

//! Sorting what a memfd has millions of.

use super::radix;
use crate::task;
use kernel::{alloc::Flags, prelude::*};

/// Sorts `items` by `key`, which is quick where they are sorted already. On failure they are in any
/// order: `ENOMEM`, as it takes as much memory again, from `flags`, or `EINTR` when the task was killed.
///
/// Context: may sleep, and yields the CPU.
pub(super) fn by_key<T: Copy>(items: &mut [T], flags: Flags, key: impl Fn(&T) -> u64) -> Result {
    if items.is_sorted_by_key(&key) {
        return Ok(());
    }
    let mut counters = KBox::new([0; radix::NR_COUNTERS], flags)?;
    let mut scratch = KVVec::new();
    scratch.extend_from_slice(items, flags)?;
    radix::sort(items, &mut scratch, &mut counters, key, task::yield_cpu)
}

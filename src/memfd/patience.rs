// SPDX-License-Identifier: GPL-2.0

//! Waiting for memory where to go without it would lose the user's.

use kernel::{
    alloc::AllocError,
    time::{delay::fsleep, Delta},
};

/// How often an allocation is tried again, each time after a millisecond more: for half a minute.
const ATTEMPTS: i64 = 250;

/// Allocates something, and tries again for long if there is no memory, be the task killed or not: what
/// was taken over from the previous kernel is lost to everybody if this fails.
///
/// Context: may sleep.
pub(super) fn insist<T>(
    mut allocate: impl FnMut() -> Result<T, AllocError>,
) -> Result<T, AllocError> {
    for millis in 0..ATTEMPTS {
        if let Ok(allocated) = allocate() {
            return Ok(allocated);
        }
        fsleep(Delta::from_millis(millis));
    }
    allocate()
}

// SPDX-License-Identifier: GPL-2.0

//! The task that this runs for, and what it owes to others.

use crate::fault;
use kernel::{bindings, prelude::*};

/// Lets others run. Fails with `EINTR` when the task was killed.
///
/// Context: may sleep.
pub(crate) fn yield_cpu() -> Result {
    fault::point()?;
    // SAFETY: The current task is valid; nothing is locked that forbids to sleep.
    unsafe {
        if bindings::fatal_signal_pending(bindings::get_current()) != 0 {
            return Err(EINTR);
        }
        bindings::cond_resched();
    }
    Ok(())
}

// SPDX-License-Identifier: GPL-2.0

//! Waiting for memory where to go without it would lose the user's.

use kernel::{
    alloc::AllocError,
    time::{delay::fsleep, Delta},
};

/// How long is waited for memory, in all of a call.
pub(super) struct Patience {
    /// In milliseconds.
    left: i64,
    /// The last wait.
    pause: i64,
}

impl Patience {
    /// Where nothing is lost, so that the caller can try again.
    pub(super) const fn none() -> Self {
        Self::millis(0)
    }

    /// Where memory is kept in vain: the caller may be a process that ends.
    pub(super) const fn short() -> Self {
        Self::millis(100)
    }

    /// Where a memfd is lost, which somebody waits for. Others wait for the session's lock meanwhile.
    pub(super) const fn long() -> Self {
        Self::millis(30_000)
    }

    const fn millis(left: i64) -> Self {
        Self { left, pause: 0 }
    }

    /// Allocates something; if there is no memory, tries again each time after a millisecond more.
    ///
    /// That the task is killed does not end this: for single pages it makes no difference, and what is
    /// larger may come to be had.
    ///
    /// Context: may sleep.
    pub(super) fn insist<T>(
        &mut self,
        mut allocate: impl FnMut() -> Result<T, AllocError>,
    ) -> Result<T, AllocError> {
        loop {
            match allocate() {
                Err(_) if self.left > 0 => {}
                done => return done,
            }
            self.pause += 1;
            self.left -= self.pause;
            fsleep(Delta::from_millis(self.pause));
        }
    }
}

// SPDX-License-Identifier: GPL-2.0

//! Waiting for memory, and how long for.

use kernel::{
    alloc::AllocError,
    time::{delay::fsleep, Delta},
};

/// How long is waited for memory, in all of a call.
pub(super) struct Patience {
    /// In milliseconds.
    left: i64,
    /// The next wait, each of which takes a millisecond more.
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

    /// Where a folio is in somebody's use, which is soon over: 30 waits.
    pub(super) const fn for_user() -> Self {
        Self::millis(435)
    }

    /// Where a memfd is lost, which somebody waits for. Others wait for the session's lock meanwhile.
    pub(super) const fn long() -> Self {
        Self::millis(30_000)
    }

    const fn millis(left: i64) -> Self {
        Self { left, pause: 0 }
    }

    /// Waits a little. Returns false if it is time to give up instead.
    ///
    /// Context: may sleep.
    pub(super) fn wait(&mut self) -> bool {
        if self.left <= 0 {
            return false;
        }
        fsleep(Delta::from_millis(self.pause));
        self.left -= self.pause;
        self.pause += 1;
        true
    }

    /// Allocates something; if there is no memory, waits and tries again.
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
                Err(_) if self.wait() => {}
                done => return done,
            }
        }
    }
}

// SPDX-License-Identifier: GPL-2.0

//! Runs of ones in words of bits: of page frames that follow one another.
//!
//! Pure: `core` only, also compiled and tested on the host.

use core::{mem::replace, ops::Range};

/// Finds runs, one after the other.
pub(crate) struct RunFinder {
    /// What was found last, and may go on.
    last: Range<u64>,
}

impl RunFinder {
    /// Begins before the first word.
    pub(crate) const fn new() -> Self {
        Self { last: 0..0 }
    }

    /// Goes on with a word, whose lowest bit is number `start`: no number of a word before is higher.
    /// Calls `visit` with each run that ended.
    #[inline]
    pub(crate) fn advance<E>(
        &mut self,
        start: u64,
        word: u64,
        visit: &mut impl FnMut(Range<u64>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut left = word;
        while left != 0 {
            // The lowest ones, up to the next zero. A carry takes them away.
            let first = left.trailing_zeros();
            let nr = (left >> first).trailing_ones();
            left &= left.wrapping_add(1 << first);

            let next = start + u64::from(first);
            if next != self.last.end {
                let ended = replace(&mut self.last, next..next);
                if !ended.is_empty() {
                    visit(ended)?;
                }
            }
            self.last.end += u64::from(nr);
        }
        Ok(())
    }

    /// The last run, after all words. Empty if there was none.
    pub(crate) fn finish(self) -> Range<u64> {
        self.last
    }
}

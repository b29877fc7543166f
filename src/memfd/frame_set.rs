// SPDX-License-Identifier: GPL-2.0

//! Sets of page frames, to find out which of them are neighbours.
//!
//! A guest has millions of pages, in any order. To sort their frames takes several passes, and memory
//! for two copies of them: here they are a bit each.

use super::{radix::PIECE, runs::RunFinder};
use crate::task;
use core::ops::Range;
use kernel::prelude::*;

/// Words in a leaf. Larger ones would be mostly empty where the memory is large and the file small.
const LEAF_WORDS: usize = 64;

/// The bits of frames that follow one another.
type Leaf = [u64; LEAF_WORDS];

/// Frames in a leaf.
const LEAF_FRAMES: u64 = LEAF_WORDS as u64 * u64::BITS as u64;

/// How many leaves have as many frames as are looked at without a pause.
const LEAVES: usize = PIECE / LEAF_FRAMES as usize;

/// A set of page frames.
pub(super) struct FrameSet {
    /// The first frame of the first leaf.
    low: u64,
    /// A leaf that is not there has no frame.
    leaves: KVVec<Option<KBox<Leaf>>>,
}

impl FrameSet {
    /// The set of `frames`.
    ///
    /// Fails with `EINTR` when the task was killed. Context: may sleep, and yields the CPU.
    pub(super) fn new(frames: &[u64]) -> Result<Self> {
        let (mut low, mut high) = (u64::MAX, 0);
        for frames in frames.chunks(PIECE) {
            task::yield_cpu()?;
            for &frame in frames {
                low = low.min(frame);
                high = high.max(frame);
            }
        }
        let mut set = Self {
            low: low / LEAF_FRAMES * LEAF_FRAMES,
            leaves: KVVec::new(),
        };
        let span = high.saturating_sub(set.low);
        for leaf in 0..=span / LEAF_FRAMES {
            if leaf % PIECE as u64 == 0 {
                task::yield_cpu()?;
            }
            set.leaves.push(None, GFP_KERNEL_ACCOUNT)?;
        }
        for frames in frames.chunks(PIECE) {
            task::yield_cpu()?;
            for &frame in frames {
                set.insert(frame)?;
            }
        }
        Ok(set)
    }

    /// Adds a frame that is not below the lowest, or above the highest.
    #[inline]
    fn insert(&mut self, frame: u64) -> Result {
        let at = (frame - self.low) as usize;
        let (at, bit) = (at / u64::BITS as usize, at % u64::BITS as usize);
        let leaf = self.leaves.get_mut(at / LEAF_WORDS).ok_or(EINVAL)?;
        let leaf = match leaf {
            Some(leaf) => leaf,
            None => leaf.insert(KBox::new([0; LEAF_WORDS], GFP_KERNEL_ACCOUNT)?),
        };
        if let Some(word) = leaf.get_mut(at % LEAF_WORDS) {
            *word |= 1 << bit;
        }
        Ok(())
    }

    /// Calls `visit` with each run of frames that follow one another, in order; of no frames, with an
    /// empty one.
    ///
    /// Fails with `EINTR` when the task was killed. Context: may sleep, and yields the CPU.
    pub(super) fn for_each_run(&self, mut visit: impl FnMut(Range<u64>) -> Result) -> Result {
        let mut runs = RunFinder::new();
        let starts = (self.low..).step_by(LEAF_FRAMES as usize);
        for (i, (start, leaf)) in starts.zip(self.leaves.iter()).enumerate() {
            if i % LEAVES == 0 {
                task::yield_cpu()?;
            }
            let words = leaf.iter().flat_map(|leaf| leaf.iter());
            for (start, &word) in (start..).step_by(u64::BITS as usize).zip(words) {
                runs.advance(start, word, &mut visit)?;
            }
        }
        visit(runs.finish())
    }
}

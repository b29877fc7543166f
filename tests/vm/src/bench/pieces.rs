// SPDX-License-Identifier: GPL-2.0

//! In how many pieces of memory a mapping lies.

use crate::frames;
use anyhow::Result;

/// What is known about the frames of a mapping.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Pieces {
    /// Pieces that are contiguous in physical memory.
    pub count: i64,
    /// Aligned powers of two of pages that these can be cut into.
    pub keys: i64,
}

impl Pieces {
    /// Looks at the pages of a mapping that begins at `address`. `None` if one of them is not mapped.
    pub fn find(address: usize, pages: &[u32]) -> Result<Option<Self>> {
        let last = pages.iter().max().map_or(0, |&last| last as usize + 1);
        let all = frames::of_mapping(address, last)?;
        let mut frames: Vec<_> = pages.iter().map(|&page| all[page as usize]).collect();
        if frames.contains(&0) {
            return Ok(None);
        }
        frames.sort_unstable();
        Ok(Some(Self::of(&frames)))
    }

    /// Those of these frames, which are in ascending order.
    fn of(frames: &[u64]) -> Self {
        let mut pieces = Self::default();
        let mut rest = frames;
        while let [first, ..] = *rest {
            let contiguous = (first..)
                .zip(rest)
                .take_while(|(wanted, got)| wanted == *got);
            let (piece, behind) = rest.split_at(contiguous.count());
            rest = behind;
            pieces.count += 1;
            let (mut at, end) = (first, first + piece.len() as u64);
            while at < end {
                at += 1 << at.trailing_zeros().min((end - at).ilog2());
                pieces.keys += 1;
            }
        }
        pieces
    }
}

#[cfg(test)]
mod tests {
    use super::Pieces;

    #[test]
    fn pieces_are_counted_and_cut() {
        let of = |frames: &[u64]| {
            let Pieces { count, keys } = Pieces::of(frames);
            (count, keys)
        };
        assert_eq!(of(&[]), (0, 0));
        assert_eq!(of(&[8, 9, 10, 11]), (1, 1));
        // 7, 8..12, 12: alignment forces three.
        assert_eq!(of(&[7, 8, 9, 10, 11, 12]), (1, 3));
        assert_eq!(of(&[1, 3, 4, 5, 9]), (3, 4));
        assert_eq!(of(&[0, 1]), (1, 1));
    }
}

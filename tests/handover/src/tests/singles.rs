// SPDX-License-Identifier: GPL-2.0

//! The frames of a table that are of single pages, found without looking at each of them.

use crate::{
    handover::table::{all_singles, singles, FrameSer, TABLE_FRAMES},
    reader::check_singles,
};
use proptest::prelude::*;
use zerocopy::FromBytes;

const PLACED: u64 = 1 << 52;
const LAST: u64 = (1 << 52) - 1;

fn frames(words: &[u64]) -> Vec<FrameSer> {
    let frame = |word: &u64| FrameSer::read_from_bytes(&word.to_ne_bytes()).unwrap();
    words.iter().map(frame).collect()
}

/// A table of single pages, of which one slot is something else.
fn damaged(slot: usize, word: u64) -> Vec<FrameSer> {
    let mut words: Vec<_> = (1000..).take(TABLE_FRAMES).collect();
    words[slot] = word;
    frames(&words)
}

#[test]
fn all_of_them() {
    for words in [vec![5], vec![5, LAST], (1..513).collect()] {
        let frames = frames(&words);
        assert_eq!(all_singles(&frames), Some(&words[..]));
        let runs: Vec<_> = singles(&frames).collect();
        assert_eq!(runs, [&words[..]]);
    }
}

/// Each flag in each of these slots: one that is missed would have something else taken over as a page.
#[test]
fn one_slot_of_another_kind() {
    for slot in [0, 1, 255, 256, 510, 511] {
        for bit in 52..64 {
            for pfn in [0, 7, LAST] {
                let frames = damaged(slot, pfn | 1 << bit);
                assert_eq!(all_singles(&frames), None, "bit {bit} of slot {slot}");
            }
        }
        for word in [0, 1, LAST] {
            let frames = damaged(slot, word);
            let found = all_singles(&frames).expect("frames alone");
            assert_eq!(found[slot], word);
        }
        let frames = damaged(slot, 7 | PLACED);
        let runs: Vec<_> = singles(&frames).map(<[_]>::len).collect();
        let wanted = [slot, TABLE_FRAMES - 1 - slot];
        let wanted: Vec<_> = wanted.into_iter().filter(|&len| len != 0).collect();
        assert_eq!(runs, wanted);
    }
}

#[test]
fn runs() {
    let words = [1, 2, 3 | PLACED, 4 | PLACED, 5, 6 | PLACED, 7, 8, 9];
    let frames = frames(&words);
    let runs: Vec<_> = singles(&frames).collect();
    assert_eq!(runs, [&[1, 2][..], &[5], &[7, 8, 9]]);
    let none = [3 | PLACED, 4 | PLACED];
    assert_eq!(singles(&self::frames(&none)).count(), 0);
}

proptest! {
    /// Any words: what is told of all at once is what is told of each.
    #[test]
    fn any(words in prop::collection::vec(
        prop_oneof![
            16 => 1..=LAST,
            8 => (1..=LAST).prop_map(|pfn| pfn | PLACED),
            1 => prop::sample::select(vec![0, PLACED, 1 << 53, 1 << 63]),
            1 => 0..=u64::MAX,
        ],
        1..24,
    )) {
        check_singles(&frames(&words));
    }
}

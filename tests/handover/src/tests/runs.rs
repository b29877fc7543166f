// SPDX-License-Identifier: GPL-2.0

//! Runs of ones in words of bits.

use crate::runs::RunFinder;
use proptest::prelude::*;
use std::{collections::BTreeSet, convert::Infallible};

/// Start and end of the runs in words, each of which comes with the number of its lowest bit.
fn runs(words: &[(u64, u64)]) -> Vec<(u64, u64)> {
    let mut found = Vec::new();
    let mut runs = RunFinder::new();
    for &(start, word) in words {
        let done: Result<(), Infallible> = runs.advance(start, word, &mut |run| {
            found.push((run.start, run.end));
            Ok(())
        });
        done.unwrap();
    }
    let last = runs.finish();
    if !last.is_empty() {
        found.push((last.start, last.end));
    }
    found
}

#[test]
fn edges() {
    assert_eq!(runs(&[]), []);
    assert_eq!(runs(&[(64, 0)]), []);
    assert_eq!(runs(&[(64, 1)]), [(64, 65)]);
    assert_eq!(runs(&[(64, 1 << 63)]), [(127, 128)]);
    assert_eq!(runs(&[(64, u64::MAX)]), [(64, 128)]);
    assert_eq!(runs(&[(0, 0b1011)]), [(0, 2), (3, 4)]);
}

#[test]
fn go_on_in_the_next_word() {
    assert_eq!(runs(&[(64, 1 << 63), (128, 1)]), [(127, 129)]);
    assert_eq!(runs(&[(64, 1 << 63), (128, 2)]), [(127, 128), (129, 130)]);
    assert_eq!(runs(&[(64, !1), (128, u64::MAX), (192, 3)]), [(65, 194)]);
    // There are words between that have nothing.
    assert_eq!(
        runs(&[(64, u64::MAX), (192, u64::MAX)]),
        [(64, 128), (192, 256)]
    );
}

#[test]
fn end_when_told_to() {
    let mut runs = RunFinder::new();
    assert_eq!(runs.advance(0, 0b101, &mut |run| Err(run)), Err(0..1));
}

/// The same by going through all numbers.
fn counted(numbers: &BTreeSet<u64>) -> Vec<(u64, u64)> {
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for &number in numbers {
        match runs.last_mut() {
            Some((_, end)) if *end == number => *end += 1,
            _ => runs.push((number, number + 1)),
        }
    }
    runs
}

proptest! {
    #[test]
    fn any(words in prop::collection::vec(
        prop_oneof![Just(0u64), Just(u64::MAX), 0..=u64::MAX, (0u32..64).prop_map(|n| u64::MAX << n)],
        0..20,
    )) {
        let words: Vec<(u64, u64)> = (128..).step_by(64).zip(words).collect();
        let ones = |&(start, word): &(u64, u64)| {
            (0..64).filter(move |bit| word >> bit & 1 == 1).map(move |bit| start + bit)
        };
        prop_assert_eq!(runs(&words), counted(&words.iter().flat_map(ones).collect()));
    }
}

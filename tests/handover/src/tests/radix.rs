// SPDX-License-Identifier: GPL-2.0

//! The sort of extents.

use crate::{
    handover::extent::Extent,
    radix::{sort, NR_COUNTERS},
};
use proptest::prelude::*;

fn extent(pfn: u64, index: u64) -> Extent {
    Extent {
        pfn,
        index,
        nr_pages: 1,
        order: 0,
    }
}

/// Sorts, until the sort has asked `calls` times whether to go on.
fn sort_until(extents: &mut [Extent], calls: usize) -> Result<(), &'static str> {
    let mut scratch = extents.to_vec();
    // What was left in the counters does not matter.
    let mut counters = [7; NR_COUNTERS];
    let mut left = calls;
    sort(
        extents,
        &mut scratch,
        &mut counters,
        |extent| extent.pfn,
        || {
            left = left.checked_sub(1).ok_or("killed")?;
            Ok(())
        },
    )
}

fn sorted(mut extents: Vec<Extent>) -> Vec<Extent> {
    sort_until(&mut extents, usize::MAX).unwrap();
    extents
}

fn check(extents: Vec<Extent>) {
    let mut wanted = extents.clone();
    wanted.sort_by_key(|extent| extent.pfn);
    assert_eq!(sorted(extents), wanted);
}

#[test]
fn few() {
    check(vec![]);
    check(vec![extent(9, 0)]);
    check(vec![extent(9, 0), extent(9, 1)]);
    check(vec![extent(9, 0), extent(8, 1)]);
    check(vec![
        extent((1 << 52) - 1, 0),
        extent(1, 1),
        extent(1 << 51, 2),
    ]);
}

/// So many that a pass looks at as many bits as it can.
#[test]
fn many() {
    for step in [1, 7, 12_345, (1 << 52) / 10_000] {
        let pfns = (0..10_000u64).map(|i| 1000 + i * 7919 % 10_000 * step);
        check((0..).zip(pfns).map(|(i, pfn)| extent(pfn, i)).collect());
    }
}

/// One pass, two, three: the result is in the same place.
#[test]
fn each_number_of_passes() {
    for bits in [1, 10, 11, 12, 22, 23, 33, 34, 52] {
        let step = (1u64 << bits) / 50;
        let frames = (0..50).rev().map(|i| 1000 + i * step.max(1) % (1 << bits));
        check(
            frames
                .enumerate()
                .map(|(i, pfn)| extent(pfn, i as u64))
                .collect(),
        );
    }
}

#[test]
fn ends_when_told_to() {
    let mut extents = vec![extent(1 << 40, 0), extent(1, 1)];
    assert_eq!(sort_until(&mut extents, 1), Err("killed"));
}

/// Items own something: whenever the sort ends, each of them is there once.
#[test]
#[cfg_attr(miri, ignore = "many sorts of many items")]
fn loses_nothing_when_told_to_end() {
    const NR: u64 = 140_000;
    let extents: Vec<_> = (0..NR).map(|i| extent(1 + i * 7919 % NR * 9, i)).collect();
    for end in 0.. {
        let mut items = extents.clone();
        let done = sort_until(&mut items, end);
        items.sort_by_key(|extent| extent.index);
        assert!(items == extents, "ended by call {end}");
        if done.is_ok() {
            assert!(end > 10, "{end} calls are too few to tell anything");
            break;
        }
    }
}

proptest! {
    #[test]
    fn any(frames in prop::collection::vec(
        prop_oneof![0u64..100, 1u64 << 20..1 << 22, 0u64..1 << 52],
        0..300,
    )) {
        check(frames.into_iter().enumerate().map(|(i, pfn)| extent(pfn, i as u64)).collect());
    }
}

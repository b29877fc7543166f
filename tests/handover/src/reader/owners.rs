// SPDX-License-Identifier: GPL-2.0

//! Checks that nobody was given what is not theirs.

use super::{Frames, Report};
use crate::{handover::PAGE_SIZE, memory::Memory};
use rustc_hash::FxHashSet;

/// Checks that every frame that a user would get is preserved, that nobody else got it, and that it is no page of the
/// account or of a description. That no page of the account is of two chains.
pub(super) fn check(memory: &Memory, report: &Report) {
    let mut all: Vec<_> = report.data.iter().map(|(_, _, frames)| frames).collect();
    all.sort_unstable();
    // Up to where frames were given out, and up to where those are preserved.
    let (mut given, mut covered) = (0, 0);
    for frames in &all {
        let pfn = frames.pfn;
        assert!(pfn >= given, "frame {pfn:#x} was given out twice");
        if pfn > given {
            assert_eq!(covered, given, "not all of a preservation was given out");
            covered = pfn;
        }
        given = pfn + frames.nr_pages;
        while covered < given {
            let order = memory.order(covered * PAGE_SIZE as u64);
            let order = order.unwrap_or_else(|| panic!("frame {covered:#x} is not preserved"));
            covered += 1 << order;
        }
    }
    assert_eq!(covered, given, "not all of a preservation was given out");

    let mut account = FxHashSet::default();
    for &pa in &report.account {
        assert!(account.insert(pa), "{pa:#x} was read for two chains");
        assert!(!is_in(&all, pa), "{pa:#x} of the account was given out");
    }
    let mut descriptions: Vec<_> = report.descriptions.iter().map(|(_, _, pa)| *pa).collect();
    descriptions.sort_unstable();
    for &pa in &descriptions {
        assert!(!is_in(&all, pa), "{pa:#x} of a description was given out");
        let is_account = account.contains(&pa);
        assert!(!is_account, "{pa:#x} is of the account and a description");
    }
    for pair in descriptions.windows(2) {
        assert_ne!(pair[0], pair[1], "a page of two descriptions");
    }
}

/// Whether the page at `pa` is among these frames, which are sorted and do not overlap.
fn is_in(all: &[&Frames], pa: u64) -> bool {
    let pfn = pa / PAGE_SIZE as u64;
    let behind = all.partition_point(|frames| frames.pfn <= pfn);
    let last = all[..behind].last();
    last.is_some_and(|frames| pfn < frames.pfn + frames.nr_pages)
}

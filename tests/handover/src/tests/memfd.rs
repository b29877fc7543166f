// SPDX-License-Identifier: GPL-2.0

//! The description of a memfd.

use super::EDGES;
use crate::handover::{memfd::MemfdSer, vmalloc::VmallocSer, Malformed};
use proptest::prelude::*;

/// A good description.
pub(super) fn memfd(size: u64, nr_entries: u64, nr_pages: u32) -> MemfdSer {
    MemfdSer {
        pos: 0,
        size,
        seals: 0,
        flags: 0,
        nr_entries,
        entries: VmallocSer::new(0x1000, nr_pages),
    }
}

const MAX: u64 = i64::MAX as u64;

#[test]
fn position_and_size() {
    for &value in EDGES {
        let mut it = memfd(4096, 1, 1);
        it.pos = value;
        let expected = match value {
            ..=MAX => Ok(()),
            _ => Err(Malformed::Field("memfd position")),
        };
        assert_eq!(it.validate(0), expected);
        let expected = match value {
            ..=MAX => Ok(()),
            _ => Err(Malformed::Field("memfd size")),
        };
        assert_eq!(memfd(value, 1, 1).validate(0), expected);
    }
}

#[test]
fn flags_and_seals() {
    for bit in 0..32 {
        let mut it = memfd(4096, 1, 1);
        it.flags = 1 << bit;
        assert_eq!(it.validate(0), Err(Malformed::Field("memfd flags")));
        // Unknown seals are for the caller to refuse: that has an errno of its own.
        let mut it = memfd(4096, 1, 1);
        it.seals = 1 << bit;
        assert_eq!(it.validate(0), Ok(()));
    }
}

#[test]
fn number_of_folios() {
    for (nr_entries, nr_pages, good) in [
        (0, 0, true),
        (0, u32::MAX, true),
        (1, 0, false),
        (1, 1, true),
        (256, 1, true),
        (257, 1, false),
        (257, 2, true),
        (u64::from(u32::MAX) * 256, u32::MAX, true),
        (u64::from(u32::MAX) * 256 + 1, u32::MAX, false),
        (u64::MAX, u32::MAX, false),
        (u64::MAX, 0, false),
        // The product with the size of an entry overflows.
        (1 << 60, 1, false),
    ] {
        let expected = if good {
            Ok(())
        } else {
            Err(Malformed::Count(nr_entries))
        };
        let it = memfd(4096, nr_entries, nr_pages);
        assert_eq!(it.validate(0), expected);
    }
    // Nothing of the array counts if there are no folios.
    let mut it = memfd(4096, 0, 0);
    it.entries = VmallocSer {
        first: !0,
        nr_pages: 0,
        flags: !0,
        order: !0,
    };
    assert_eq!(it.validate(0), Ok(()));
}

#[test]
fn number_of_pages() {
    for (size, nr_pages) in [
        (0, 0),
        (1, 1),
        (4095, 1),
        (4096, 1),
        (4097, 2),
        (MAX, 1 << 51),
    ] {
        assert_eq!(memfd(size, 0, 0).nr_pages(), nr_pages);
    }
}

proptest! {
    /// Any description at all: what is accepted is within bounds, and nothing panics.
    #[test]
    fn any_description(
        pos in prop_oneof![any::<u64>(), prop::sample::select(EDGES)],
        size in prop_oneof![any::<u64>(), prop::sample::select(EDGES)],
        flags in prop_oneof![4 => Just(0), 1 => any::<u32>()],
        nr_entries in prop_oneof![any::<u64>(), prop::sample::select(EDGES)],
        nr_pages in any::<u32>(),
    ) {
        let it = MemfdSer { pos, flags, ..memfd(size, nr_entries, nr_pages) };
        let good = pos <= MAX
            && size <= MAX
            && flags == 0
            && u128::from(nr_entries) * 16 <= u128::from(nr_pages) * 4096;
        prop_assert_eq!(it.validate(0).is_ok(), good);
    }
}

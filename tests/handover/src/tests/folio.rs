// SPDX-License-Identifier: GPL-2.0

//! The folios of a memfd.

use super::memfd::memfd;
use crate::{
    handover::{
        memfd::{Folio, FolioCheck, FolioSer, MemfdSer},
        Malformed,
    },
    reader::check_folio,
};
use proptest::prelude::*;
use zerocopy::FromBytes;

/// A memfd of so many pages.
fn pages(nr_pages: u64) -> MemfdSer {
    memfd(nr_pages * 4096, 1, 1)
}

/// An entry with any flags.
fn entry(pfn: u64, flags: u64, index: u64) -> FolioSer {
    let words = [pfn | flags << 52, index];
    FolioSer::read_from_bytes(words.map(u64::to_ne_bytes).as_flattened()).unwrap()
}

/// Checks entries one after another: index and order of each, and whether it is good.
fn check(memfd: &MemfdSer, entries: &[(u64, u32, bool)]) {
    let check = FolioCheck::new(memfd);
    for &(index, order, good) in entries {
        let got = check.check(&FolioSer::new(1, index), order);
        assert_eq!(got.is_ok(), good, "index {index:#x} order {order}: {got:?}");
    }
}

/// What was a hole when the file was preserved, and was filled then, comes last.
#[test]
fn any_order() {
    check(
        &pages(4096),
        &[
            (8, 3, true),
            (0, 0, true),
            (512, 9, true),
            (4, 2, true),
            (4095, 0, true),
            (16, 4, true),
        ],
    );
}

#[test]
fn alignment() {
    check(
        &pages(4096),
        &[
            (1, 1, false),
            (2, 2, false),
            (256, 9, false),
            (511, 9, false),
            (2, 1, true),
            (511, 0, true),
            (513, 9, false),
            (512, 9, true),
        ],
    );
}

#[test]
fn end_of_the_file() {
    check(&pages(0), &[(0, 0, false)]);
    check(
        &pages(1),
        &[(1, 0, false), (u64::MAX, 0, false), (0, 0, true)],
    );
    // A folio may reach beyond the end, as after truncation, but not begin there.
    check(&pages(3), &[(2, 1, true), (3, 0, false), (4, 2, false)]);
    check(&pages(1), &[(0, 9, true)]);
    let last = (1 << 51) - 1;
    let largest = memfd(i64::MAX as u64, 1, 1);
    check(&largest, &[(last + 1, 0, false), (last, 0, true)]);
}

#[test]
fn huge_orders() {
    for order in [10, 11, 31, 32, 63, 64, 65, 127, 128, u32::MAX] {
        let got = FolioCheck::new(&pages(1)).check(&FolioSer::new(1, 0), order);
        assert_eq!(got, Err(Malformed::Field("folio order")));
    }
}

#[test]
fn flags() {
    for (flags, uptodate) in [
        (0, Some(false)),
        (1, Some(false)),
        (2, Some(true)),
        (3, Some(true)),
        (4, None),
        (7, None),
        (1 << 11, None),
        (0xfff, None),
    ] {
        let got = FolioCheck::new(&pages(1)).check(&entry(5, flags, 0), 0);
        match uptodate {
            None => assert_eq!(got, Err(Malformed::Field("folio flags"))),
            Some(uptodate) => assert_eq!(
                got,
                Ok(Folio {
                    pfn: 5,
                    index: 0,
                    order: 0,
                    uptodate
                })
            ),
        }
    }
}

/// The frame number is kept whatever the flags, at its largest too.
#[test]
fn frame_numbers() {
    for pfn in [0, 1, 1 << 51, (1 << 52) - 1] {
        for flags in [0, 3, 0xfff] {
            assert_eq!(entry(pfn, flags, 9).pfn(), pfn);
            assert_eq!(entry(pfn, flags, 9).index(), 9);
        }
        let new = FolioSer::new(pfn, 9);
        assert_eq!((new.pfn(), new.index()), (pfn, 9));
    }
}

proptest! {
    /// Folios in order with any holes between them: all are good, and come out as they went in.
    #[test]
    fn good_folios(list in prop::collection::vec((0u64..2000, 0u32..10, any::<bool>()), 1..60)) {
        let mut free = 0u64;
        let folios: Vec<_> = list
            .into_iter()
            .map(|(hole, order, uptodate)| {
                let index = (free + hole).next_multiple_of(1 << order);
                free = index + (1 << order);
                Folio { pfn: index + 7, index, order, uptodate }
            })
            .collect();
        let last = folios.last().unwrap();
        let it = pages(last.index + 1);
        let check = FolioCheck::new(&it);
        for folio in &folios {
            let flags = 1 | u64::from(folio.uptodate) << 1;
            prop_assert_eq!(check.check(&entry(folio.pfn, flags, folio.index), folio.order), Ok(*folio));
        }
    }

    /// Any entries in any order: those that are accepted keep the invariants, pair by pair.
    #[test]
    fn any_folios(
        nr_pages in 0u64..64,
        list in prop::collection::vec(
            (
                any::<u64>(),
                prop_oneof![6 => 0u64..4, 1 => any::<u64>()],
                prop_oneof![9 => 0u64..70, 1 => any::<u64>()],
                prop_oneof![9 => 0u32..5, 1 => any::<u32>()],
            ),
            0..80,
        ),
    ) {
        let it = pages(nr_pages);
        let check = FolioCheck::new(&it);
        for (pfn, flags, index, order) in list {
            let entry = entry(pfn & ((1 << 52) - 1), flags & 0xfff, index);
            let good = flags & 0xfff < 4
                && order < 10
                && index < nr_pages
                && index % (1 << order) == 0;
            match check.check(&entry, order) {
                Ok(folio) => {
                    prop_assert!(good);
                    check_folio(&it, &entry, order, &folio);
                }
                Err(why) => {
                    prop_assert!(!good, "{why:?}");
                }
            }
        }
    }
}

// SPDX-License-Identifier: GPL-2.0

//! The extents of a memfd, and the keys that they are preserved by.

use super::{assert_bytes, memfd::memfd};
use crate::handover::{
    extent::{Entry, Extent, ExtentCheck, ExtentSer, KeyWalk},
    memfd::MemfdSer,
    Malformed,
};
use proptest::prelude::*;
use zerocopy::FromBytes;

/// A memfd of so many pages.
pub(super) fn pages(nr_pages: u64) -> MemfdSer {
    memfd(nr_pages * 4096, 1, 1)
}

/// An entry of any words.
pub(super) fn raw(pfn: u64, flags: u64, index: u32, nr_pages: u32) -> ExtentSer {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&(pfn | flags << 52).to_ne_bytes());
    bytes[8..12].copy_from_slice(&index.to_ne_bytes());
    bytes[12..].copy_from_slice(&nr_pages.to_ne_bytes());
    ExtentSer::read_from_bytes(&bytes).unwrap()
}

/// What is checked of an extent.
fn checked(extent: Extent, starts_range: bool) -> Result<Entry, Malformed> {
    Ok(Entry::Pages {
        extent,
        is_placed: false,
        starts_range,
    })
}

pub(super) fn run(pfn: u64, index: u64, nr_pages: u64) -> Extent {
    Extent {
        pfn,
        index,
        nr_pages,
        order: 0,
    }
}

pub(super) const RANGE: u64 = 1 << 4;
const INDEX: Malformed = Malformed::Field("extent index");
pub(super) const BORDER: Malformed = Malformed::Field("extent range");

#[test]
fn layout() {
    let entry = ExtentSer::new(&run(0x12345, 7, 9))
        .unwrap()
        .starting_range(true);
    assert_bytes(
        &entry,
        &[
            0x45, 0x23, 0x01, 0, 0, 0, 0x00, 0x01, 7, 0, 0, 0, 9, 0, 0, 0,
        ],
    );
    let huge = ExtentSer::new(&Extent::folio(0x200, 0x400, 9))
        .unwrap()
        .starting_range(true);
    assert_bytes(
        &huge,
        &[0, 2, 0, 0, 0, 0, 0x90, 0x01, 0, 4, 0, 0, 0, 2, 0, 0],
    );
    assert_eq!(huge.extent(), Extent::folio(0x200, 0x400, 9));
    assert!(ExtentSer::new(&run(1, 1 << 32, 1)).is_none());
    assert!(ExtentSer::new(&run(1, 0, 1 << 32)).is_none());
}

#[test]
fn each_field() {
    let good = |it: Result<Entry, Malformed>| it.map(drop);
    for (entry, nr_pages, wanted) in [
        (raw(5, RANGE, 0, 1), 1, Ok(())),
        (raw(5, RANGE, 0, 2), 1, Err(INDEX)),
        (raw(5, RANGE, 1, 1), 1, Err(INDEX)),
        (raw(5, RANGE, 0, 0), 1, Err(INDEX)),
        (raw(5, RANGE, 0, 1), 0, Err(INDEX)),
        (
            raw(5, RANGE, u32::MAX, u32::MAX),
            u64::from(u32::MAX) * 2,
            Ok(()),
        ),
        (
            raw(0, RANGE, 0, 1),
            1,
            Err(Malformed::Field("extent frame")),
        ),
        (raw((1 << 52) - 1, RANGE, 0, 1), 2, Ok(())),
        (
            raw((1 << 52) - 1, RANGE, 0, 2),
            2,
            Err(Malformed::Field("extent frame")),
        ),
        (
            raw(5, RANGE | 1 << 7, 0, 1),
            1,
            Err(Malformed::Field("extent flags")),
        ),
        (
            raw(5, 0xfff, 0, 1),
            1,
            Err(Malformed::Field("extent flags")),
        ),
        // The first of all starts a range.
        (raw(5, 0, 0, 1), 1, Err(BORDER)),
        // A large folio may reach beyond the end, but not begin there, and is all of its size.
        (raw(512, RANGE | 9, 0, 512), 1, Ok(())),
        (raw(512, RANGE | 9, 512, 512), 512, Err(INDEX)),
        (raw(512, RANGE | 9, 512, 512), 513, Ok(())),
        (raw(512, RANGE | 9, 256, 512), 1024, Err(INDEX)),
        (raw(512, RANGE | 9, 0, 511), 1024, Err(INDEX)),
        (raw(512, RANGE | 9, 0, 1), 1024, Err(INDEX)),
    ] {
        let memfd = MemfdSer {
            size: nr_pages * 4096,
            ..pages(1)
        };
        let got = good(ExtentCheck::new(&memfd).next(&entry));
        assert_eq!(got, wanted, "{:?} of {nr_pages} pages", entry.extent());
    }
}

#[test]
fn a_range_adjoins() {
    let memfd = pages(1000);
    let mut check = ExtentCheck::new(&memfd);
    assert!(check.next(&raw(100, RANGE, 50, 10)).is_ok());
    // Whatever is between them in the file.
    assert_eq!(
        check.next(&raw(110, 0, 7, 5)),
        checked(run(110, 7, 5), false)
    );
    assert_eq!(check.next(&raw(116, 0, 60, 5)), Err(BORDER));
    // What was refused does not count.
    assert!(check.next(&raw(115, 0, 60, 1)).is_ok());
    // A large folio is never part of a range, nor followed by one.
    assert_eq!(check.next(&raw(116, 1, 62, 2)), Err(BORDER));
    assert!(check.next(&raw(116, RANGE | 1, 62, 2)).is_ok());
    assert_eq!(check.next(&raw(118, 0, 64, 2)), Err(BORDER));
}

#[test]
fn merging() {
    let mut it = run(10, 20, 5);
    assert!(!it.merge(&run(15, 26, 1)), "elsewhere in the file");
    assert!(!it.merge(&run(16, 25, 1)), "elsewhere in memory");
    assert!(!it.merge(&Extent::folio(15, 25, 1)), "a large folio");
    assert_eq!(it, run(10, 20, 5));
    assert!(it.merge(&run(15, 25, 3)));
    assert_eq!(it, run(10, 20, 8));
    let mut folio = Extent::folio(16, 0, 2);
    assert!(!folio.merge(&run(20, 4, 1)));
    let mut largest = run(1, 0, u32::MAX.into());
    assert!(
        !largest.merge(&run(1 << 32, u32::MAX.into(), 1)),
        "too large"
    );
}

/// The orders of a range's keys, as KHO cuts it.
fn keys(pfn: u64, end: u64) -> Vec<(u64, u32)> {
    let mut keys = Vec::new();
    let mut at = pfn;
    while at < end {
        let order = at.trailing_zeros().min((end - at).ilog2());
        keys.push((at, order));
        at += 1 << order;
    }
    keys
}

/// Follows extents over these keys; gives the frames that were asked for.
fn follow(extents: &[(Extent, bool)], keys: &[(u64, u32)]) -> Result<Vec<u64>, Malformed> {
    let mut walk = KeyWalk::new();
    let mut asked = Vec::new();
    for (extent, starts_range) in extents {
        walk.advance(extent, *starts_range, |pfn| {
            asked.push(pfn);
            keys.iter()
                .find(|(at, _)| *at == pfn)
                .map(|(_, order)| *order)
                .ok_or(Malformed::NotPreserved(pfn))
        })?;
    }
    walk.finish()?;
    Ok(asked)
}

/// What is listed again and again does not make the walk long: there cannot be more pages than frames.
#[test]
fn one_range_many_times() {
    let mut walk = KeyWalk::new();
    let mut asked = 0;
    let again = (0..2000).try_for_each(|_| {
        walk.advance(&run(1000, 0, 31), true, |_| {
            asked += 1;
            Ok::<_, Malformed>(0)
        })
    });
    assert_eq!(again, Err(Malformed::Field("extents that overlap")));
    assert!(asked <= 1031 + 31, "asked {asked} times");
}

#[test]
fn keys_beyond_a_range() {
    // The key at 8 has eight pages, the range four.
    let short = [(run(8, 0, 4), true)];
    assert_eq!(follow(&short, &[(8, 3)]), Err(BORDER));
    let then = [(run(8, 0, 4), true), (run(32, 9, 1), true)];
    assert_eq!(follow(&then, &[(8, 3), (32, 0)]), Err(BORDER));
    let whole = [(run(8, 0, 4), true), (run(12, 9, 4), false)];
    assert_eq!(follow(&whole, &[(8, 3)]), Ok(vec![8]));
    assert_eq!(follow(&whole, &[(8, 2)]), Err(Malformed::NotPreserved(12)));
    // Orders that no machine has.
    for order in [52, 63, 64, u32::MAX] {
        assert!(follow(&whole, &[(8, order)]).is_err());
    }
}

#[test]
fn keys_of_large_folios() {
    let folio = [(Extent::folio(16, 0, 2), true)];
    assert_eq!(follow(&folio, &[(16, 2)]), Ok(vec![16]));
    for order in [0, 1, 3] {
        assert!(follow(&folio, &[(16, order)]).is_err(), "order {order}");
    }
}

proptest! {
    /// Whatever order a file was populated in: the ranges are covered by KHO's keys, each asked for once.
    #[test]
    fn any_population(
        lengths in prop::collection::vec((1u64..40, 0u64..3), 1..40),
        seed in any::<prop::sample::Index>(),
    ) {
        // Extents in memory, with gaps between some of them; in the file in some rotated order.
        let mut pfn = 1000;
        let mut extents: Vec<Extent> = Vec::new();
        for (nr_pages, gap) in lengths {
            pfn += gap;
            extents.push(run(pfn, 0, nr_pages));
            pfn += nr_pages;
        }
        let start = seed.index(extents.len());
        let mut index = 0;
        for i in 0..extents.len() {
            let at = (i + start) % extents.len();
            extents[at].index = index;
            index += extents[at].nr_pages;
        }
        let memfd = pages(index);
        let mut check = ExtentCheck::new(&memfd);
        let mut list = Vec::new();
        let mut wanted = Vec::new();
        for (i, extent) in extents.iter().enumerate() {
            let starts_range = i == 0 || !extents[i - 1].adjoins(extent);
            if starts_range {
                let end = extents[i..].windows(2).find(|pair| !pair[0].adjoins(&pair[1]));
                let end = end.map_or(extents.last().unwrap().end_pfn(), |pair| pair[0].end_pfn());
                wanted.extend(keys(extent.pfn, end));
            }
            let entry = ExtentSer::new(extent).unwrap().starting_range(starts_range);
            let got = check.next(&entry);
            prop_assert_eq!(got, checked(*extent, starts_range));
            list.push((*extent, starts_range));
        }
        let asked: Vec<_> = wanted.iter().map(|(pfn, _)| *pfn).collect();
        prop_assert_eq!(follow(&list, &wanted), Ok(asked));
    }

    /// Any bytes: what is accepted is within the file, and nothing panics.
    #[test]
    fn any_entries(
        nr_pages in prop_oneof![0u64..1000, Just(1u64 << 32), Just((1u64 << 33) - 2)],
        list in prop::collection::vec(any::<(u64, u32, u32)>(), 1..20),
        small in any::<bool>(),
        order in 0u32..70,
    ) {
        let memfd = MemfdSer { size: nr_pages * 4096, ..pages(1) };
        let mut check = ExtentCheck::new(&memfd);
        let mut walk = KeyWalk::new();
        for (word, index, count) in list {
            let (index, count) = if small { (index % 1000, count % 600) } else { (index, count) };
            let entry = raw(word & ((1 << 52) - 1), word >> 52, index, count);
            let (extent, starts_range) = match check.next(&entry) {
                Ok(Entry::Pages { extent, is_placed: false, starts_range }) => (extent, starts_range),
                Ok(Entry::Pages { extent, .. }) => {
                    prop_assert!(extent.index == 0 && extent.order == 0 && extent.nr_pages > 0);
                    prop_assert!(extent.end_pfn() <= 1 << 52);
                    continue;
                }
                Ok(Entry::Table(table)) => {
                    prop_assert!(table.end_index() <= nr_pages && table.index % 512 == 0);
                    prop_assert!(table.nr_pages == 512 && table.order == 0);
                    continue;
                }
                Err(_) => continue,
            };
            prop_assert!(extent.index < nr_pages && extent.nr_pages > 0);
            prop_assert!(extent.order != 0 || extent.end_index() <= nr_pages);
            prop_assert!(extent.end_pfn() <= 1 << 52);
            let mut asked = 0;
            // However many pages an extent has: with keys this small the walk would be long.
            if count < 4096 {
                let _ = walk.advance(&extent, starts_range, |_| {
                    asked += 1;
                    Ok::<_, Malformed>(order)
                });
                prop_assert!(asked <= 4096);
            }
        }
    }
}

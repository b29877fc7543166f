// SPDX-License-Identifier: GPL-2.0

//! What there is to be damaged.

use crate::write::{Contents, File, Memfd, Range, Session, Slot, Table};

/// Values that a field of 64 bits is most likely to be mishandled at.
pub const EDGES: &[u64] = &[
    0,
    1,
    2,
    49,
    50,
    51,
    62,
    63,
    64,
    255,
    256,
    257,
    511,
    512,
    4095,
    4096,
    1 << 32,
    (1 << 32) + 1,
    i64::MAX as u64 - 1,
    i64::MAX as u64,
    1 << 63,
    (1 << 63) + 1,
    u64::MAX - 1,
    u64::MAX,
];

/// The FLBs of the example: compatible string, data, number of files.
pub const FLBS: &[(&str, u64, u64)] = &[("test-x", 0x1000, 2), ("test-y", 7, 1)];

/// Six memfds over four sessions, in both encodings, with and without an array and tables, and a fifth session with
/// many files.
pub fn example() -> Vec<Session> {
    let memfd = |contents| Memfd {
        pos: 77,
        size: 4096 * 4096,
        seals: 9,
        contents,
    };
    let folios = |folios: &[(u64, u32)], array_order| {
        memfd(Contents::Folios {
            folios: folios.to_vec(),
            array_order,
        })
    };
    let many: Vec<_> = (0..258).map(|i| (i * 4, i as u32 % 3)).collect();
    let range = |order, extents: &[(u64, u64)]| Range {
        order,
        extents: extents.to_vec(),
    };
    let scattered: Vec<_> = (0..256).map(|i| (1000 + 7 * i, 1 + i % 6)).collect();
    let few = [
        range(0, &[(8, 5), (100, 1), (0, 8)]),
        range(9, &[(512, 512)]),
        range(0, &[(99, 1)]),
    ];
    let mixed = Contents::MixedFolios {
        folios: vec![(0, 9, true), (512, 0, false), (516, 2, true)],
        array_order: 0,
    };
    let kinds = [
        vec![Ok(memfd(mixed)), Err(5)],
        vec![Ok(folios(&many, 1)), Ok(folios(&[], 0))],
        vec![
            Ok(memfd(Contents::Ranges(few.to_vec()))),
            Ok(memfd(Contents::Ranges(vec![range(0, &scattered)]))),
        ],
        vec![Ok(memfd(tables()))],
        (0..65).map(Err).collect(),
    ];
    let files = |kinds: &[Result<Memfd, u64>]| {
        let files = kinds.iter().cloned().enumerate();
        files
            .map(|(i, kind)| File {
                token: i as u64,
                kind,
            })
            .collect()
    };
    ["one", "two", "three", "four", "five"]
        .into_iter()
        .zip(&kinds)
        .map(|(name, kinds)| Session {
            name: name.into(),
            files: files(kinds),
        })
        .collect()
}

/// Two tables with pages of both kinds, among extents: the pages of two placed ranges are in both tables, and not in
/// the order of memory. A third one has single pages only.
pub fn tables() -> Contents {
    let placed = [500, 260];
    let mut pages = placed
        .iter()
        .enumerate()
        .flat_map(|(range, &nr_pages)| (0..nr_pages).map(move |page| Slot::Placed(range, page)))
        .rev();
    let mut slot = |i: u64| match i % 4 {
        0 => Slot::Single,
        _ => pages.next().unwrap_or(Slot::Single),
    };
    let mut table = |index| Table {
        index,
        slots: (0..512).map(&mut slot).collect(),
    };
    let singles = Table {
        index: 3584,
        slots: vec![Slot::Single; 512],
    };
    let tables = vec![table(512), table(3072), singles];
    let range = |order, extents: &[(u64, u64)]| Range {
        order,
        extents: extents.to_vec(),
    };
    Contents::Tables {
        ranges: vec![
            range(0, &[(0, 3), (511, 1)]),
            range(3, &[(2048, 8)]),
            range(0, &[(1024, 40)]),
        ],
        placed: placed.to_vec(),
        tables,
    }
}

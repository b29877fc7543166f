// SPDX-License-Identifier: GPL-2.0

//! Arrays as they should not be.

use super::{
    array::{pages, walk},
    Stop, EDGES,
};
use crate::{
    handover::{
        vmalloc::{Piece, VmallocSer, CHUNK_CAPACITY},
        Malformed,
    },
    memory::{scratch, Memory},
    write,
};
use proptest::prelude::*;
use std::collections::BTreeSet;

/// More pages than announced, or fewer: no page beyond the number is given out.
#[test]
fn counts() {
    let mut memory = Memory::default();
    let (array, all) = pages(&mut memory, 600);
    for nr_pages in [0, 1, 510, 511, 512, 599, 601, 1 << 20, u32::MAX] {
        let array = VmallocSer { nr_pages, ..array };
        let (_, found, ended) = walk(&memory, &array);
        assert_eq!(ended, Err(Malformed::Count(nr_pages.into())));
        let given = (nr_pages as usize).min(600);
        assert_eq!(found, all[..given]);
    }
}

/// Pages of an order that does not divide the number of pages.
#[test]
fn count_between_orders() {
    let mut memory = Memory::default();
    let (array, all) = pages(&mut memory, 3);
    for nr_pages in [2 * 4 + 1, 2 * 4 + 3, 3 * 4 - 1] {
        let array = VmallocSer {
            nr_pages,
            order: 2,
            ..array
        };
        let (_, found, ended) = walk(&memory, &array);
        assert_eq!(found, all[..2]);
        assert_eq!(ended, Err(Malformed::Count(nr_pages.into())));
    }
}

/// Orders and flags that there are none of: nothing is read.
#[test]
fn orders_and_flags() {
    let mut memory = Memory::default();
    let (array, _) = pages(&mut memory, 3);
    for order in (11..=64).chain([0xff, 0x100, 0x8000, u16::MAX]) {
        let array = VmallocSer { order, ..array };
        let why = Err(Malformed::Field("vmalloc order"));
        assert_eq!(walk(&memory, &array), (vec![], vec![], why));
    }
    for flags in (2..16).map(|bit| 1 << bit).chain([u16::MAX]) {
        let array = VmallocSer { flags, ..array };
        let why = Err(Malformed::Field("vmalloc flags"));
        assert_eq!(walk(&memory, &array), (vec![], vec![], why));
    }
    assert_eq!(memory.take_reads(), 0);
    for flags in 0..4 {
        let array = VmallocSer { flags, ..array };
        assert_eq!(walk(&memory, &array).2, Ok(()));
    }
}

/// A chunk that is not full, or empty, must be the last.
#[test]
fn chunks_after_the_end() {
    for count in [0, 1, 510] {
        let mut memory = Memory::default();
        let (array, all) = pages(&mut memory, count);
        let other = memory.allocate(0);
        for next in [array.first, other, 0x3000, u64::MAX] {
            write::link(&mut memory, array.first, next);
            memory.take_reads();
            let (chunks, found, ended) = walk(&memory, &array);
            assert_eq!((chunks, found), (vec![array.first], all.clone()));
            assert_eq!(ended, Err(Malformed::Field("vmalloc chunk")));
            assert_eq!(memory.take_reads(), 1);
        }
    }
}

/// A list of pages ends at its first 0: what stands after it is not given out, and no chunk may follow.
#[test]
fn pages_after_the_end() {
    let mut memory = Memory::default();
    let (array, all) = pages(&mut memory, 1022);
    let array = VmallocSer {
        nr_pages: 300,
        ..array
    };
    memory.put(array.first, 8 + 8 * 300, &[0; 8]);
    let (_, found, ended) = walk(&memory, &array);
    assert_eq!(found, all[..300]);
    assert_eq!(ended, Err(Malformed::Field("vmalloc chunk")));
    write::link(&mut memory, array.first, 0);
    let (_, found, ended) = walk(&memory, &array);
    assert_eq!((found, ended), (all[..300].to_vec(), Ok(())));
}

/// Cycles of full chunks, of every length up to a few: the number of pages bounds the walk.
#[test]
fn cycles() {
    for len in 1..5u32 {
        let mut memory = Memory::default();
        let (array, _) = pages(&mut memory, len * CHUNK_CAPACITY as u32);
        let chunks = memory.preserved();
        write::link(&mut memory, chunks[len as usize - 1], chunks[0]);
        for nr_pages in [0, 1, 511, 512, 10_000] {
            let array = VmallocSer { nr_pages, ..array };
            let (_, found, ended) = walk(&memory, &array);
            assert_eq!(found.len() as u32, nr_pages);
            assert_eq!(ended, Err(Malformed::Count(nr_pages.into())));
            assert!(memory.take_reads() <= u64::from(nr_pages) / 511 + 1);
        }
    }
}

/// The most that an array can ask for, in a circle: it ends by itself, and at once with a visitor that takes nothing
/// twice, as the module's does.
#[test]
#[cfg_attr(miri, ignore = "so many chunks take it an hour")]
fn the_largest_cycle() {
    let mut memory = Memory::default();
    let (array, _) = pages(&mut memory, CHUNK_CAPACITY as u32);
    write::link(&mut memory, array.first, array.first);
    let array = VmallocSer {
        nr_pages: u32::MAX,
        order: 10,
        ..array
    };
    let mut found = 0;
    let ended = array.walk(&memory, &mut scratch(), |piece| {
        found += u32::from(matches!(piece, Piece::Pages(_)));
        Ok(())
    });
    assert_eq!(ended, Err(Malformed::Count(u32::MAX.into())));
    assert_eq!(found, u32::MAX >> 10);
    assert_eq!(memory.take_reads(), (u64::from(u32::MAX) >> 10) / 511 + 1);

    let mut taken = BTreeSet::new();
    let array = VmallocSer { order: 0, ..array };
    let ended = array.walk(&memory, &mut scratch(), |piece| match piece {
        Piece::Chunk(pa) if !taken.insert(pa) => Err(Stop::Own),
        _ => Ok(()),
    });
    assert_eq!(ended, Err(Stop::Own));
    assert_eq!(memory.take_reads(), 2);
}

/// An address of nothing, in each chunk and for the first, or a chunk cut off: all before it is used.
#[test]
fn addresses() {
    let mut memory = Memory::default();
    let (array, all) = pages(&mut memory, 1100);
    let chunks = memory.preserved();
    for &bad in EDGES.iter().filter(|&&pa| pa != 0) {
        let missing = Err(Malformed::NotPreserved(bad));
        let nowhere = VmallocSer {
            first: bad,
            ..array
        };
        assert_eq!(walk(&memory, &nowhere), (vec![], vec![], missing));
        for i in 0..2 {
            write::link(&mut memory, chunks[i], bad);
            let (found_chunks, found, ended) = walk(&memory, &array);
            assert_eq!(found_chunks, chunks[..=i]);
            assert_eq!(found, all[..(i + 1) * 511]);
            assert_eq!(ended, missing);
            write::link(&mut memory, chunks[i], chunks[i + 1]);
        }
    }
    memory.unpreserve(chunks[1]);
    let (_, found, ended) = walk(&memory, &array);
    assert_eq!(found, all[..511]);
    assert_eq!(ended, Err(Malformed::NotPreserved(chunks[1])));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Any flipped bit of any chunk: the pages listed before it are given out as they were written.
    #[test]
    fn flipped_bit(chunk in 0usize..3, bit in prop_oneof![0usize..64, 0usize..4096 * 8]) {
        let mut memory = Memory::default();
        let (array, all) = pages(&mut memory, 1100);
        let chunks = memory.preserved();
        memory.flip(chunks[chunk], bit);
        let (found_chunks, found, ended) = walk(&memory, &array);
        prop_assert!(memory.take_reads() <= 4);
        prop_assert_eq!(&found_chunks[..=chunk], &chunks[..=chunk]);
        prop_assert!(found.len() <= all.len());
        let slot = (bit / 64).checked_sub(1);
        let intact = match slot {
            Some(slot) => all.len().min(chunk * 511 + slot),
            None => all.len().min((chunk + 1) * 511),
        };
        prop_assert_eq!(&found[..intact], &all[..intact]);
        if slot.is_none() {
            prop_assert!(ended.is_err());
        }
        if ended.is_ok() {
            prop_assert_eq!(found.len(), all.len());
        }
    }
}

// SPDX-License-Identifier: GPL-2.0

//! Arrays as they should be.

use super::Stop;
use crate::{
    handover::{
        memfd::FolioSer,
        vmalloc::{Piece, VmallocSer, CHUNK_CAPACITY},
        Malformed,
    },
    memory::{scratch, Memory},
    write,
};
use proptest::prelude::*;
use zerocopy::FromBytes;

/// Walks an array: its chunks, its pages, and how it ended.
pub(super) fn walk(
    memory: &Memory,
    array: &VmallocSer,
) -> (Vec<u64>, Vec<u64>, Result<(), Malformed>) {
    let (mut chunks, mut pages) = (vec![], vec![]);
    let ended = array.walk(memory, &mut scratch(), |piece| {
        match piece {
            Piece::Chunk(pa) => chunks.push(pa),
            Piece::Pages(pa) => pages.push(pa),
        }
        Ok(())
    });
    (chunks, pages, ended)
}

/// An array of `count` pages which are not even preserved: walking it must not read them.
pub(super) fn pages(memory: &mut Memory, count: u32) -> (VmallocSer, Vec<u64>) {
    let pages: Vec<_> = (1..=u64::from(count)).map(|i| i << 40).collect();
    (VmallocSer::new(write::chunks(memory, &pages), count), pages)
}

#[test]
fn chunks_just_full_and_just_begun() {
    for count in [1, 510, 511, 512, 1021, 1022, 1023] {
        let mut memory = Memory::default();
        let (array, expected) = pages(&mut memory, count);
        let (chunks, found, ended) = walk(&memory, &array);
        assert_eq!((found, ended), (expected, Ok(())));
        assert_eq!(chunks, memory.preserved());
        // The kernel writes an empty chunk after one that is just full.
        assert_eq!(chunks.len() as u32, count / 511 + 1);
        assert_eq!(memory.take_reads() as usize, chunks.len());
    }
}

/// As this kernel writes it: no empty chunk at the end.
#[test]
fn full_chunk_at_the_end() {
    let mut memory = Memory::default();
    let (array, expected) = pages(&mut memory, 2 * CHUNK_CAPACITY as u32);
    let last = memory.preserved()[1];
    write::link(&mut memory, last, 0);
    let (chunks, found, ended) = walk(&memory, &array);
    assert_eq!((chunks.len(), found, ended), (2, expected, Ok(())));
}

#[test]
fn an_array_of_nothing() {
    let mut memory = Memory::default();
    assert_eq!(
        walk(&memory, &VmallocSer::new(0, 0)),
        (vec![], vec![], Ok(()))
    );
    assert_eq!(memory.take_reads(), 0);
    let (array, _) = pages(&mut memory, 0);
    assert_eq!(walk(&memory, &array), (vec![array.first], vec![], Ok(())));
}

/// Pages of every order that the allocator has: `nr_pages` counts single pages.
#[test]
fn orders() {
    for order in 0..=10u16 {
        let mut memory = Memory::default();
        let (array, expected) = pages(&mut memory, 3);
        let array = VmallocSer {
            nr_pages: 3 << order,
            order,
            flags: 3,
            ..array
        };
        let (_, found, ended) = walk(&memory, &array);
        assert_eq!((found, ended), (expected, Ok(())));
    }
}

#[test]
fn the_visitor_can_end_the_walk() {
    let mut memory = Memory::default();
    let (array, pages) = pages(&mut memory, 600);
    let second = memory.preserved()[1];
    for (last, expected) in [
        (Piece::Chunk(array.first), 1),
        (Piece::Pages(pages[0]), 2),
        (Piece::Chunk(second), 513),
        (Piece::Pages(pages[511]), 514),
    ] {
        let mut visits = 0;
        let ended = array.walk(&memory, &mut scratch(), |piece| {
            visits += 1;
            if piece == last {
                return Err(Stop::Own);
            }
            Ok(())
        });
        assert_eq!((visits, ended), (expected, Err(Stop::Own)));
    }
}

proptest! {
    /// What is written is read, in order.
    #[test]
    fn round_trip(count in 0u64..3000, order in 0u16..4) {
        let mut memory = Memory::default();
        let folios: Vec<_> = (1..=count).map(|i| FolioSer::new(i, i * i)).collect();
        let array = write::array(&mut memory, &folios, order);
        let (_, found, ended) = walk(&memory, &array);
        prop_assert_eq!(ended, Ok(()));
        prop_assert_eq!(found.len() << order, array.nr_pages as usize);
        let read: Vec<_> = found
            .iter()
            .flat_map(|pa| (0..1 << order).map(move |i| pa + i * 4096))
            .flat_map(|pa| folios_of(&memory, pa))
            .collect();
        prop_assert!(read.len() as u64 >= count);
        for (i, folio) in (1..=count).zip(&read) {
            prop_assert_eq!((folio.pfn(), folio.index()), (i, i * i));
        }
        prop_assert!(read[count as usize..].iter().all(|folio| folio.pfn() == 0));
    }
}

/// The entries of the page at `pa` of an array.
fn folios_of(memory: &Memory, pa: u64) -> Vec<FolioSer> {
    memory
        .bytes(pa)
        .chunks_exact(size_of::<FolioSer>())
        .map(|bytes| FolioSer::read_from_bytes(bytes).expect("the size of an entry"))
        .collect()
}

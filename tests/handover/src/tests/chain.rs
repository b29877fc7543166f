// SPDX-License-Identifier: GPL-2.0

//! Chains as they should be.

use super::{file, Small, Stop};
use crate::{
    handover::{
        block::{self, capacity, Entry, Place, MAX_BLOCKS},
        luo::FileSer,
        Malformed,
    },
    memory::{scratch, Memory},
    write,
};
use proptest::prelude::*;

/// What a walk came by, and how it ended.
pub(super) type Walked<T> = (Vec<(Place, T)>, Result<(), Malformed>);

/// Walks a chain.
pub(super) fn walk<T: Entry + Clone>(memory: &Memory, head: u64) -> Walked<T> {
    let mut visited = Vec::new();
    let ended = block::walk(memory, head, &mut scratch(), |place, entry: &T| {
        visited.push((place, entry.clone()));
        Ok(())
    });
    (visited, ended)
}

/// The tokens of the files that a walk comes by, and how it ended.
pub(super) fn tokens(memory: &Memory, head: u64) -> (Vec<u64>, Result<(), Malformed>) {
    let (visited, ended) = walk::<FileSer>(memory, head);
    for (_, file) in &visited {
        assert_eq!(file.data, !file.token, "a file as it was written");
    }
    (
        visited.into_iter().map(|(_, file)| file.token).collect(),
        ended,
    )
}

/// `blocks` blocks that are full with files, tokens from 0. Returns their addresses.
pub(super) fn full_blocks(memory: &mut Memory, blocks: usize) -> Vec<u64> {
    let files: Vec<_> = (0..(blocks * capacity::<FileSer>()) as u64)
        .map(file)
        .collect();
    let mut next = write::chain(memory, &files);
    let mut addresses = Vec::new();
    while next != 0 {
        addresses.push(next);
        next = memory.word(next, 0);
    }
    assert_eq!(addresses.len(), blocks);
    addresses
}

#[test]
fn no_chain_is_not_read() {
    let memory = Memory::default();
    assert_eq!(tokens(&memory, 0), (vec![], Ok(())));
    assert_eq!(memory.take_reads(), 0);
}

#[test]
fn last_page_just_full_and_just_begun() {
    for count in [1, 62, 63, 64, 125, 126, 127] {
        let mut memory = Memory::default();
        let files: Vec<_> = (0..count).map(file).collect();
        let head = write::chain(&mut memory, &files);
        assert_eq!(memory.preserved().len() as u64, count.div_ceil(63));
        assert_eq!(tokens(&memory, head), ((0..count).collect(), Ok(())));
    }
}

/// As the kernel's own orchestrator reads them: every page says for itself how full it is.
#[test]
fn pages_that_are_not_full() {
    let mut memory = Memory::default();
    let blocks = full_blocks(&mut memory, 3);
    memory.put(blocks[1], 8, &5u64.to_ne_bytes());
    let expected = (0..63 + 5).chain(2 * 63..3 * 63).collect();
    assert_eq!(tokens(&memory, blocks[0]), (expected, Ok(())));
}

#[test]
#[cfg_attr(miri, ignore = "so many blocks take it an hour")]
fn most_blocks() {
    let mut memory = Memory::default();
    let blocks: Vec<_> = (0..=MAX_BLOCKS as u64)
        .map(|token| write::chain(&mut memory, &[file(token)]))
        .collect();
    for pair in blocks.windows(2).take(MAX_BLOCKS - 1) {
        write::link(&mut memory, pair[0], pair[1]);
    }
    let (found, ended) = tokens(&memory, blocks[0]);
    assert_eq!((found.len(), ended), (MAX_BLOCKS, Ok(())));
    assert!(memory.take_reads() <= 2 * MAX_BLOCKS as u64);

    write::link(&mut memory, blocks[MAX_BLOCKS - 1], blocks[MAX_BLOCKS]);
    assert_eq!(
        tokens(&memory, blocks[0]),
        (vec![], Err(Malformed::Endless))
    );
    assert!(memory.take_reads() <= MAX_BLOCKS as u64 + 1);
}

#[test]
fn the_visitor_can_end_the_walk() {
    let mut memory = Memory::default();
    let blocks = full_blocks(&mut memory, 3);
    for last in [0, 62, 63, 100] {
        let mut visits = 0;
        let ended = block::walk(&memory, blocks[0], &mut scratch(), |_, file: &FileSer| {
            visits += 1;
            if file.token == last {
                return Err(Stop::Own);
            }
            Ok(())
        });
        assert_eq!((visits, ended), (last + 1, Err(Stop::Own)));
    }
}

proptest! {
    /// What is written is read, in order, from where it was put.
    #[test]
    fn round_trip(values in prop::collection::vec(any::<[u64; 4]>(), 0..400)) {
        let mut memory = Memory::default();
        let entries: Vec<_> = values.iter().copied().map(Small).collect();
        let head = write::chain(&mut memory, &entries);
        let (visited, ended) = walk::<Small>(&memory, head);
        prop_assert_eq!(ended, Ok(()));
        prop_assert_eq!(visited.len(), entries.len());
        for (i, (place, entry)) in visited.iter().enumerate() {
            prop_assert_eq!(entry, &entries[i]);
            prop_assert_eq!(place.slot, i % 127);
            let offset = place.offset::<Small>();
            prop_assert_eq!(memory.word(place.block_pa, offset + 8), entry.0[1]);
        }
    }
}

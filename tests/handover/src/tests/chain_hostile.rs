// SPDX-License-Identifier: GPL-2.0

//! Chains as they should not be.

use super::{
    chain::{full_blocks, tokens, walk},
    file, EDGES,
};
use crate::{
    handover::{
        block::{self, MAX_BLOCKS},
        luo::FileSer,
        Malformed,
    },
    memory::{scratch, Memory},
    write,
};
use proptest::prelude::*;

/// The tokens of the first `blocks` blocks of files.
fn first(blocks: usize) -> Vec<u64> {
    (0..blocks as u64 * 63).collect()
}

/// Cycles of every length, after tails of every length: found before anything is visited, and soon.
#[test]
fn cycles() {
    for tail in 0..24 {
        for len in 1..24 {
            let mut memory = Memory::default();
            let blocks = full_blocks(&mut memory, tail + len);
            write::link(&mut memory, blocks[tail + len - 1], blocks[tail]);
            assert_eq!(
                tokens(&memory, blocks[0]),
                (vec![], Err(Malformed::Endless))
            );
            let reads = memory.take_reads();
            let most = 3 * (tail + len) as u64 + 1;
            assert!(reads <= most, "{reads} reads, tail {tail}, length {len}");
        }
    }
}

/// Cycles about as long as the longest chain, and longer.
#[test]
fn long_cycles() {
    let mut memory = Memory::default();
    let blocks: Vec<_> = (0..MAX_BLOCKS as u64 + 2)
        .map(|token| write::chain(&mut memory, &[file(token)]))
        .collect();
    for pair in blocks.windows(2) {
        write::link(&mut memory, pair[0], pair[1]);
    }
    for len in [
        4095,
        4096,
        4097,
        MAX_BLOCKS - 1,
        MAX_BLOCKS,
        MAX_BLOCKS + 1,
        MAX_BLOCKS + 2,
    ] {
        let next = blocks.get(len).copied().unwrap_or(0);
        write::link(&mut memory, blocks[len - 1], blocks[0]);
        assert_eq!(
            tokens(&memory, blocks[0]),
            (vec![], Err(Malformed::Endless))
        );
        assert!(memory.take_reads() <= MAX_BLOCKS as u64 + 1);
        write::link(&mut memory, blocks[len - 1], next);
    }
}

/// A count that is 0 or too large, in each page: the pages before are used.
#[test]
fn counts() {
    let bad = EDGES.iter().filter(|&&count| count == 0 || count > 63);
    for &count in bad {
        for page in 0..4 {
            let mut memory = Memory::default();
            let blocks = full_blocks(&mut memory, 4);
            memory.put(blocks[page], 8, &count.to_ne_bytes());
            let expected = (first(page), Err(Malformed::Count(count)));
            assert_eq!(tokens(&memory, blocks[0]), expected);
        }
    }
}

/// An address of nothing, in each page and for the first: all before it is used.
#[test]
fn addresses() {
    let mut memory = Memory::default();
    let blocks = full_blocks(&mut memory, 4);
    let inside = blocks[2] + 8;
    for &bad in EDGES.iter().filter(|&&pa| pa != 0).chain([inside].iter()) {
        let missing = Err(Malformed::NotPreserved(bad));
        assert_eq!(tokens(&memory, bad), (vec![], missing));
        for page in 0..4 {
            let next = memory.word(blocks[page], 0);
            write::link(&mut memory, blocks[page], bad);
            assert_eq!(tokens(&memory, blocks[0]), (first(page + 1), missing));
            write::link(&mut memory, blocks[page], next);
        }
    }
}

/// A chain that was cut off.
#[test]
fn truncation() {
    for page in 0..4 {
        let mut memory = Memory::default();
        let blocks = full_blocks(&mut memory, 4);
        memory.unpreserve(blocks[page]);
        let expected = (first(page), Err(Malformed::NotPreserved(blocks[page])));
        assert_eq!(tokens(&memory, blocks[0]), expected);
    }
}

/// Damage before a cycle: a page that cannot be read ends the search for cycles, a bad count does not.
#[test]
fn damage_and_cycle() {
    let mut memory = Memory::default();
    let blocks = full_blocks(&mut memory, 4);
    write::link(&mut memory, blocks[3], blocks[0]);
    memory.put(blocks[1], 8, &[0; 8]);
    assert_eq!(
        tokens(&memory, blocks[0]),
        (vec![], Err(Malformed::Endless))
    );
    memory.unpreserve(blocks[2]);
    assert_eq!(
        tokens(&memory, blocks[0]),
        (first(1), Err(Malformed::Count(0)))
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Any flipped bit: the pages before it are read as they were written, and what follows is at most what was there.
    #[test]
    fn flipped_bit(page in 0usize..4, bit in prop_oneof![0usize..128, 0usize..4096 * 8]) {
        let mut memory = Memory::default();
        let blocks = full_blocks(&mut memory, 4);
        memory.flip(blocks[page], bit);
        let mut visited = Vec::new();
        let ended = block::walk(
            &memory,
            blocks[0],
            &mut scratch(),
            |_, file: &FileSer| {
                visited.push((file.data == !file.token).then_some(file.token));
                Ok::<_, Malformed>(())
            },
        );
        prop_assert!(memory.take_reads() <= 10);
        let same = |range: std::ops::Range<usize>| {
            visited.get(range.clone()).is_some_and(|got| got.iter().zip(range).all(|(got, i)| *got == Some(i as u64)))
        };
        prop_assert!(same(0..page * 63));
        match bit {
            // The address of the next page.
            0..64 => {
                prop_assert!(matches!(ended, Err(Malformed::NotPreserved(_))));
                prop_assert_eq!(visited.len(), (page + 1) * 63);
                prop_assert!(same(0..visited.len()));
            }
            // The count.
            64..128 => {
                let count = 63u64 ^ (1 << (bit - 64));
                if (1..64).contains(&count) {
                    prop_assert_eq!(ended, Ok(()));
                    prop_assert_eq!(visited.len() as u64, 3 * 63 + count);
                } else {
                    prop_assert_eq!(ended, Err(Malformed::Count(count)));
                    prop_assert_eq!(visited.len(), page * 63);
                }
            }
            // At most one entry.
            _ => {
                prop_assert_eq!(ended, Ok(()));
                prop_assert_eq!(visited.len(), 4 * 63);
                let wrong = visited.iter().enumerate().filter(|(i, got)| **got != Some(*i as u64));
                prop_assert!(wrong.count() <= 1);
            }
        }
    }

    /// Pages that point anywhere among each other: the walk ends, and visits all before the first damage or nothing.
    #[test]
    fn any_graph(
        pages in prop::collection::vec((0usize..14, prop_oneof![4 => 1u64..64, 1 => Just(0u64), 1 => 64u64..70]), 1..12),
    ) {
        let mut memory = Memory::default();
        let blocks: Vec<_> = pages.iter().map(|_| memory.allocate(0)).collect();
        for (&pa, &(next, count)) in blocks.iter().zip(&pages) {
            // 12 is a page that is not there, 13 the end.
            let next = match next { 13 => 0, 12 => 0x3000, next => blocks.get(next).copied().unwrap_or(0) };
            write::link(&mut memory, pa, next);
            memory.put(pa, 8, &count.to_ne_bytes());
        }

        // The model: follow the links until they end, are broken, or come back.
        let mut path = vec![];
        let mut pa = blocks[0];
        while blocks.contains(&pa) && !path.contains(&pa) {
            path.push(pa);
            pa = memory.word(pa, 0);
        }
        let mut expected = 0;
        let mut ended = match pa { 0 => Ok(()), pa => Err(Malformed::NotPreserved(pa)) };
        if path.contains(&pa) {
            ended = Err(Malformed::Endless);
        } else {
            for &pa in &path {
                let count = memory.word(pa, 8);
                if !(1..64).contains(&count) {
                    ended = Err(Malformed::Count(count));
                    break;
                }
                expected += count;
            }
        }

        let (visited, got) = walk::<FileSer>(&memory, blocks[0]);
        prop_assert_eq!((visited.len() as u64, got), (expected, ended));
        prop_assert!(memory.take_reads() <= 4 * blocks.len() as u64 + 2);
    }
}

// SPDX-License-Identifier: GPL-2.0

//! Whole handovers: what is damaged is refused, what is good is used.

use crate::{
    example::{example, EDGES},
    handover::extent::{COMPATIBLE_EXTENTS, COMPATIBLE_EXTENTS_V1},
    locate::{self, Place},
    memory::Memory,
    reader::{self, Report},
    write::{self, Contents, File, Memfd, Part, Range, Session, Written},
};
use proptest::prelude::*;

/// Any memfd whose ranges are good.
fn memfds_of_ranges() -> impl Strategy<Value = Memfd> {
    let pages = prop::collection::vec((0u64..9, 1u64..40), 1..8).prop_map(|list| (0, list));
    let folio = (0u64..9, 1u32..10).prop_map(|(hole, order)| (order, vec![(hole, 1 << order)]));
    let ranges = prop::collection::vec(prop_oneof![pages, folio], 0..60);
    (ranges, 0..=i64::MAX as u64, 0u64..4096, 0u32..64).prop_map(|(list, pos, tail, seals)| {
        let mut free = 0u64;
        let place = |order: u32, (hole, nr_pages): (u64, u64)| {
            let index = (free + hole).next_multiple_of(1 << order);
            free = index + nr_pages;
            (index, nr_pages)
        };
        let mut place = place;
        let ranges = list
            .into_iter()
            .map(|(order, extents)| Range {
                order,
                extents: extents.into_iter().map(|it| place(order, it)).collect(),
            })
            .collect();
        Memfd {
            pos,
            size: free * 4096 + tail,
            seals,
            contents: Contents::Ranges(ranges),
        }
    })
}

/// Folios, of which some may have no valid data.
fn contents(folios: Vec<(u64, u32, bool)>, array_order: u16) -> Contents {
    if folios.iter().any(|(_, _, uptodate)| !uptodate) {
        return Contents::MixedFolios {
            folios,
            array_order,
        };
    }
    Contents::Folios {
        array_order: if folios.is_empty() { 0 } else { array_order },
        folios: folios
            .iter()
            .map(|&(index, order, _)| (index, order))
            .collect(),
    }
}

/// Any memfd whose folios are good.
fn memfds() -> impl Strategy<Value = Memfd> {
    let folio = (0u64..9, 0u32..10, prop::bool::weighted(0.9));
    let folios = prop::collection::vec(folio, 0..20);
    (folios, 0..=i64::MAX as u64, 0u64..4096, 0u32..64, 0u16..3).prop_map(
        |(list, pos, tail, seals, array_order)| {
            let mut free = 0u64;
            let folios: Vec<_> = list
                .into_iter()
                .map(|(hole, order, uptodate)| {
                    let index = (free + hole).next_multiple_of(1 << order);
                    free = index + (1 << order);
                    (index, order, uptodate)
                })
                .collect();
            Memfd {
                pos,
                size: free * 4096 + tail,
                seals,
                contents: contents(folios, array_order),
            }
        },
    )
}

/// Any sessions that are good, of different names.
fn sessions() -> impl Strategy<Value = Vec<Session>> {
    let kind = prop_oneof![
        memfds().prop_map(Ok),
        memfds_of_ranges().prop_map(Ok),
        any::<u64>().prop_map(Err)
    ];
    let file = (any::<u64>(), kind).prop_map(|(token, kind)| File { token, kind });
    let session = ("[ -~]{1,20}", prop::collection::vec(file, 0..5));
    prop::collection::vec(session, 0..8).prop_map(|list| {
        list.into_iter()
            .enumerate()
            .map(|(i, (name, files))| Session {
                name: format!("{i} {name}").into_bytes(),
                files,
            })
            .collect()
    })
}

/// What is expected of good sessions: all of them, and no complaint.
fn assert_good(report: &Report, sessions: &[Session]) {
    assert_eq!(report.liveupdate_num, 1);
    assert_eq!(report.sessions, sessions);
    assert_eq!(report.refused, [""; 0]);
}

/// That damage of `part` did not reach the sessions that do not need it.
fn assert_contained(report: &Report, sessions: &[Session], part: Part) {
    let intact: Vec<_> = match part {
        // Neither can be read without the root.
        Part::Root => return,
        Part::SessionBlock(block) => sessions.iter().take(block * 51).collect(),
        Part::Session(damaged) => {
            let others = sessions.iter().enumerate().filter(|(i, _)| *i != damaged);
            others.map(|(_, session)| session).collect()
        }
    };
    for session in intact {
        assert!(report.sessions.contains(session), "{session:?}");
    }
}

/// Writes `sessions` into a new memory.
fn written(sessions: &[Session]) -> (Memory, Written) {
    let mut memory = Memory::default();
    let written = write::handover(&mut memory, 1, sessions);
    (memory, written)
}

#[test]
fn the_example_is_good() {
    let sessions = example();
    let (memory, written) = written(&sessions);
    let report = reader::read(&memory, written.root_pa);
    assert_good(&report, &sessions);
    // A folio without valid data is told from all others.
    let zeroed: Vec<_> = report
        .data
        .iter()
        .filter(|(_, _, frames)| !frames.uptodate)
        .map(|(session, token, frames)| (*session, *token, frames.index, frames.nr_pages))
        .collect();
    assert_eq!(zeroed, [(0, 0, 512, 1)]);
}

/// Extents from before there were tables are read as those of today.
#[test]
fn extents_from_before_tables() {
    let sessions = example();
    let (mut memory, written) = written(&sessions);
    let mut renamed = 0;
    for (i, session) in sessions.iter().enumerate() {
        for j in 0..session.files.len().min(2) {
            let Place { pa, offset } =
                locate::file(&memory, locate::session(&memory, written.root_pa, i), j);
            if memory.bytes(pa)[offset..].starts_with(COMPATIBLE_EXTENTS.as_array()) {
                memory.put(pa, offset, COMPATIBLE_EXTENTS_V1.as_array());
                renamed += 1;
            }
        }
    }
    assert_eq!(renamed, 3);
    assert_good(&reader::read(&memory, written.root_pa), &sessions);
}

/// Where the root should be there is nothing, or something else: nothing is believed.
#[test]
fn no_root() {
    let (memory, written) = written(&example());
    for &pa in EDGES.iter().chain(&[written.root_pa + 1]) {
        let report = reader::read(&memory, pa);
        assert!(report.sessions.is_empty());
        assert_eq!(report.refused, [format!("root: NotPreserved({pa})")]);
    }
    for &(pa, part) in &written.parts {
        if part != Part::Root {
            let report = reader::read(&memory, pa);
            assert!(report.sessions.is_empty());
            assert_eq!(report.refused, ["root: Incompatible"]);
        }
    }
}

/// More sessions than a block has room for, with damage in the second block.
#[test]
fn sessions_before_the_damage() {
    let sessions: Vec<_> = (0..120)
        .map(|i| Session {
            name: format!("session {i}").into_bytes(),
            files: vec![],
        })
        .collect();
    let (mut memory, written) = written(&sessions);
    let blocks: Vec<_> = written
        .parts
        .iter()
        .filter(|(_, part)| matches!(part, Part::SessionBlock(_)))
        .map(|&(pa, _)| pa)
        .collect();
    assert_eq!(blocks.len(), 3);
    memory.put(blocks[1], 8, &52u64.to_ne_bytes());
    let report = reader::read(&memory, written.root_pa);
    assert_eq!(report.sessions, sessions[..51]);
    assert_eq!(report.refused, ["sessions: Count(52)"]);
}

/// A session without a name is refused by itself; a session that is gone is not even that.
#[test]
fn one_bad_session() {
    let sessions = example();
    let (mut memory, written) = written(&sessions);
    let others = [&sessions[..1], &sessions[2..]].concat();
    let block = memory.word(written.root_pa, 16);
    memory.put(block, 16 + 80, &[b'x'; 64]);
    let report = reader::read(&memory, written.root_pa);
    assert!(report.sessions == others);
    assert_eq!(report.refused, ["session: String"]);
    memory.put(block, 16 + 80, &[0; 80]);
    let report = reader::read(&memory, written.root_pa);
    assert!(report.sessions == others);
    assert_eq!(report.refused, [""; 0]);
}

/// Two files that claim the same memory, in whole or in part: the second does not get it.
#[test]
fn claimed_twice() {
    let sessions = example();
    let (mut memory, written) = written(&sessions);
    let memfd_pa = |memory: &Memory, session: u64| {
        let entry = 16 + 80 * session as usize + 64;
        let files = memory.word(memory.word(written.root_pa, 16), entry);
        (files, memory.word(files, 16 + 48))
    };
    let (_, first) = memfd_pa(&memory, 0);
    let (files, second) = memfd_pa(&memory, 1);
    let without = |report: &Report| {
        assert_eq!(report.sessions[0], sessions[0]);
        assert_eq!(report.sessions[1].files, sessions[1].files[1..]);
    };

    // One frame of the other's.
    let frame = |memory: &Memory, memfd: u64| memory.word(memory.word(memfd, 32), 8);
    let (taken, array) = (frame(&memory, first), frame(&memory, second));
    let own = memory.word(array, 16 * 9);
    let others = memory.word(taken, 0);
    memory.put(array, 16 * 9, &others.to_ne_bytes());
    without(&reader::read(&memory, written.root_pa));
    // One frame twice.
    let before = memory.word(array, 16 * 8);
    memory.put(array, 16 * 9, &before.to_ne_bytes());
    without(&reader::read(&memory, written.root_pa));
    // A page of its own description as data.
    let page = array >> 12 | 3 << 52;
    memory.put(array, 16 * 9, &page.to_ne_bytes());
    without(&reader::read(&memory, written.root_pa));
    memory.put(array, 16 * 9, &own.to_ne_bytes());
    // The other's array.
    let chunk = memory.word(first, 32);
    let mut swapped = second.to_ne_bytes();
    memory.put(second, 32, &chunk.to_ne_bytes());
    without(&reader::read(&memory, written.root_pa));
    // The whole memfd.
    swapped.copy_from_slice(&first.to_ne_bytes());
    memory.put(files, 16 + 48, &swapped);
    without(&reader::read(&memory, written.root_pa));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// What is handed over arrives.
    #[test]
    fn round_trip(sessions in sessions()) {
        let (memory, written) = written(&sessions);
        assert_good(&reader::read(&memory, written.root_pa), &sessions);
    }

    /// Any flipped bit, most of all in the bytes that are in use: the damage stays where it is.
    #[test]
    fn flipped_bit(
        sessions in sessions(),
        page in any::<prop::sample::Index>(),
        bit in prop_oneof![3 => 0usize..1024, 1 => 0usize..4096 * 8],
    ) {
        let (mut memory, written) = written(&sessions);
        let (pa, part) = *page.get(&written.parts);
        memory.flip(pa, bit);
        assert_contained(&reader::read(&memory, written.root_pa), &sessions, part);
    }

    /// Any page gone: the damage stays where it is.
    #[test]
    fn missing_page(sessions in sessions(), page in any::<prop::sample::Index>()) {
        let (mut memory, written) = written(&sessions);
        let (pa, part) = *page.get(&written.parts);
        memory.unpreserve(pa);
        let report = reader::read(&memory, written.root_pa);
        assert_contained(&report, &sessions, part);
        prop_assert!(!report.refused.is_empty());
    }

    /// Any integer replaced by one that is likely to do harm, in many places at a time.
    #[test]
    fn replaced_words(
        damage in prop::collection::vec(
            (
                any::<prop::sample::Index>(),
                prop_oneof![3 => 0usize..16, 1 => 0usize..512],
                any::<prop::sample::Index>(),
            ),
            1..6,
        ),
    ) {
        let sessions = example();
        let (mut memory, written) = written(&sessions);
        let mut values = EDGES.to_vec();
        values.extend(memory.preserved());
        for (page, word, value) in damage {
            let (pa, _) = *page.get(&written.parts);
            memory.put(pa, word * 8, &value.get(&values).to_ne_bytes());
        }
        let report = reader::read(&memory, written.root_pa);
        prop_assert!(report.sessions.len() <= sessions.len());
    }
}

// SPDX-License-Identifier: GPL-2.0

//! Tables of a memfd, and the ranges that they tell the places of.

use super::{
    assert_bytes,
    extent::{pages, raw, run, BORDER, RANGE},
};
use crate::{
    example::tables,
    handover::{
        extent::{Entry, ExtentCheck, ExtentSer},
        table::{Frame, FrameSer, TABLE_FRAMES},
        Malformed,
    },
    locate::{self, flags, memfd, Place},
    memory::Memory,
    reader,
    write::{self, Contents, File, Memfd, Range, Session, Slot, Table},
};
use zerocopy::{FromBytes, IntoBytes};

const PLACED: u64 = 1 << 5;
const TABLE: u64 = 1 << 6;

#[test]
fn layout() {
    assert_bytes(
        &ExtentSer::table(0x12345, 0x600).unwrap(),
        &[
            0x45, 0x23, 0x01, 0, 0, 0, 0x00, 0x04, 0, 6, 0, 0, 0, 2, 0, 0,
        ],
    );
    assert_bytes(
        &ExtentSer::placed(0x12345, 0x21)
            .unwrap()
            .starting_range(true),
        &[
            0x45, 0x23, 0x01, 0, 0, 0, 0x00, 0x03, 0, 0, 0, 0, 0x21, 0, 0, 0,
        ],
    );
    assert_bytes(
        &FrameSer::new(Frame::Single(0x12345)),
        &[0x45, 0x23, 0x01, 0, 0, 0, 0, 0],
    );
    assert_bytes(
        &FrameSer::new(Frame::Placed(0x12345)),
        &[0x45, 0x23, 0x01, 0, 0, 0, 0x10, 0],
    );
    assert_eq!(TABLE_FRAMES, 512);
    assert!(ExtentSer::table(1, 1 << 32).is_none());
    assert!(ExtentSer::placed(1, 1 << 32).is_none());
}

#[test]
fn each_field_of_an_entry() {
    let kind = |why| Err(Malformed::Field(why));
    let of_table = "flags of a table";
    let placed = |extent| {
        Ok(Entry::Pages {
            extent,
            is_placed: true,
            starts_range: true,
        })
    };
    for (entry, wanted) in [
        (raw(5, TABLE, 0, 512), Ok(Entry::Table(run(5, 0, 512)))),
        (raw(5, TABLE, 512, 512), Ok(Entry::Table(run(5, 512, 512)))),
        // The file has 1535 pages.
        (raw(5, TABLE, 1024, 512), kind("index of a table")),
        (raw(5, TABLE, 1536, 512), kind("index of a table")),
        (raw(5, TABLE, 0xffff_fe00, 512), kind("index of a table")),
        (raw(5, TABLE, 1, 512), kind("index of a table")),
        (raw(5, TABLE, 511, 512), kind("index of a table")),
        (raw(5, TABLE, 0, 511), kind("index of a table")),
        (raw(5, TABLE, 0, 0), kind("index of a table")),
        (raw(5, TABLE, 0, 1024), kind("index of a table")),
        (raw(0, TABLE, 0, 512), kind("extent frame")),
        (raw((1 << 52) - 1, TABLE, 0, 512), kind("extent frame")),
        (raw(5, TABLE | RANGE, 0, 512), kind(of_table)),
        (raw(5, TABLE | 9, 0, 512), kind(of_table)),
        (raw(5, TABLE | PLACED, 0, 512), kind(of_table)),
        (raw(5, TABLE | PLACED | RANGE, 0, 512), kind(of_table)),
        (raw(5, TABLE | 10, 0, 512), kind("extent order")),
        (raw(5, TABLE | 1 << 7, 0, 512), kind("extent flags")),
        (raw(5, PLACED | RANGE, 0, 1), placed(run(5, 0, 1))),
        // It may have more pages than the file: that is found out by the tables.
        (raw(5, PLACED | RANGE, 0, 4096), placed(run(5, 0, 4096))),
        (raw(5, PLACED | RANGE, 1, 1), kind("placed pages")),
        (raw(5, PLACED | RANGE, 0, 0), kind("placed pages")),
        (raw(5, PLACED, 0, 1), Err(BORDER)),
        (raw(5, PLACED | RANGE | 1, 0, 2), kind("placed pages")),
        (raw(5, PLACED | RANGE | 1 << 8, 0, 2), kind("extent flags")),
        (raw(0, PLACED | RANGE, 0, 2), kind("extent frame")),
        (
            raw((1 << 52) - 1, PLACED | RANGE, 0, 2),
            kind("extent frame"),
        ),
    ] {
        let got = ExtentCheck::new(&pages(1535)).next(&entry);
        assert_eq!(got, wanted, "{:?}", entry.as_bytes());
    }
}

#[test]
fn each_field_of_a_slot() {
    let check = |word: u64| {
        FrameSer::read_from_bytes(&word.to_ne_bytes())
            .unwrap()
            .check()
    };
    let (last, frame) = ((1 << 52) - 1, Err(Malformed::Field("frame of a table")));
    for (pfn, flags, wanted) in [
        (1, 0, Ok(Frame::Single(1))),
        (1, 1, Ok(Frame::Placed(1))),
        (last, 0, Ok(Frame::Single(last))),
        (last, 1, Ok(Frame::Placed(last))),
        (0, 0, frame),
        (0, 1, frame),
    ] {
        assert_eq!(check(pfn | flags << 52), wanted);
    }
    for bit in 1..12 {
        let got = check(5 | 1 << (52 + bit));
        assert_eq!(got, Err(Malformed::Field("flags of a frame")), "bit {bit}");
    }
}

/// A range has pages of both kinds, and ends with a table.
#[test]
fn what_follows() {
    let memfd = pages(1000);
    let mut check = ExtentCheck::new(&memfd);
    assert!(check.next(&raw(90, RANGE, 0, 10)).is_ok());
    assert!(check.next(&raw(100, PLACED, 0, 10)).is_ok());
    assert!(check.next(&raw(110, PLACED, 0, 1)).is_ok());
    assert!(check.next(&raw(111, 0, 50, 1)).is_ok());
    assert_eq!(check.next(&raw(113, PLACED, 0, 1)), Err(BORDER));
    assert!(check.next(&raw(111, TABLE, 0, 512)).is_ok());
    assert_eq!(check.next(&raw(112, 0, 70, 1)), Err(BORDER));
    assert_eq!(check.next(&raw(112, PLACED, 0, 1)), Err(BORDER));
    assert!(check.next(&raw(112, RANGE, 70, 1)).is_ok());
}

fn file(token: u64, contents: Contents) -> File {
    let memfd = Memfd {
        pos: 1,
        size: 4096 * 4096 + 5,
        seals: 0,
        contents,
    };
    let kind = Ok(memfd);
    File { token, kind }
}

/// Two memfds with tables, which can be damaged.
struct Handover {
    memory: Memory,
    root_pa: u64,
    session: Session,
}

/// Numbers of the entries of the first of them, and of their slots.
const EXTENT: usize = 0;
const PLACED_RANGE: usize = 4;
const FIRST: usize = 6;
const SECOND: usize = 7;
/// A table of single pages only, which is looked at before the others.
const SINGLES: usize = 8;
/// A slot with a page that is preserved by itself, and one of a placed range.
const SINGLE: usize = 4;
const IN_RANGE: usize = 5;

impl Handover {
    fn new() -> Self {
        let mut memory = Memory::default();
        let files = vec![file(1, tables()), file(2, tables())];
        let name = b"vm".to_vec();
        let session = Session { name, files };
        let root_pa = write::handover(&mut memory, 1, std::slice::from_ref(&session)).root_pa;
        Self {
            memory,
            root_pa,
            session,
        }
    }

    /// The description of memfd number `i`.
    fn memfd(&self, i: usize) -> Place {
        let session = locate::session(&self.memory, self.root_pa, 0);
        let file = locate::file(&self.memory, session, i);
        file.follow(&self.memory, locate::file::DATA)
    }

    /// The entry number `entry` of memfd number `i`.
    fn entry(&self, i: usize, entry: usize) -> Place {
        let offset = 8 * (memfd::ENTRIES + 2 * entry);
        Place {
            offset,
            ..self.memfd(i)
        }
    }

    fn frame(&self, i: usize, entry: usize) -> u64 {
        self.entry(i, entry).get(&self.memory, 0) & flags::FRAME
    }

    fn table(&self, i: usize, entry: usize) -> Place {
        Place::page(self.frame(i, entry) << 12)
    }

    fn slot(&self, table: usize, slot: usize) -> u64 {
        self.table(0, table).get(&self.memory, slot)
    }

    fn set_slot(&mut self, table: usize, slot: usize, word: u64) {
        self.table(0, table).set(&mut self.memory, slot, word);
    }

    fn set_entry(&mut self, entry: usize, word: usize, value: u64) {
        self.entry(0, entry).set(&mut self.memory, word, value);
    }

    /// Fails unless the first is refused for this reason, and the other is good.
    #[track_caller]
    fn refused(&self, why: Malformed) {
        let report = reader::read(&self.memory, self.root_pa);
        assert_eq!(report.refused, [format!("[vm] 0x1: {why:?}")]);
        assert_eq!(report.sessions[0].files, self.session.files[1..]);
    }
}

fn not_preserved(pfn: u64) -> Malformed {
    Malformed::NotPreserved((pfn & flags::FRAME) << 12)
}

#[test]
fn round_trip() {
    let it = Handover::new();
    let report = reader::read(&it.memory, it.root_pa);
    assert_eq!(report.sessions, [it.session]);
    assert_eq!(report.refused, [""; 0]);
    // Each page of the tables at its place in the file.
    let data = report.data.iter().filter(|(_, token, _)| *token == 1);
    let frames: Vec<_> = data.map(|(_, _, frames)| *frames).collect();
    let again = Handover::new();
    for slot in 0..TABLE_FRAMES {
        for (table, index) in [(FIRST, 512), (SECOND, 3072), (SINGLES, 3584)] {
            let wanted = reader::Frames {
                pfn: again.slot(table, slot) & flags::FRAME,
                index: index + slot as u64,
                nr_pages: 1,
                uptodate: true,
            };
            assert!(frames.contains(&wanted), "{wanted:?}");
        }
    }
}

/// Tables of pages of one kind, and more entries than there is room beside the description.
#[test]
fn many_tables() {
    let table = |i: u64, slot: fn(u64) -> Slot| Table {
        index: i * 512,
        slots: (0..512).map(slot).collect(),
    };
    let single = |_| Slot::Single;
    let mut list: Vec<_> = (1..20).map(|i| table(i, single)).collect();
    list.push(table(0, |i| Slot::Placed((i % 2) as usize, 255 - i / 2)));
    let ranges = (0..300u64).map(|i| Range {
        order: 0,
        extents: vec![(20 * 512 + 2 * i, 1)],
    });
    let contents = Contents::Tables {
        ranges: ranges.collect(),
        placed: vec![256, 256],
        tables: list,
    };
    let mut it = file(7, contents);
    if let Ok(memfd) = &mut it.kind {
        memfd.size = 22 * 512 * 4096;
    }
    let session = Session {
        name: b"vm".to_vec(),
        files: vec![it],
    };
    let mut memory = Memory::default();
    let root_pa = write::handover(&mut memory, 1, std::slice::from_ref(&session)).root_pa;
    let report = reader::read(&memory, root_pa);
    assert_eq!(report.refused, [""; 0]);
    assert!(report.sessions == [session]);
}

#[test]
fn frame_twice() {
    // In one table.
    let mut it = Handover::new();
    let single = it.slot(FIRST, SINGLE);
    it.set_slot(FIRST, SINGLE + 4, single);
    it.refused(not_preserved(single));
    let mut it = Handover::new();
    let placed = it.slot(FIRST, IN_RANGE);
    it.set_slot(FIRST, IN_RANGE + 1, placed);
    it.refused(not_preserved(placed));
    // In two: the second is looked at first.
    let mut it = Handover::new();
    it.set_slot(SECOND, SINGLE, single);
    it.refused(not_preserved(single));
    let mut it = Handover::new();
    it.set_slot(SECOND, IN_RANGE, placed);
    it.refused(not_preserved(placed));
    // In a table and an extent.
    let mut it = Handover::new();
    let extent = it.frame(0, EXTENT);
    it.set_slot(SECOND, SINGLE, extent);
    it.refused(not_preserved(extent));
    let mut it = Handover::new();
    it.set_slot(SECOND, IN_RANGE, extent | flags::FRAME_PLACED);
    it.refused(not_preserved(extent));
    // In a placed range and an extent.
    let mut it = Handover::new();
    it.set_entry(PLACED_RANGE, 0, extent | flags::RANGE | flags::PLACED);
    it.set_entry(PLACED_RANGE, 1, 3 << 32);
    it.refused(not_preserved(extent));
}

/// As a page by itself, and as one of a range.
#[test]
fn kind_of_a_frame() {
    let mut it = Handover::new();
    let single = it.slot(FIRST, SINGLE);
    it.set_slot(FIRST, SINGLE, single | flags::FRAME_PLACED);
    it.refused(not_preserved(single));
    // The first page of a key, of more than one page, and another one.
    for pfn in [it.frame(0, PLACED_RANGE), it.frame(0, PLACED_RANGE) + 5] {
        let mut it = Handover::new();
        it.set_slot(FIRST, SINGLE, pfn);
        it.refused(not_preserved(pfn));
    }
}

#[test]
fn pages_of_the_description() {
    let of = Handover::new();
    let head = of.memfd(0).pa >> 12;
    for pfn in [of.frame(0, FIRST), of.frame(0, SECOND), head] {
        for (slot, flag) in [(SINGLE, 0), (IN_RANGE, flags::FRAME_PLACED)] {
            let mut it = Handover::new();
            it.set_slot(SECOND, slot, pfn | flag);
            it.refused(not_preserved(pfn));
        }
    }
    // A table that is another part of it.
    for pfn in [of.frame(0, FIRST), head] {
        let mut it = Handover::new();
        it.set_entry(SECOND, 0, pfn | flags::TABLE);
        it.refused(not_preserved(pfn));
    }
}

#[test]
fn not_a_single_page() {
    let mut it = Handover::new();
    let lost = it.memory.allocate_lost() >> 12;
    let large = it.memory.allocate(3) >> 12;
    for pfn in [lost, large, large + 1, 1, (1 << 52) - 1] {
        let mut it = Handover::new();
        it.memory.allocate_lost();
        it.memory.allocate(3);
        for (slot, flag) in [(SINGLE, 0), (IN_RANGE, flags::FRAME_PLACED)] {
            let before = it.slot(FIRST, slot);
            it.set_slot(FIRST, slot, pfn | flag);
            it.refused(not_preserved(pfn));
            it.set_slot(FIRST, slot, before);
        }
    }
    // A table that is not preserved, or not as a page.
    for pfn in [lost, large, large + 1] {
        let mut it = Handover::new();
        it.memory.allocate_lost();
        it.memory.allocate(3);
        it.set_entry(FIRST, 0, pfn | flags::TABLE);
        it.refused(not_preserved(pfn));
    }
}

/// What each slot of a table of single pages may not be, at the ends and between.
#[test]
fn among_single_pages() {
    let mut it = Handover::new();
    let large = it.memory.allocate(3) >> 12;
    let other = it.slot(SINGLES, 2);
    let placed = it.slot(FIRST, IN_RANGE);
    let flags_of = Malformed::Field("flags of a frame");
    for slot in [0, 1, 300, 511] {
        let single = it.slot(SINGLES, slot);
        for (word, why) in [
            (0, not_preserved(0)),
            (large, not_preserved(large)),
            (other, not_preserved(other)),
            (single | flags::FRAME_PLACED, not_preserved(single)),
            (flags::FRAME_PLACED, Malformed::Field("frame of a table")),
            (single | 1 << 53, flags_of),
            (single | 1 << 63, flags_of),
            // The table that lists it, too, is looked at later.
            (placed, not_preserved(placed)),
        ] {
            it.set_slot(SINGLES, slot, word);
            it.refused(why);
        }
        it.set_slot(SINGLES, slot, single);
    }
}

/// One page of a placed range among single ones: that is good, as long as another table does not list it.
#[test]
fn one_placed_page() {
    let mut it = Handover::new();
    let (single, placed) = (it.slot(SINGLES, 300), it.slot(FIRST, IN_RANGE));
    it.set_slot(SINGLES, 300, placed);
    it.set_slot(FIRST, IN_RANGE, single);
    if let Ok(Memfd {
        contents: Contents::Tables { tables, .. },
        ..
    }) = &mut it.session.files[0].kind
    {
        tables[2].slots[300] = tables[0].slots[IN_RANGE];
        tables[0].slots[IN_RANGE] = Slot::Single;
    }
    let report = reader::read(&it.memory, it.root_pa);
    assert_eq!(report.refused, [""; 0]);
    assert_eq!(report.sessions, [it.session]);
    let frame = |pfn, index| reader::Frames {
        pfn: pfn & flags::FRAME,
        index,
        nr_pages: 1,
        uptodate: true,
    };
    for frames in [
        frame(placed, 3584 + 300),
        frame(single, 512 + IN_RANGE as u64),
    ] {
        assert!(report.data.contains(&(0, 1, frames)), "{frames:?}");
    }
}

/// A page of a placed range that no table lists.
#[test]
fn not_all_are_placed() {
    let mut it = Handover::new();
    let page = it.memory.allocate(0) >> 12;
    it.set_slot(FIRST, IN_RANGE, page);
    it.refused(Malformed::Count(1));
    // A range that none lists.
    let mut it = Handover::new();
    let large = it.memory.allocate(5) >> 12;
    it.set_entry(EXTENT, 0, large | flags::RANGE | flags::PLACED);
    it.set_entry(EXTENT, 1, 32 << 32);
    // What was behind the extent is a range of its own.
    let next = it.entry(0, EXTENT + 1).get(&it.memory, 0);
    it.set_entry(EXTENT + 1, 0, next | flags::RANGE);
    it.refused(Malformed::Count(32));
    // Part of a key, and of a range.
    let mut it = Handover::new();
    it.set_entry(PLACED_RANGE, 1, 499 << 32);
    it.refused(BORDER);
    // No tables at all.
    let mut it = Handover::new();
    let memfd = it.memfd(0);
    memfd.set(&mut it.memory, memfd::NR_ENTRIES, FIRST as u64);
    it.refused(Malformed::Count(760));
}

/// A page of a range that another memfd tells of.
#[test]
fn placed_by_another() {
    let mut it = Handover::new();
    let others = it.table(1, FIRST).get(&it.memory, IN_RANGE);
    it.set_slot(FIRST, IN_RANGE, others);
    it.refused(not_preserved(others));
}

#[test]
fn one_place() {
    let twice = Malformed::Field("two in one place");
    let mut it = Handover::new();
    it.set_entry(SECOND, 1, 512 | 512 << 32);
    it.refused(twice);
    // Over the extent before, the large folio, and the last extent.
    for index in [0, 2048, 1024] {
        let mut it = Handover::new();
        it.set_entry(FIRST, 1, index | 512 << 32);
        it.refused(twice);
    }
}

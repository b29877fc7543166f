// SPDX-License-Identifier: GPL-2.0

//! Writes a memfd, in any of its encodings.

use super::{array, Contents, Memfd, Range, Slot, Table};
use crate::{
    handover::{
        extent::{Extent, ExtentSer, IN_HEAD},
        memfd::{FolioSer, MemfdSer},
        table::{Frame, FrameSer, TABLE_FRAMES},
        vmalloc::VmallocSer,
        PAGE_SIZE,
    },
    locate::flags,
    memory::Memory,
};
use zerocopy::{Immutable, IntoBytes};

/// Writes a memfd and returns its address.
pub(super) fn write(memory: &mut Memory, memfd: &Memfd) -> u64 {
    match &memfd.contents {
        Contents::Folios {
            folios,
            array_order,
        } => {
            let folios = folios.iter().map(|&(index, order)| (index, order, true));
            describe_folios(memory, memfd, folios, *array_order)
        }
        Contents::MixedFolios {
            folios,
            array_order,
        } => describe_folios(memory, memfd, folios.iter().copied(), *array_order),
        Contents::Ranges(ranges) => {
            let mut entries = Vec::new();
            for range in ranges {
                entries.extend(range_entries(memory, range));
            }
            description(memory, memfd, &entries, IN_HEAD, 0)
        }
        Contents::Tables {
            ranges,
            placed,
            tables,
        } => {
            let mut entries = Vec::new();
            for range in ranges {
                entries.extend(range_entries(memory, range));
            }
            let mut first = Vec::new();
            for &nr_pages in placed {
                let pfn = memory.allocate_pages(nr_pages) / PAGE_SIZE as u64;
                first.push(pfn);
                let entry = ExtentSer::placed(pfn, nr_pages).expect("a size that can be written");
                entries.push(entry.starting_range(true));
            }
            for table in tables {
                entries.push(table_entry(memory, &first, table));
            }
            description(memory, memfd, &entries, IN_HEAD, 0)
        }
    }
}

/// Preserves folios and writes the description of them: index, order and whether the data is valid.
fn describe_folios(
    memory: &mut Memory,
    memfd: &Memfd,
    folios: impl Iterator<Item = (u64, u32, bool)>,
    array_order: u16,
) -> u64 {
    let entry = |(index, order, uptodate)| {
        let pa = memory.allocate(order);
        let entry = FolioSer::new(pa / PAGE_SIZE as u64, index);
        let [word, index]: [u64; 2] = zerocopy::transmute!(entry);
        let lacks = if uptodate { 0 } else { flags::UPTODATE };
        zerocopy::transmute!([word & !lacks, index])
    };
    let entries: Vec<FolioSer> = folios.map(entry).collect();
    description(memory, memfd, &entries, 0, array_order)
}

/// The fewest pages that the module preserves as blocks, not each by itself.
const MIN_BLOCKS: u64 = 32;

/// Preserves the pages of a range and returns the entries of its extents.
fn range_entries(memory: &mut Memory, range: &Range) -> Vec<ExtentSer> {
    let nr_pages = range.extents.iter().map(|(_, nr_pages)| nr_pages).sum();
    let first = match range.order {
        0 if nr_pages < MIN_BLOCKS => memory.allocate_single_pages(nr_pages),
        _ => memory.allocate_pages(nr_pages),
    } / PAGE_SIZE as u64;
    let mut pfn = first;
    let entry = |&(index, nr_pages): &(u64, u64)| {
        let extent = Extent {
            pfn,
            index,
            nr_pages,
            order: range.order,
        };
        pfn += nr_pages;
        let entry = ExtentSer::new(&extent).expect("of a size that can be written");
        entry.starting_range(extent.pfn == first)
    };
    range.extents.iter().map(entry).collect()
}

/// Writes a table and returns its entry. `placed` are the first frames of the placed ranges.
fn table_entry(memory: &mut Memory, placed: &[u64], table: &Table) -> ExtentSer {
    let is_single = |slot: &&Slot| **slot == Slot::Single;
    let nr_singles = table.slots.iter().filter(is_single).count() as u64;
    // The last one first: no two follow one another in memory and in the file.
    let mut single = match nr_singles {
        0 => 0,
        _ => memory.allocate_single_pages(nr_singles) / PAGE_SIZE as u64 + nr_singles,
    };
    let frame = |slot: &Slot| {
        FrameSer::new(match *slot {
            Slot::Single => {
                single -= 1;
                Frame::Single(single)
            }
            Slot::Placed(range, page) => Frame::Placed(placed[range] + page),
        })
    };
    let frames: Vec<_> = table.slots.iter().map(frame).collect();
    assert_eq!(frames.len(), TABLE_FRAMES);
    let pa = memory.allocate(0);
    memory.put(pa, 0, frames.as_bytes());
    ExtentSer::table(pa / PAGE_SIZE as u64, table.index).expect("an index that can be written")
}

/// Writes the description of a memfd with these entries, up to `in_head` of them beside it.
fn description<T: IntoBytes + Immutable>(
    memory: &mut Memory,
    memfd: &Memfd,
    entries: &[T],
    in_head: usize,
    array_order: u16,
) -> u64 {
    let (beside, rest) = entries.split_at(in_head.min(entries.len()));
    let ser = MemfdSer {
        pos: memfd.pos,
        size: memfd.size,
        seals: memfd.seals,
        flags: 0,
        nr_entries: entries.len() as u64,
        entries: match rest {
            [] => VmallocSer::new(0, 0),
            rest => array(memory, rest, array_order),
        },
    };
    let pa = memory.allocate(0);
    memory.put(pa, 0, ser.as_bytes());
    memory.put(pa, size_of::<MemfdSer>(), beside.as_bytes());
    pa
}

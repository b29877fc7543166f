// SPDX-License-Identifier: GPL-2.0

//! Takes memfds over, in the steps of the module's `memfd/description.rs`.

use super::{
    range::{claim_range, key_order, Found, Piece, Preserved, Ranges},
    table::{PlacedPages, RestoredTable},
    Incoming,
};
use crate::{
    handover::{
        extent::{Entry, Extent, ExtentCheck, ExtentSer, IN_HEAD},
        memfd::{Folio, FolioCheck, FolioSer, MemfdSer, KNOWN_SEALS, MAX_ORDER},
        vmalloc::{self, CHUNK_CAPACITY},
        Malformed, Source, PAGE_SIZE,
    },
    locate::flags,
    memory::scratch,
    write::{Contents, Memfd, Range},
};
use zerocopy::{FromBytes, Immutable, KnownLayout};

/// An encoding.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    V2,
    Extents,
}

/// Pages that follow one another in memory and in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Frames {
    /// The first page frame number.
    pub pfn: u64,
    /// Where in the file the first page is, in pages.
    pub index: u64,
    /// Number of pages.
    pub nr_pages: u64,
    /// Whether what is in them is valid. Else they are zeroed.
    pub uptodate: bool,
}

/// A memfd that was taken over.
pub(super) struct Retrieved {
    pub(super) memfd: Memfd,
    /// Where its data is.
    pub(super) data: Vec<Frames>,
    /// The pages that it was described in.
    pub(super) description: Vec<u64>,
}

/// Takes over the memfd at `pa`.
pub(super) fn read(
    incoming: &Incoming<'_>,
    format: Format,
    pa: u64,
) -> Result<Retrieved, Malformed> {
    let in_head = match format {
        Format::V2 => 0,
        Format::Extents => IN_HEAD,
    };
    let mut head = scratch();
    if !incoming.read(pa, &mut head) {
        return Err(Malformed::NotPreserved(pa));
    }
    let (memfd, beside) = MemfdSer::read_from_prefix(&head.0).expect("a page is larger");
    memfd.validate(in_head)?;
    if memfd.seals & !KNOWN_SEALS != 0 {
        return Err(Malformed::Field("memfd seals"));
    }
    assert!(memfd.pos <= i64::MAX as u64 && memfd.size <= i64::MAX as u64);
    assert_eq!(memfd.flags, 0);
    incoming.claim(pa, 0)?;
    let Array {
        chunks,
        pages: array,
    } = match memfd.nr_in_array(in_head) {
        0 => Array::default(),
        _ => claim_array(incoming, &memfd, in_head)?,
    };

    incoming.asked.set(0);
    let found = match format {
        Format::V2 => folios(incoming, &memfd, entries(incoming, &memfd, &[], &array))?,
        Format::Extents => extents(incoming, &memfd, entries(incoming, &memfd, beside, &array))?,
    };
    let asked = incoming.asked.get();
    // Each entry names at least a key, and where pages are listed twice there are soon more than there is memory.
    let most = 2 * found.nr_entries as u64 + incoming.memory.nr_frames();
    assert!(asked <= most, "KHO was asked {asked} times");

    let mut placed = PlacedPages::default();
    for range in &found.ranges {
        claim_range(incoming, range)?;
        range.placed().for_each(|pages| placed.add(pages));
    }
    // The last one first, as the module.
    let tables = found.tables.iter().rev();
    let mut tables = tables
        .map(|table| table.restore(incoming, &mut placed))
        .collect::<Result<Vec<_>, _>>()?;
    tables.reverse();
    placed.finish()?;
    check_places(&memfd, &found.ranges, &tables)?;
    let data = found.ranges.iter().flat_map(frames);
    let data = data.chain(tables.iter().flat_map(RestoredTable::frames));
    let data = data.collect();
    let lists = tables.iter().map(RestoredTable::pa);
    let description = [pa].into_iter().chain(chunks).chain(array).chain(lists);
    let description = description.collect();
    let memfd = Memfd {
        pos: memfd.pos,
        size: memfd.size,
        seals: memfd.seals,
        contents: match format {
            Format::V2 => contents_v2(&memfd, &found.ranges),
            Format::Extents => contents(found.ranges, tables),
        },
    };
    Ok(Retrieved {
        memfd,
        data,
        description,
    })
}

/// What was in a memfd of folios.
fn contents_v2(memfd: &MemfdSer, ranges: &[Preserved]) -> Contents {
    let array_order = match memfd.nr_entries {
        0 => 0,
        _ => memfd.entries.order,
    };
    let pieces = ranges.iter().flat_map(|range| &range.pieces);
    let folio = |piece: &Piece| (piece.extent.index, piece.extent.order, piece.uptodate);
    let folios: Vec<_> = pieces.map(folio).collect();
    if folios.iter().any(|&(_, _, uptodate)| !uptodate) {
        return Contents::MixedFolios {
            folios,
            array_order,
        };
    }
    let folios = folios.iter().map(|&(index, order, _)| (index, order));
    Contents::Folios {
        folios: folios.collect(),
        array_order,
    }
}

/// What was in a memfd of extents.
fn contents(ranges: Vec<Preserved>, tables: Vec<RestoredTable>) -> Contents {
    let placed: Vec<_> = ranges.iter().flat_map(Preserved::placed).collect();
    let range = |it: &Preserved| Range {
        order: it.order,
        extents: it.places().collect(),
    };
    let listed = ranges.iter().map(range).filter(|it| !it.extents.is_empty());
    if tables.is_empty() {
        assert!(placed.is_empty(), "placed pages without a table");
        return Contents::Ranges(listed.collect());
    }
    Contents::Tables {
        ranges: listed.collect(),
        placed: placed.iter().map(|it| it.nr_pages).collect(),
        tables: tables.into_iter().map(RestoredTable::into_table).collect(),
    }
}

/// The pages of an array of entries.
#[derive(Default)]
struct Array {
    /// Those that list the others.
    chunks: Vec<u64>,
    /// Those that have the entries.
    pages: Vec<u64>,
}

/// Takes over the pages of the array.
fn claim_array(
    incoming: &Incoming<'_>,
    memfd: &MemfdSer,
    in_head: usize,
) -> Result<Array, Malformed> {
    let array = memfd.entries;
    let (mut chunks, mut pages) = (Vec::new(), Vec::new());
    incoming.memory.take_reads();
    let walked = array.walk(incoming, &mut scratch(), |piece| match piece {
        vmalloc::Piece::Chunk(pa) => {
            incoming.claim(pa, 0)?;
            chunks.push(pa);
            Ok(())
        }
        vmalloc::Piece::Pages(pa) => {
            incoming.claim(pa, array.order.into())?;
            pages.extend((0..1 << array.order).map(|i| pa + i * PAGE_SIZE as u64));
            Ok::<_, Malformed>(())
        }
    });
    let reads = incoming.memory.take_reads();
    let most = (u64::from(array.nr_pages) >> array.order.min(10)) / CHUNK_CAPACITY as u64 + 2;
    assert!(reads <= most, "{reads} reads");
    assert!(pages.len() <= array.nr_pages as usize);
    walked?;
    assert_eq!(pages.len(), array.nr_pages as usize);
    assert!(memfd.nr_in_array(in_head) <= (pages.len() * FolioSer::PER_PAGE) as u64);
    Ok(Array { chunks, pages })
}

/// The entries beside the description, and those of the array.
fn entries<'a, T: FromBytes + KnownLayout + Immutable + 'a>(
    incoming: &'a Incoming<'_>,
    memfd: &MemfdSer,
    beside: &'a [u8],
    array: &'a [u64],
) -> impl Iterator<Item = T> + 'a {
    let pages = array.iter().map(|&pa| &incoming.memory.bytes(pa)[..]);
    std::iter::once(beside)
        .chain(pages)
        .flat_map(|bytes| bytes.chunks_exact(size_of::<T>()))
        .map(|bytes| T::read_from_bytes(bytes).expect("the size of an entry"))
        .take(memfd.nr_entries as usize)
}

/// Checks all folios before any is touched, and the invariants of what comes out.
fn folios(
    incoming: &Incoming<'_>,
    memfd: &MemfdSer,
    entries: impl Iterator<Item = FolioSer>,
) -> Result<Found, Malformed> {
    let check = FolioCheck::new(memfd);
    let mut before: Option<Extent> = None;
    let mut ranges = Ranges::new(incoming);
    for entry in entries {
        ranges.nr_entries += 1;
        if entry.pfn() == 0 {
            continue;
        }
        let order = key_order(incoming, entry.pfn())?;
        let folio = check.check(&entry, order)?;
        check_folio(memfd, &entry, order, &folio);
        let extent = Extent::folio(folio.pfn, folio.index, folio.order);
        let starts_range = !before.is_some_and(|before| before.adjoins(&extent));
        before = Some(extent);
        let piece = Piece {
            extent,
            is_placed: false,
            uptodate: folio.uptodate,
        };
        ranges.add(piece, starts_range)?;
    }
    ranges.finish()
}

/// The same for extents. Takes the tables over.
fn extents(
    incoming: &Incoming<'_>,
    memfd: &MemfdSer,
    entries: impl Iterator<Item = ExtentSer>,
) -> Result<Found, Malformed> {
    let mut check = ExtentCheck::new(memfd);
    let mut ranges = Ranges::new(incoming);
    for entry in entries {
        ranges.nr_entries += 1;
        match check.next(&entry)? {
            Entry::Pages {
                extent,
                is_placed,
                starts_range,
            } => {
                if is_placed {
                    check_placed(&extent);
                } else {
                    check_extent(memfd, &extent);
                }
                let piece = Piece {
                    extent,
                    is_placed,
                    uptodate: true,
                };
                ranges.add(piece, starts_range)?;
            }
            Entry::Table(table) => {
                check_table(memfd, &table);
                ranges.add_table(&table)?;
            }
        }
    }
    ranges.finish()
}

/// Fails where two are in one place of the file, as the file itself does.
fn check_places(
    memfd: &MemfdSer,
    ranges: &[Preserved],
    tables: &[RestoredTable],
) -> Result<(), Malformed> {
    let extents = ranges.iter().flat_map(Preserved::places);
    let mut places: Vec<_> = extents
        .chain(tables.iter().map(RestoredTable::place))
        .collect();
    places.sort_unstable();
    let mut free = 0;
    for &(index, nr_pages) in &places {
        assert!(index < memfd.nr_pages());
        if index < free {
            return Err(Malformed::Field("two in one place"));
        }
        free = index + nr_pages;
    }
    Ok(())
}

/// Where the data of a range is, but for that of placed pages.
fn frames(range: &Preserved) -> impl Iterator<Item = Frames> + '_ {
    let extents = range.pieces.iter().filter(|piece| !piece.is_placed);
    extents.map(|piece| Frames {
        pfn: piece.extent.pfn,
        index: piece.extent.index,
        nr_pages: piece.extent.nr_pages,
        uptodate: piece.uptodate,
    })
}

/// Checks the invariants of a folio.
pub(crate) fn check_folio(memfd: &MemfdSer, entry: &FolioSer, order: u32, folio: &Folio) {
    let size = 1u128 << folio.order;
    assert_eq!((folio.pfn, folio.index), (entry.pfn(), entry.index()));
    assert_eq!(folio.order, order);
    let [word, _]: [u64; 2] = zerocopy::transmute!(*entry);
    assert_eq!(folio.uptodate, word & flags::UPTODATE != 0);
    assert_eq!(u128::from(folio.index) % size, 0);
    assert!(u128::from(folio.index) * (PAGE_SIZE as u128) < u128::from(memfd.size));
}

/// Checks the invariants of an extent.
fn check_extent(memfd: &MemfdSer, extent: &Extent) {
    let nr_pages = memfd.nr_pages();
    assert!(extent.pfn != 0 && extent.nr_pages != 0 && extent.index < nr_pages);
    assert!(extent.end_pfn() <= 1 << 52 && extent.order <= MAX_ORDER);
    match extent.order {
        0 => assert!(extent.end_index() <= nr_pages),
        order => assert_eq!(
            (extent.nr_pages, extent.index % (1 << order)),
            (1 << order, 0)
        ),
    }
}

/// Checks the invariants of placed pages.
fn check_placed(extent: &Extent) {
    assert!(extent.pfn != 0 && extent.nr_pages != 0 && extent.end_pfn() <= 1 << 52);
    assert_eq!((extent.index, extent.order), (0, 0));
}

/// Checks the invariants of the entry of a table.
fn check_table(memfd: &MemfdSer, table: &Extent) {
    assert!(table.pfn != 0 && table.pfn < 1 << 52);
    assert!(table.end_index() <= memfd.nr_pages());
    assert_eq!(
        (table.index % 512, table.nr_pages, table.order),
        (0, 512, 0)
    );
}

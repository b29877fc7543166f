// SPDX-License-Identifier: GPL-2.0

//! Takes memfds over, in the steps of the module's `memfd/restore.rs`.

use super::Incoming;
use crate::{
    handover::{
        extent::{Extent, ExtentCheck, ExtentSer, KeyWalk, IN_HEAD},
        memfd::{Folio, FolioCheck, FolioSer, MemfdSer, KNOWN_SEALS, MAX_ORDER},
        vmalloc::{Piece, CHUNK_CAPACITY},
        Malformed, Source, PAGE_SIZE,
    },
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

/// Frames that are preserved as a whole, and the extents in them.
struct Preserved {
    pfn: u64,
    end: u64,
    range: Range,
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
}

/// Takes over the memfd at `pa`. Returns it, and where its data is.
pub(super) fn read(
    incoming: &Incoming<'_>,
    format: Format,
    pa: u64,
) -> Result<(Memfd, Vec<Frames>), Malformed> {
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
    let array = match memfd.nr_in_array(in_head) {
        0 => Vec::new(),
        _ => claim_array(incoming, &memfd, in_head)?,
    };

    incoming.asked.set(0);
    let (ranges, nr_entries) = match format {
        Format::V2 => folios(incoming, &memfd, entries(incoming, &memfd, &[], &array))?,
        Format::Extents => extents(incoming, &memfd, entries(incoming, &memfd, beside, &array))?,
    };
    let asked = incoming.asked.get();
    // Each entry names at least a key, and where pages are listed twice there are soon more than there is memory.
    let most = 2 * nr_entries as u64 + incoming.memory.nr_frames();
    assert!(asked <= most, "KHO was asked {asked} times");

    for range in &ranges {
        claim_range(incoming, range)?;
    }
    check_places(&memfd, &ranges)?;
    let frames = ranges.iter().flat_map(frames).collect();
    let memfd = Memfd {
        pos: memfd.pos,
        size: memfd.size,
        seals: memfd.seals,
        contents: match format {
            Format::V2 => Contents::Folios {
                folios: ranges.iter().flat_map(folios_of).collect(),
                array_order: match memfd.nr_entries {
                    0 => 0,
                    _ => memfd.entries.order,
                },
            },
            Format::Extents => Contents::Ranges(ranges.into_iter().map(|it| it.range).collect()),
        },
    };
    Ok((memfd, frames))
}

/// Takes over the pages of the array, and returns the addresses of all that have entries.
fn claim_array(
    incoming: &Incoming<'_>,
    memfd: &MemfdSer,
    in_head: usize,
) -> Result<Vec<u64>, Malformed> {
    let array = memfd.entries;
    let mut pages = Vec::new();
    incoming.memory.take_reads();
    let walked = array.walk(incoming, &mut scratch(), |piece| match piece {
        Piece::Chunk(pa) => incoming.claim(pa, 0),
        Piece::Pages(pa) => {
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
    Ok(pages)
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

/// Checks all folios before any is touched, and the invariants of what comes out. Returns their ranges, and the
/// number of entries.
fn folios(
    incoming: &Incoming<'_>,
    memfd: &MemfdSer,
    entries: impl Iterator<Item = FolioSer>,
) -> Result<(Vec<Preserved>, usize), Malformed> {
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
        ranges.add(extent, starts_range)?;
    }
    ranges.finish()
}

/// The same for extents.
fn extents(
    incoming: &Incoming<'_>,
    memfd: &MemfdSer,
    entries: impl Iterator<Item = ExtentSer>,
) -> Result<(Vec<Preserved>, usize), Malformed> {
    let mut check = ExtentCheck::new(memfd);
    let mut ranges = Ranges::new(incoming);
    for entry in entries {
        ranges.nr_entries += 1;
        let (extent, starts_range) = check.next(&entry)?;
        check_extent(memfd, &extent);
        ranges.add(extent, starts_range)?;
    }
    ranges.finish()
}

/// The ranges that extents make, with the keys that they are preserved by.
struct Ranges<'a> {
    incoming: &'a Incoming<'a>,
    keys: KeyWalk,
    ranges: Vec<Preserved>,
    nr_entries: usize,
}

impl<'a> Ranges<'a> {
    fn new(incoming: &'a Incoming<'a>) -> Self {
        Self {
            incoming,
            keys: KeyWalk::new(),
            ranges: Vec::new(),
            nr_entries: 0,
        }
    }

    fn add(&mut self, extent: Extent, starts_range: bool) -> Result<(), Malformed> {
        let key = |pfn| key_order(self.incoming, pfn);
        self.keys.advance(&extent, starts_range, key)?;
        let place = (extent.index, extent.nr_pages);
        match self.ranges.last_mut() {
            Some(last) if !starts_range => {
                assert_eq!(
                    (last.end, last.range.order, extent.order),
                    (extent.pfn, 0, 0)
                );
                last.end = extent.end_pfn();
                last.range.extents.push(place);
            }
            _ => self.ranges.push(Preserved {
                pfn: extent.pfn,
                end: extent.end_pfn(),
                range: Range {
                    order: extent.order,
                    extents: vec![place],
                },
            }),
        }
        Ok(())
    }

    fn finish(self) -> Result<(Vec<Preserved>, usize), Malformed> {
        self.keys.finish()?;
        Ok((self.ranges, self.nr_entries))
    }
}

/// Of which order the preservation at a frame is.
fn key_order(incoming: &Incoming<'_>, pfn: u64) -> Result<u32, Malformed> {
    let pa = pfn
        .checked_mul(PAGE_SIZE as u64)
        .ok_or(Malformed::Field("frame"))?;
    incoming.order(pa).ok_or(Malformed::NotPreserved(pa))
}

/// Takes the pages of a range over, key by key.
fn claim_range(incoming: &Incoming<'_>, range: &Preserved) -> Result<(), Malformed> {
    let mut pfn = range.pfn;
    while pfn < range.end {
        let order = key_order(incoming, pfn)?;
        let whole = range.range.order;
        assert!(whole == 0 || order == whole, "a folio of {whole} in pieces");
        incoming.claim(pfn * PAGE_SIZE as u64, order)?;
        pfn += 1 << order;
    }
    assert_eq!(
        pfn, range.end,
        "keys reach beyond the range that was checked"
    );
    Ok(())
}

/// Fails where two extents are in one place of the file, as the file itself does.
fn check_places(memfd: &MemfdSer, ranges: &[Preserved]) -> Result<(), Malformed> {
    let mut places: Vec<_> = ranges.iter().flat_map(|it| &it.range.extents).collect();
    places.sort_unstable();
    let mut free = 0;
    for &&(index, nr_pages) in &places {
        assert!(index < memfd.nr_pages());
        if index < free {
            return Err(Malformed::Field("two in one place"));
        }
        free = index + nr_pages;
    }
    Ok(())
}

/// Where the data of a range is.
fn frames(range: &Preserved) -> impl Iterator<Item = Frames> + '_ {
    let mut pfn = range.pfn;
    range.range.extents.iter().map(move |&(index, nr_pages)| {
        let first = pfn;
        pfn += nr_pages;
        Frames {
            pfn: first,
            index,
            nr_pages,
        }
    })
}

/// Index and order of each folio of a range.
fn folios_of(range: &Preserved) -> impl Iterator<Item = (u64, u32)> + '_ {
    let order = range.range.order;
    range
        .range
        .extents
        .iter()
        .map(move |&(index, _)| (index, order))
}

/// Checks the invariants of a folio.
pub(crate) fn check_folio(memfd: &MemfdSer, entry: &FolioSer, order: u32, folio: &Folio) {
    let size = 1u128 << folio.order;
    assert_eq!((folio.pfn, folio.index), (entry.pfn(), entry.index()));
    assert_eq!(folio.order, order);
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

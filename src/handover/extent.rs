// SPDX-License-Identifier: GPL-2.0

//! Layout of "memfd-extents-v2": a memfd as a list of its extents.
//!
//! This project's own. The description is the one of "memfd-v2", [`MemfdSer`]. The first [`IN_HEAD`]
//! entries, which are often all, stand behind it in its page; the others in its array. An entry is an
//! [`ExtentSer`], of one of three kinds:
//!
//! * An *extent* is a run of pages that follow one another in the file and in memory. Extents are in
//!   the order of memory, and those that adjoin there make a *range*, which is preserved as a whole.
//!   So KHO has few keys in whatever order a guest touched its memory: they are what the boot of the
//!   next kernel takes time for.
//! * A [*table*](super::table) lists the frames of pages that follow one another in the file, where
//!   there would be many extents: the next kernel puts it into the file as it is.
//! * *Placed pages* are a run in memory, too, and a range or part of one, but their places in the
//!   file are in tables. This kernel writes them as ranges of their own. The pages of tables that are
//!   in no range are preserved one by one.

use super::{
    luo::Compatible,
    memfd::{MemfdSer, MAX_ORDER},
    table::TABLE_FRAMES,
    Malformed, PAGE_SIZE, PFN_BITS,
};
use core::mem::size_of;
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Compatible string of this layout.
pub(crate) const COMPATIBLE_EXTENTS: Compatible = Compatible::from_str("memfd-extents-v2");

/// Compatible string of the layout before there were tables, of which all else is the same: it is read
/// as this one.
pub(crate) const COMPATIBLE_EXTENTS_V1: Compatible = Compatible::from_str("memfd-extents-v1");

/// An extent of a memfd.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub(crate) struct ExtentSer {
    /// The first page frame number in the low 52 bits, flags in the others.
    pfn_flags: u64,
    /// The offset in the file, in pages.
    index: u32,
    /// Number of pages.
    nr_pages: u32,
}

const _: () = assert!(size_of::<ExtentSer>() == 16);

/// How many entries there are in the page of the description.
pub(crate) const IN_HEAD: usize = (PAGE_SIZE - size_of::<MemfdSer>()) / size_of::<ExtentSer>();

/// The extent is one folio of this order.
const FLAGS_ORDER: u64 = 0xf;
/// A range starts with this extent.
const FLAG_RANGE: u64 = 1 << 4;
/// The entry is of placed pages: it has no index.
const FLAG_PLACED: u64 = 1 << 5;
/// The entry is a table, of which the frame is.
const FLAG_TABLE: u64 = 1 << 6;

/// An extent of a memfd that may be put into the file.
///
/// # Invariants
///
/// The pages are within the file; only a large folio may reach beyond its end. A large folio has
/// `1 << order` pages and its index is a multiple of that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    /// The first page frame number.
    pub(crate) pfn: u64,
    /// The offset in the file, in pages.
    pub(crate) index: u64,
    /// Number of pages.
    pub(crate) nr_pages: u64,
    /// Pages of their own if 0, else the extent is one folio of this order.
    pub(crate) order: u32,
}

impl Extent {
    /// A single folio of order `order`.
    pub(crate) const fn folio(pfn: u64, index: u64, order: u32) -> Self {
        Self {
            pfn,
            index,
            nr_pages: 1 << order,
            order,
        }
    }

    /// The page frame number behind the extent.
    pub(crate) fn end_pfn(&self) -> u64 {
        self.pfn.saturating_add(self.nr_pages)
    }

    /// The offset in the file behind the extent.
    pub(crate) fn end_index(&self) -> u64 {
        self.index.saturating_add(self.nr_pages)
    }

    /// Whether `next` can be in the same range: it adjoins in memory, and neither is a large folio,
    /// which must be restored as it was.
    pub(crate) fn adjoins(&self, next: &Self) -> bool {
        self.order == 0 && next.order == 0 && next.pfn == self.end_pfn()
    }

    /// Makes `next` a part of this, if it follows in memory and in the file, too.
    pub(crate) fn merge(&mut self, next: &Self) -> bool {
        let total = self.nr_pages + next.nr_pages;
        let mergeable =
            self.adjoins(next) && next.index == self.end_index() && total <= u64::from(u32::MAX);
        if mergeable {
            self.nr_pages = total;
        }
        mergeable
    }
}

impl ExtentSer {
    /// An extent, with which no range starts. `None` for one that is too large.
    pub(crate) fn new(extent: &Extent) -> Option<Self> {
        Some(Self {
            pfn_flags: extent.pfn | u64::from(extent.order) << PFN_BITS,
            index: u32::try_from(extent.index).ok()?,
            nr_pages: u32::try_from(extent.nr_pages).ok()?,
        })
    }

    /// The same, with which a range starts or does not.
    pub(crate) fn starting_range(self, starts: bool) -> Self {
        let flag = FLAG_RANGE << PFN_BITS;
        let pfn_flags = self.pfn_flags & !flag | if starts { flag } else { 0 };
        Self { pfn_flags, ..self }
    }

    /// Placed pages, with which no range starts. `None` for too many.
    pub(crate) fn placed(pfn: u64, nr_pages: u64) -> Option<Self> {
        Some(Self {
            pfn_flags: pfn | FLAG_PLACED << PFN_BITS,
            index: 0,
            nr_pages: u32::try_from(nr_pages).ok()?,
        })
    }

    /// The table in the page with frame `pfn`, for pages from `index` of the file on. `None` for an
    /// index that is too large.
    pub(crate) fn table(pfn: u64, index: u64) -> Option<Self> {
        Some(Self {
            pfn_flags: pfn | FLAG_TABLE << PFN_BITS,
            index: u32::try_from(index).ok()?,
            nr_pages: TABLE_FRAMES as u32,
        })
    }

    /// The first page frame number.
    pub(crate) fn pfn(&self) -> u64 {
        self.pfn_flags & ((1 << PFN_BITS) - 1)
    }

    /// Whether these are placed pages.
    pub(crate) fn is_placed(&self) -> bool {
        self.flags() & FLAG_PLACED != 0
    }

    /// Whether a range starts with this extent.
    pub(crate) fn starts_range(&self) -> bool {
        self.flags() & FLAG_RANGE != 0
    }

    /// Whether these are single pages, in their places or placed by tables.
    pub(crate) fn is_run(&self) -> bool {
        self.flags() & (FLAGS_ORDER | FLAG_TABLE) == 0
    }

    /// The flags.
    fn flags(&self) -> u64 {
        self.pfn_flags >> PFN_BITS
    }

    /// The extent as it was written, unchecked: for who wrote it.
    pub(crate) fn extent(&self) -> Extent {
        Extent {
            pfn: self.pfn(),
            index: self.index.into(),
            nr_pages: self.nr_pages.into(),
            order: (self.flags() & FLAGS_ORDER) as u32,
        }
    }

    /// What the entry is, unchecked: for who wrote it or has checked it.
    pub(crate) fn entry(&self) -> Entry {
        let extent = self.extent();
        if self.flags() & FLAG_TABLE != 0 {
            Entry::Table(extent)
        } else {
            Entry::Pages {
                extent,
                is_placed: self.is_placed(),
                starts_range: self.starts_range(),
            }
        }
    }
}

/// An entry that was checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// Pages that follow one another in memory.
    Pages {
        /// The pages.
        extent: Extent,
        /// Whether tables tell where they are in the file; if not, they follow one another there.
        is_placed: bool,
        /// Whether a range starts with them.
        starts_range: bool,
    },
    /// A table in the page with this frame, for [`TABLE_FRAMES`] pages from this index on, which is a
    /// multiple of that.
    Table(Extent),
}

/// Checks the extents of one memfd, in the order of the array.
///
/// That they do not overlap is found out later: in memory, as KHO gives each page once; in the file,
/// as there is a page already.
pub(crate) struct ExtentCheck {
    /// The number of pages of the file.
    nr_pages: u64,
    /// The extent before.
    before: Option<Extent>,
}

impl ExtentCheck {
    /// Begins with the first extent of a memfd.
    pub(crate) fn new(memfd: &MemfdSer) -> Self {
        Self {
            nr_pages: memfd.nr_pages(),
            before: None,
        }
    }

    /// Checks the next entry.
    pub(crate) fn next(&mut self, entry: &ExtentSer) -> Result<Entry, Malformed> {
        if entry.flags() & !(FLAGS_ORDER | FLAG_RANGE | FLAG_PLACED | FLAG_TABLE) != 0 {
            return Err(Malformed::Field("extent flags"));
        }
        let extent = entry.extent();
        if extent.pfn == 0 || extent.end_pfn() > 1 << PFN_BITS {
            return Err(Malformed::Field("extent frame"));
        }
        if extent.order > MAX_ORDER {
            return Err(Malformed::Field("extent order"));
        }
        match entry.entry() {
            Entry::Pages {
                is_placed,
                starts_range,
                ..
            } => {
                if is_placed {
                    check_placed(&extent)?;
                } else {
                    self.check_index(&extent)?;
                }
                let adjoins = self.before.is_some_and(|before| before.adjoins(&extent));
                if !starts_range && !adjoins {
                    return Err(Malformed::Field("extent range"));
                }
                self.before = Some(extent);
            }
            Entry::Table(_) => {
                if entry.flags() != FLAG_TABLE {
                    return Err(Malformed::Field("flags of a table"));
                }
                self.check_table(&extent)?;
                self.before = None;
            }
        }
        // INVARIANT: Checked above.
        Ok(entry.entry())
    }

    fn check_index(&self, extent: &Extent) -> Result<(), Malformed> {
        let inside = if extent.order == 0 {
            extent.nr_pages != 0 && extent.end_index() <= self.nr_pages
        } else {
            extent.nr_pages == 1 << extent.order
                && extent.index % extent.nr_pages == 0
                && extent.index < self.nr_pages
        };
        if !inside {
            return Err(Malformed::Field("extent index"));
        }
        Ok(())
    }

    fn check_table(&self, table: &Extent) -> Result<(), Malformed> {
        let nr_pages = TABLE_FRAMES as u64;
        let inside = table.end_index() <= self.nr_pages;
        if table.nr_pages != nr_pages || table.index % nr_pages != 0 || !inside {
            return Err(Malformed::Field("index of a table"));
        }
        Ok(())
    }
}

fn check_placed(extent: &Extent) -> Result<(), Malformed> {
    if extent.index != 0 || extent.nr_pages == 0 || extent.order != 0 {
        return Err(Malformed::Field("placed pages"));
    }
    Ok(())
}

/// Follows the KHO keys that the extents of a memfd are preserved by.
///
/// A range of pages is preserved as blocks of `1 << order` pages, each of which is a key; how KHO
/// cut it is found out as it is followed. A large folio is one key.
///
/// The same range may be listed again and again, which would make the walk as long as there are
/// entries times keys. So it ends once there are more pages than frames: then a page is listed twice.
pub(crate) struct KeyWalk {
    /// How many pages there were so far.
    pages: u64,
    /// Behind the last frame of all that KHO has a key for.
    frames: u64,
    /// Up to where keys of the current range were found.
    covered: u64,
    /// Up to where extents of the current range were found.
    range_end: u64,
}

impl KeyWalk {
    /// Begins with the first extent of a memfd.
    pub(crate) const fn new() -> Self {
        Self {
            pages: 0,
            frames: 0,
            covered: 0,
            range_end: 0,
        }
    }

    /// Goes on to the next extent. `key` is called for each key that begins in it: it says of which
    /// order the preservation at that frame is.
    pub(crate) fn advance<E: From<Malformed>>(
        &mut self,
        extent: &Extent,
        starts_range: bool,
        mut key: impl FnMut(u64) -> Result<u32, E>,
    ) -> Result<(), E> {
        if starts_range {
            self.finish()?;
            self.covered = extent.pfn;
        }
        self.range_end = extent.end_pfn();
        while self.covered < self.range_end {
            let pfn = self.covered;
            let order = key(pfn)?;
            let size = 1u64
                .checked_shl(order)
                .ok_or(Malformed::Field("order of a preservation"))?;
            if extent.order != 0 && order != extent.order {
                return Err(Malformed::NotPreserved(pfn.saturating_mul(PAGE_SIZE as u64)).into());
            }
            self.covered = pfn.saturating_add(size);
        }
        self.pages = self.pages.saturating_add(extent.nr_pages);
        self.frames = self.frames.max(self.range_end);
        if self.pages > self.frames {
            return Err(Malformed::Field("extents that overlap").into());
        }
        Ok(())
    }

    /// Checks that the last range ends where its keys do: none reaches into what was not listed.
    pub(crate) fn finish(&self) -> Result<(), Malformed> {
        if self.covered != self.range_end {
            return Err(Malformed::Field("extent range"));
        }
        Ok(())
    }
}

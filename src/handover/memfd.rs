// SPDX-License-Identifier: GPL-2.0

//! Layout of "memfd-v2": a memfd as a list of its folios.
//!
//! Source: `include/linux/kho/abi/memfd.h` of Linux 7.3.

use super::{luo::Compatible, vmalloc::VmallocSer, Malformed, PAGE_SIZE, PFN_BITS};
use core::mem::size_of;
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Compatible string of this layout.
pub(crate) const COMPATIBLE_V2: Compatible = Compatible::from_str("memfd-v2");

/// The largest size of a file, in bytes.
const MAX_SIZE: u64 = i64::MAX as u64;

/// A memfd.
#[repr(C)]
#[derive(Clone, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub(crate) struct MemfdSer {
    /// The file position in bytes.
    pub(crate) pos: u64,
    /// The file size in bytes.
    pub(crate) size: u64,
    /// The seals, as in the user ABI of fcntl(2).
    pub(crate) seals: u32,
    /// None are defined.
    pub(crate) flags: u32,
    /// Number of entries.
    pub(crate) nr_entries: u64,
    /// The array of [`FolioSer`], or of [`super::extent::ExtentSer`] in the layout that has them;
    /// nothing in it is valid if there are no entries in it.
    pub(crate) entries: VmallocSer,
}

/// The seals that a memfd of this layout may have.
///
/// `F_SEAL_SEAL`, `F_SEAL_SHRINK`, `F_SEAL_GROW`, `F_SEAL_WRITE`, `F_SEAL_FUTURE_WRITE` and
/// `F_SEAL_EXEC`.
pub(crate) const KNOWN_SEALS: u32 = 0x3f;

impl MemfdSer {
    /// Checks all that can be told from the structure alone, of a layout that has up to `in_head`
    /// entries beside the structure before those in the array.
    pub(crate) fn validate(&self, in_head: usize) -> Result<(), Malformed> {
        if self.pos > MAX_SIZE {
            return Err(Malformed::Field("memfd position"));
        }
        if self.size > MAX_SIZE {
            return Err(Malformed::Field("memfd size"));
        }
        if self.flags != 0 {
            return Err(Malformed::Field("memfd flags"));
        }
        let in_array = self.nr_in_array(in_head);
        let room = u64::from(self.entries.nr_pages) * FolioSer::PER_PAGE as u64;
        if in_array > room && in_array != 0 {
            return Err(Malformed::Count(self.nr_entries));
        }
        Ok(())
    }

    /// The number of entries in the array.
    pub(crate) fn nr_in_array(&self, in_head: usize) -> u64 {
        self.nr_entries.saturating_sub(in_head as u64)
    }

    /// The number of pages of the file, the last of which may be partly used.
    pub(crate) fn nr_pages(&self) -> u64 {
        self.size.div_ceil(PAGE_SIZE as u64)
    }
}

/// A folio of a memfd.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub(crate) struct FolioSer {
    /// The page frame number in the low 52 bits, flags in the others.
    pfn_flags: u64,
    /// The offset in the file, in pages.
    index: u64,
}

const _: () = assert!(size_of::<MemfdSer>() == 48);
const _: () = assert!(size_of::<FolioSer>() == 16);

/// The folio's data must be kept.
const FLAG_DIRTY: u64 = 1 << 0;
/// The folio's data is valid. A folio without it reads as zeroes.
const FLAG_UPTODATE: u64 = 1 << 1;

impl FolioSer {
    /// How many there are in a page of the array.
    pub(crate) const PER_PAGE: usize = PAGE_SIZE / size_of::<Self>();

    /// A folio with data.
    pub(crate) fn new(pfn: u64, index: u64) -> Self {
        Self {
            pfn_flags: pfn | (FLAG_DIRTY | FLAG_UPTODATE) << PFN_BITS,
            index,
        }
    }

    /// The page frame number; 0 where the entry is unused.
    pub(crate) fn pfn(&self) -> u64 {
        self.pfn_flags & ((1 << PFN_BITS) - 1)
    }

    /// The offset in the file, in pages.
    pub(crate) fn index(&self) -> u64 {
        self.index
    }

    /// The flags.
    fn flags(&self) -> u64 {
        self.pfn_flags >> PFN_BITS
    }
}

/// A folio of a memfd that may be put into the file.
///
/// # Invariants
///
/// `index` is a multiple of the folio's size and within the file, and the folio is one that a file may
/// have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Folio {
    /// The page frame number.
    pub(crate) pfn: u64,
    /// The offset in the file, in pages.
    pub(crate) index: u64,
    /// The folio has `1 << order` pages.
    pub(crate) order: u32,
    /// Whether the data is valid.
    pub(crate) uptodate: bool,
}

/// The largest order of a folio that a file may have.
///
/// It is that of a huge page, and of the largest entry that a shmem file has: a folio is never in two.
pub(crate) const MAX_ORDER: u32 = 9;

/// Checks the folios of one memfd.
///
/// They may be in any order: what was a hole at first comes last. That they do not overlap is found
/// out later: in memory, as KHO gives each page once; in the file, as there is a page already.
pub(crate) struct FolioCheck {
    /// The number of pages of the file.
    nr_pages: u64,
}

impl FolioCheck {
    /// Begins with the first folio of a memfd.
    pub(crate) fn new(memfd: &MemfdSer) -> Self {
        Self {
            nr_pages: memfd.nr_pages(),
        }
    }

    /// Checks an entry, whose memory is preserved as a folio of order `order`.
    pub(crate) fn check(&self, entry: &FolioSer, order: u32) -> Result<Folio, Malformed> {
        let index = entry.index();
        if order > MAX_ORDER {
            return Err(Malformed::Field("folio order"));
        }
        if entry.flags() & !(FLAG_DIRTY | FLAG_UPTODATE) != 0 {
            return Err(Malformed::Field("folio flags"));
        }
        if index >= self.nr_pages || index % (1 << order) != 0 {
            return Err(Malformed::Field("folio index"));
        }
        // INVARIANT: The index was checked for alignment and for the file's size, and the order.
        Ok(Folio {
            pfn: entry.pfn(),
            index,
            order,
            uptodate: entry.flags() & FLAG_UPTODATE != 0,
        })
    }
}

// SPDX-License-Identifier: GPL-2.0

//! A memfd that is being filled with pages of the previous kernel.

use super::{description::Refusal, restored_table::RestoredTable, shmem::inode, sort};
use crate::{
    fault,
    handover::{
        extent::Extent,
        memfd::{MemfdSer, MAX_ORDER},
        table::TABLE_FRAMES,
        Malformed, PAGE_SIZE,
    },
    kho::{self, preserved_order},
};
use core::ptr::NonNull;
use kernel::{
    bindings,
    error::{from_err_ptr, to_result},
    fs::File,
    prelude::*,
    sync::aref::ARef,
};

#[cfg(CONFIG_DEBUG_KMEMLEAK)]
extern "C" {
    /// Says that an object is kept on purpose, although nothing leads to it: `mm/kmemleak.c`.
    fn kmemleak_not_leak(object: *const c_void);
}

/// Frames that the previous kernel preserved as a whole.
#[derive(Clone, Copy)]
pub(super) struct PreservedRange {
    /// The first frame.
    pub(super) pfn: u64,
    /// The frame behind the last one.
    pub(super) end: u64,
    /// Whether it is one large folio.
    pub(super) is_folio: bool,
}

impl PreservedRange {
    /// Whether a frame is in the range.
    pub(super) fn contains(&self, pfn: u64) -> bool {
        (self.pfn..self.end).contains(&pfn)
    }

    /// The order of the folios in it.
    pub(super) fn folio_order(&self) -> u32 {
        if self.is_folio {
            (self.end - self.pfn).ilog2()
        } else {
            0
        }
    }

    /// The large folio that it is: for [`super::large::LargeFolios::claim`] to take over.
    pub(super) fn folio(&self) -> Option<Extent> {
        self.is_folio
            .then(|| Extent::folio(self.pfn, 0, self.folio_order()))
    }

    /// Takes single pages over. Fails with `EINVAL` where some have been taken over before.
    ///
    /// On success all pages in the range are ours, each with a reference; else they are kept.
    ///
    /// Context: may sleep.
    pub(super) fn claim(&self) -> Result<(), Refusal> {
        let mut pfn = self.pfn;
        while pfn < self.end {
            // Others wait for this, to take over what is theirs.
            pfn = kho::alone(|| self.claim_some(pfn))?;
        }
        Ok(())
    }

    /// Takes over pages from `start` on, as many as take a millisecond or so. Returns the frame behind
    /// them.
    fn claim_some(&self, start: u64) -> Result<u64, Refusal> {
        const SOME: u64 = 1 << 16;
        // Looked at again: two ranges may claim the same.
        let mut end = start;
        while end < self.end && end - start < SOME {
            end += 1 << key_order(end)?;
        }
        let end = end.min(self.end);
        let pa = start.saturating_mul(PAGE_SIZE as u64);
        // SAFETY: KHO says that all this is preserved.
        let restored = unsafe { bindings::kho_restore_pages(pa, (end - start) as usize) };
        if restored.is_null() {
            return Err(Malformed::NotPreserved(pa).into());
        }
        Ok(end)
    }
}

/// Whether a folio of this order is made of its pages when somebody wants it: to make it takes longer
/// than all else that there is to be done for it while the workload is paused.
fn is_made_later(order: u32) -> bool {
    order != 0
}
// All that are handed over can be.
static_assert!(MAX_ORDER <= bindings::SHMEM_PRESERVED_MAX_ORDER);

/// Pages of the previous kernel that have become pages of this one, to be put into a file.
///
/// Without [`Self::free`] or [`NewMemfd::add`] they are kept for ever: they are the user's data.
///
/// # Invariants
///
/// The pages of the extent are ours: single pages with a reference each, or one large folio with
/// one, or one that is [yet to be made](is_made_later). They are in no file.
pub(super) struct RestoredExtent(Extent);

impl RestoredExtent {
    /// An extent whose range was [claimed](PreservedRange::claim).
    ///
    /// # Safety
    ///
    /// The claim was successful, and this is the only such value for any of the pages.
    pub(super) unsafe fn new(extent: &Extent) -> Self {
        // INVARIANT: By the contract of this function.
        Self(*extent)
    }

    /// Zeroes the pages: there never was anything in them.
    pub(super) fn zero(&self) {
        let len = self.0.nr_pages as usize * PAGE_SIZE;
        // SAFETY: By the type invariant the pages are ours. They are in the direct map, as all memory
        // that KHO preserves.
        unsafe { bindings::phys_to_virt(self.0.pfn * PAGE_SIZE as u64).write_bytes(0, len) };
    }

    /// Which pages they are.
    pub(super) fn extent(&self) -> &Extent {
        &self.0
    }

    /// Adds `next` to this, if it follows in memory and in the file; gives it back if not.
    pub(super) fn merge(&mut self, next: Self) -> Result<(), Self> {
        // INVARIANT: The pages of `next` are now of this.
        if self.0.merge(&next.0) {
            Ok(())
        } else {
            Err(next)
        }
    }

    /// Frees the pages.
    pub(super) fn free(self) {
        let mut pfn = self.0.pfn;
        while pfn < self.0.end_pfn() {
            // SAFETY: By the type invariant the folio is ours, claimed or with a reference.
            unsafe {
                if is_made_later(self.0.order) {
                    bindings::kho_free_claimed(pfn as usize);
                } else {
                    let page = bindings::pfn_to_page(pfn as usize);
                    bindings::folio_put(bindings::page_folio(page));
                }
            }
            pfn += 1 << self.0.order;
        }
    }
}

/// What goes into a file.
pub(super) enum Restored {
    Extent(RestoredExtent),
    Table(RestoredTable),
}

impl Restored {
    /// Frees it.
    pub(super) fn free(self) {
        match self {
            Restored::Extent(extent) => extent.free(),
            Restored::Table(table) => table.free(),
        }
    }
}

/// Extents and tables on their way into a file, many at a time.
///
/// # Invariants
///
/// As for [`RestoredExtent`] and [`RestoredTable`], for each of them.
pub(super) struct Runs(KVVec<bindings::shmem_preserved_run>);

impl Runs {
    /// How many there are at a time: enough that neighbours in the file meet here, few enough that
    /// sorting them takes a few MiB.
    const MAX: usize = 1 << 17;
    /// For how many there is room in any case.
    const MIN: usize = 128;

    /// Room for a few.
    pub(super) fn new() -> Result<Self> {
        Ok(Self(KVVec::with_capacity(Self::MIN, GFP_KERNEL)?))
    }

    /// Whether it is time to [add](NewMemfd::add) them: there is no room for another one, and none to
    /// be had.
    ///
    /// Context: may sleep.
    pub(super) fn is_full(&mut self) -> bool {
        let len = self.0.len();
        len >= Self::MAX || len == self.0.capacity() && self.0.reserve(len, GFP_KERNEL).is_err()
    }

    /// Takes an extent over.
    pub(super) fn push(&mut self, restored: RestoredExtent) -> Result {
        let RestoredExtent(extent) = restored;
        let run = bindings::shmem_preserved_run {
            index: extent.index as usize,
            pfn: extent.pfn as usize,
            nr: extent.nr_pages as usize,
            is_table: false,
            is_claimed: is_made_later(extent.order),
        };
        // INVARIANT: By that of `restored`.
        Ok(self.0.push(run, GFP_KERNEL)?)
    }

    /// Takes a table over.
    pub(super) fn push_table(&mut self, table: RestoredTable) -> Result {
        if let Err(err) = self.0.reserve(1, GFP_KERNEL) {
            core::mem::forget(table);
            return Err(err.into());
        }
        let run = bindings::shmem_preserved_run {
            index: table.index() as usize,
            nr: TABLE_FRAMES,
            pfn: table.into_pfn() as usize,
            is_table: true,
            is_claimed: false,
        };
        // INVARIANT: By that of `table`. There is room: this cannot fail.
        Ok(self.0.push(run, GFP_KERNEL)?)
    }
}

/// Of which order the preservation at frame `pfn` is, which may be any.
pub(super) fn key_order(pfn: u64) -> Result<u32, Malformed> {
    let pa = pfn
        .checked_mul(PAGE_SIZE as u64)
        .ok_or(Malformed::Field("frame"))?;
    preserved_order(pa).ok_or(Malformed::NotPreserved(pa))
}

/// A memfd that nobody has seen yet.
///
/// # Invariants
///
/// `file` is a new memfd: no descriptor and no mapping of a process leads to it.
pub(super) struct NewMemfd {
    file: ARef<File>,
}

impl NewMemfd {
    /// Makes a memfd with the size, position and seals of `memfd`, all hole.
    ///
    /// Context: may sleep.
    pub(super) fn new(memfd: &MemfdSer) -> Result<Self> {
        // To seal an executable file against changes of its mode is to seal it against all changes.
        // So one that is sealed against the first without all others was made not executable.
        let changes = bindings::F_SEAL_SHRINK
            | bindings::F_SEAL_GROW
            | bindings::F_SEAL_WRITE
            | bindings::F_SEAL_FUTURE_WRITE;
        let noexec = memfd.seals & bindings::F_SEAL_EXEC != 0 && memfd.seals & changes != changes;
        let flags = if noexec {
            bindings::MFD_NOEXEC_SEAL
        } else {
            bindings::MFD_ALLOW_SEALING
        };
        fault::point()?;
        // SAFETY: The name ends with a zero.
        let file =
            from_err_ptr(unsafe { bindings::memfd_alloc_file(c"memfd:".as_char_ptr(), flags) })?;
        // SAFETY: The file is new, with one reference, which becomes that of the `ARef`; nobody is
        // inside fdget_pos().
        let file: ARef<File> = unsafe { ARef::from_raw(NonNull::new(file).ok_or(ENOMEM)?.cast()) };

        fault::point()?;
        // SAFETY: The file is valid, and nobody else has it. Position and size were checked to fit.
        unsafe {
            to_result(bindings::memfd_add_seals(file.as_ptr(), memfd.seals))?;
            bindings::i_size_write(inode(&file), i64::try_from(memfd.size)?);
            (*file.as_ptr()).f_pos = i64::try_from(memfd.pos)?;
        }
        // INVARIANT: See above.
        Ok(Self { file })
    }

    /// Puts the pages of `runs` into the file. They are accounted to it, but come into its page cache
    /// when they are touched, or by [`super::shmem::adopt_preserved`]. On failure they are kept:
    /// `EEXIST` where there are pages already.
    ///
    /// Context: may sleep.
    pub(super) fn add(&self, runs: &mut Runs) -> Result {
        // They came in the order of memory. In that of the file it takes a fraction of the time, but
        // any will do: without memory to sort them, and for a task that is killed, too. Nobody is charged
        // for that memory: a cgroup without room for it would have a task killed, with which all may go.
        let _ = sort::by_key(&mut runs.0, GFP_KERNEL, |run| run.index as u64);
        fault::point()?;
        // SAFETY: By their invariants the pages are ours, with valid data, and the file is nobody
        // else's. A large folio's index is aligned.
        to_result(unsafe {
            bindings::shmem_add_preserved(inode(&self.file), runs.0.as_ptr(), runs.0.len() as u32)
        })?;
        // INVARIANT: They are the file's now.
        runs.0.clear();
        Ok(())
    }

    /// The file, filled.
    pub(super) fn into_file(self) -> ARef<File> {
        self.file
    }

    /// Keeps file and folios for ever: they are the user's data.
    pub(super) fn leak(self) {
        #[cfg(CONFIG_DEBUG_KMEMLEAK)]
        // SAFETY: The file is an object that kmemleak knows, and stays.
        unsafe {
            kmemleak_not_leak(self.file.as_ptr().cast())
        };
        core::mem::forget(self);
    }
}

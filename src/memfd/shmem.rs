// SPDX-License-Identifier: GPL-2.0

//! The safe face of shmem: what the memfd handler asks of it.
//!
//! C headers: `include/linux/shmem_fs.h`, `include/linux/memfd.h`, `include/linux/pagemap.h`.

use super::folio::PinnedBatch;
use crate::handover::memfd::KNOWN_SEALS;
use core::{
    ops::Range,
    ptr::{addr_of_mut, null_mut},
};
use kernel::{
    bindings,
    error::to_result,
    fs::File,
    page::PAGE_SHIFT,
    prelude::*,
    sync::{aref::ARef, rcu},
};

/// Whether `file` is on tmpfs and has no name: a memfd, or as good as one.
pub(super) fn is_nameless(file: &File) -> bool {
    // SAFETY: The file is open, so that it has an inode, and both are valid.
    unsafe { bindings::shmem_file(file.as_ptr()) && (*inode(file)).__bindgen_anon_1.i_nlink == 0 }
}

/// The identity of `file`: that of its inode, however often it is opened.
pub(super) fn identity(file: &File) -> usize {
    inode(file) as usize
}

/// The inode of `file`, valid as long as the file.
pub(super) fn inode(file: &File) -> *mut bindings::inode {
    // SAFETY: An open file is valid, and its inode does not change.
    unsafe { (*file.as_ptr()).f_inode }
}

/// The page cache of `file`, valid as long as the file.
pub(super) fn mapping(file: &File) -> *mut bindings::address_space {
    // SAFETY: As for `inode`.
    unsafe { (*inode(file)).i_mapping }
}

/// Lets others run. Fails with `EINTR` when the task was killed.
pub(super) fn yield_cpu() -> Result {
    // SAFETY: The current task is valid; nothing is locked that forbids to sleep.
    unsafe {
        if bindings::fatal_signal_pending(bindings::get_current()) != 0 {
            return Err(EINTR);
        }
        bindings::cond_resched();
    }
    Ok(())
}

/// A memfd that does not change its size and does not lose a page, until this is dropped.
///
/// Truncation, hole punching, fallocate() and writes beyond the end are refused. Reads, writes and
/// page faults go on; faults and writes may fill holes.
///
/// # Invariants
///
/// `file` is a shmem file, and its mapping is frozen by this.
pub(super) struct FrozenMemfd {
    file: ARef<File>,
}

impl FrozenMemfd {
    /// Freezes the mapping of `file`, for which [`is_nameless`] holds and whose identity is taken.
    ///
    /// Context: may sleep; takes the inode's lock.
    pub(super) fn new(file: ARef<File>) -> Self {
        // INVARIANT: The caller holds the identity, so that nobody else freezes or thaws it.
        set_frozen(&file, true);
        Self { file }
    }

    /// The size in bytes.
    pub(super) fn size(&self) -> u64 {
        // SAFETY: The inode is valid.
        let size = unsafe { bindings::i_size_read(inode(&self.file)) };
        u64::try_from(size).unwrap_or(0)
    }

    /// Number of pages that the file has, be they in memory or swapped out.
    pub(super) fn nr_populated(&self) -> u64 {
        // SAFETY: Inode and mapping are valid. The numbers may change at any time.
        unsafe {
            let in_memory = addr_of_mut!((*mapping(&self.file)).nrpages).read_volatile();
            let info = bindings::SHMEM_I(inode(&self.file));
            let swapped = addr_of_mut!((*info).swapped).read_volatile();
            (in_memory as u64).saturating_add(swapped as u64)
        }
    }

    /// The file position in bytes.
    pub(super) fn position(&self) -> u64 {
        // SAFETY: The file is valid. The position may change at any time; any value of it will do.
        let pos = unsafe { addr_of_mut!((*self.file.as_ptr()).f_pos).read_volatile() };
        u64::try_from(pos).unwrap_or(0)
    }

    /// The seals. Fails with `EOPNOTSUPP` for one that cannot be handed over.
    pub(super) fn seals(&self) -> Result<u32> {
        // SAFETY: The file is valid.
        let seals = unsafe { bindings::memfd_get_seals(self.file.as_ptr()) };
        to_result(seals)?;
        let seals = seals as u32;
        if seals & !KNOWN_SEALS != 0 {
            return Err(EOPNOTSUPP);
        }
        Ok(seals)
    }

    /// Brings in what was retrieved and is not in the page cache yet: at once it goes quicker than
    /// page by page.
    pub(super) fn adopt_preserved(&self) -> Result {
        // SAFETY: The inode is valid, and one of shmem.
        let swapped = unsafe { (*bindings::SHMEM_I(inode(&self.file))).swapped };
        if swapped == 0 {
            return Ok(());
        }
        adopt_preserved(&self.file)
    }

    /// The first run of populated pages in `range`, in pages. Swapped out is populated.
    ///
    /// A large folio ends the run after its first page: its size is known when it is pinned.
    pub(super) fn populated(&self, range: Range<u64>) -> Option<Range<u64>> {
        let last = range.end.checked_sub(1)?;
        let mut walk = Walk::new(mapping(&self.file), range.start);
        let start = walk.next(last)?;
        let mut run = start..start + 1;
        while run.end <= last && run.end - run.start < PinnedBatch::MAX as u64 {
            match walk.next(last) {
                Some(index) if index == run.end => run.end += 1,
                _ => break,
            }
        }
        Some(run)
    }

    /// Pins folios that are in the page cache from page `next` on, up to page `end`, and moves `next`
    /// to behind what was looked at. Ends early before one that [`Self::pin`] has more to do for.
    pub(super) fn pin_present(&self, next: &mut u64, end: u64) -> Result<PinnedBatch> {
        let mut folios = KVec::with_capacity(PinnedBatch::MAX, GFP_KERNEL)?;
        let mut index = *next as usize;
        // SAFETY: The file is valid, and there is room for as many folios as are said.
        let pinned = unsafe {
            bindings::memfd_pin_present_folios(
                self.file.as_ptr(),
                &mut index,
                end.saturating_sub(1) as usize,
                folios.as_mut_ptr(),
                PinnedBatch::MAX as u32,
            )
        };
        let pinned = usize::try_from(pinned).map_err(|_| Error::from_errno(pinned as i32))?;
        *next = index as u64;
        // SAFETY: The function wrote that many pointers, of folios that are pinned for us.
        Ok(unsafe { PinnedBatch::new(folios, pinned) })
    }

    /// Pins the folios of the populated pages `run`, which brings back those that are swapped out
    /// and moves those that would be in the way of the next kernel.
    ///
    /// Context: may sleep.
    pub(super) fn pin(&self, run: Range<u64>) -> Result<PinnedBatch> {
        let mut folios = KVec::with_capacity(PinnedBatch::MAX, GFP_KERNEL)?;
        let start = run.start << PAGE_SHIFT;
        let end = (run.end << PAGE_SHIFT).min(self.size());
        let mut offset = 0;
        // SAFETY: The file is valid, and there is room for as many folios as there are pages.
        let pinned = unsafe {
            bindings::memfd_pin_folios(
                self.file.as_ptr(),
                i64::try_from(start)?,
                i64::try_from(end)? - 1,
                folios.as_mut_ptr(),
                PinnedBatch::MAX as u32,
                &mut offset,
            )
        };
        let pinned = usize::try_from(pinned).map_err(|_| Error::from_errno(pinned as i32))?;
        // SAFETY: The function wrote that many pointers, of folios that are pinned for us.
        Ok(unsafe { PinnedBatch::new(folios, pinned) })
    }
}

impl Drop for FrozenMemfd {
    fn drop(&mut self) {
        set_frozen(&self.file, false);
    }
}

/// Brings all pages into the page cache of `file` that a previous kernel preserved and nobody has
/// touched yet; they are charged to the memory cgroup of the caller.
///
/// Ends early with `ENOMEM` if that is full, with `EINTR` when the task was killed. What is left
/// then is brought in by the first touch.
///
/// Context: may sleep, and may take long: it yields the CPU.
pub(super) fn adopt_preserved(file: &File) -> Result {
    let mut index = 0;
    while let Some(found) = first_preserved(file, index) {
        yield_cpu()?;
        let mut folio = null_mut();
        // SAFETY: The inode is valid, and one of shmem. The folio comes locked and with a reference.
        unsafe {
            let sgp = bindings::sgp_type_SGP_READ;
            to_result(bindings::shmem_get_folio(
                inode(file),
                found as usize,
                0,
                &mut folio,
                sgp,
            ))?;
            if !folio.is_null() {
                bindings::folio_unlock(folio);
                bindings::folio_put(folio);
            }
        }
        index = found.saturating_add(1);
    }
    Ok(())
}

/// The offset of the first page from `index` on that is in the file, but not in its page cache.
fn first_preserved(file: &File, index: u64) -> Option<u64> {
    let mut walk = Walk::new(mapping(file), index);
    loop {
        let found = walk.next(usize::MAX as u64)?;
        // SAFETY: The function looks at the entry's value only.
        if unsafe { bindings::shmem_entry_is_preserved(walk.entry) } {
            return Some(found);
        }
    }
}

/// Freezes or thaws the mapping of a shmem file.
fn set_frozen(file: &File, frozen: bool) {
    let inode = inode(file);
    // SAFETY: The inode is valid, and it is one of shmem.
    unsafe {
        bindings::inode_lock(inode);
        bindings::shmem_freeze(inode, frozen);
        bindings::inode_unlock(inode);
    }
}

/// A walk over what a mapping has, in the order of the file.
struct Walk {
    state: bindings::xa_state,
    /// What was found last.
    entry: *mut c_void,
    _rcu: rcu::Guard,
}

impl Walk {
    /// Where a walk begins that has not descended into the tree (`XAS_RESTART`).
    const RESTART: usize = 3;
    /// An entry that says that the tree has changed (`XA_RETRY_ENTRY`).
    const RETRY: usize = 256 << 2 | 2;

    /// Begins at `from`, in pages. `mapping` must stay valid for the walk.
    fn new(mapping: *mut bindings::address_space, from: u64) -> Self {
        Self {
            state: bindings::xa_state {
                // SAFETY: The callers hold the file of the mapping.
                xa: unsafe { addr_of_mut!((*mapping).i_pages) },
                xa_index: from as usize,
                xa_shift: 0,
                xa_sibs: 0,
                xa_offset: 0,
                xa_pad: 0,
                xa_node: Self::RESTART as *mut _,
                xa_alloc: null_mut(),
                xa_update: None,
                xa_lru: null_mut(),
            },
            entry: null_mut(),
            _rcu: rcu::read_lock(),
        }
    }

    /// The offset of the next folio or swap entry, up to `last`.
    fn next(&mut self, last: u64) -> Option<u64> {
        loop {
            // SAFETY: The state is that of a walk of this tree, in one RCU read section.
            let entry = unsafe { bindings::xas_find(&mut self.state, last as usize) };
            match entry as usize {
                0 => return None,
                Self::RETRY => self.state.xa_node = Self::RESTART as *mut _,
                _ => {
                    self.entry = entry;
                    return Some(self.state.xa_index as u64);
                }
            }
        }
    }
}

// SPDX-License-Identifier: GPL-2.0

//! The safe face of shmem: what the memfd handler asks of it.
//!
//! C headers: `include/linux/shmem_fs.h`, `include/linux/memfd.h`, `include/linux/pagemap.h`.

use super::{folio::PinnedBatch, patience::Patience, walk::Walk};
use crate::{fault, handover::memfd::KNOWN_SEALS, task};
use core::{
    ops::Range,
    ptr::{addr_of, addr_of_mut},
};
use kernel::{
    bindings,
    error::{from_err_ptr, to_result},
    fs::File,
    page::PAGE_SHIFT,
    prelude::*,
    sync::aref::ARef,
};

/// How many of the blocks that an inode counts, of 512 bytes, are in a page.
const BLOCKS_PER_PAGE: u64 = 1 << (PAGE_SHIFT - 9);

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
    // SAFETY: An open file is valid, and so is its inode, whose mapping does not change.
    unsafe { (*inode(file)).i_mapping }
}

/// A memfd that does not change its size and does not lose a page within it, until this is dropped.
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
    /// Fails with `EINTR` if the task is killed.
    ///
    /// Context: may sleep; takes the inode's lock.
    pub(super) fn new(file: ARef<File>) -> Result<Self> {
        InodeLock::new(&file)?.freeze();
        // INVARIANT: The caller holds the identity, so that nobody else freezes or thaws it.
        Ok(Self { file })
    }

    /// The size in bytes.
    pub(super) fn size(&self) -> u64 {
        // SAFETY: The inode is valid.
        let size = unsafe { bindings::i_size_read(inode(&self.file)) };
        u64::try_from(size).unwrap_or(0)
    }

    /// Number of pages that the file has, be they in memory or swapped out, or lost by the swap device. Pages on
    /// their way into the file, or out of it, are counted, too.
    ///
    /// These are its blocks. What shmem counts by itself (`alloced`) is too few for good where somebody has
    /// punched a page that was lost in swap: see known-kernel-issues.rst.
    pub(super) fn nr_populated(&self) -> u64 {
        // SAFETY: The inode is valid. The number may change at any time.
        let blocks = unsafe { addr_of_mut!((*inode(&self.file)).i_blocks).read_volatile() };
        blocks / BLOCKS_PER_PAGE
    }

    /// The file position in bytes.
    pub(super) fn position(&self) -> u64 {
        // SAFETY: The file is valid. The position may change at any time; any value of it will do.
        let pos = unsafe { addr_of_mut!((*self.file.as_ptr()).f_pos).read_volatile() };
        u64::try_from(pos).unwrap_or(0)
    }

    /// The seals. Fails with `EOPNOTSUPP` for one that cannot be handed over.
    pub(super) fn seals(&self) -> Result<u32> {
        fault::point()?;
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
        adopt_preserved(&self.file)
    }

    /// The first run of populated pages in `range`, in pages. Swapped out is populated.
    ///
    /// A large folio ends the run after its first page: its size is known when it is pinned.
    pub(super) fn populated(&self, range: Range<u64>) -> Option<Range<u64>> {
        let last = range.end.checked_sub(1)?;
        let mut walk = Walk::new(&self.file, range.start);
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
    ///
    /// Context: may sleep.
    pub(super) fn pin_present(&self, next: &mut u64, end: u64) -> Result<PinnedBatch> {
        loop {
            let mut behind = *next;
            if let Some(batch) = self.try_pin_present(&mut behind, end)? {
                *next = behind;
                return Ok(batch);
            }
            task::yield_cpu()?;
        }
    }

    /// One attempt of [`Self::pin_present`]; `None` if a folio was just being replaced.
    fn try_pin_present(&self, next: &mut u64, end: u64) -> Result<Option<PinnedBatch>> {
        let mut folios = KVec::with_capacity(PinnedBatch::MAX, GFP_KERNEL)?;
        let mut index = *next as usize;
        fault::point()?;
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
        Ok(unsafe { PinnedBatch::new(folios, pinned, mapping(&self.file)) })
    }

    /// Moves pages into a large folio that begins at page `start`, a multiple of its size, if many of
    /// them would have to be moved anyway to be pinned, and none is pinned.
    ///
    /// Fails with `ENOMEM` where there is no memory for a large folio, with `EBUSY` where there is no room
    /// for it in the memory cgroup of the pages, with `EAGAIN` where somebody uses a page just now, and with
    /// something else where just these have to stay small. Then nothing has changed.
    ///
    /// Context: may sleep.
    pub(super) fn collapse(&self, start: u64) -> Result {
        fault::point()?;
        // SAFETY: The file is valid, and one of shmem.
        to_result(unsafe { bindings::memfd_collapse(self.file.as_ptr(), start as usize) })
    }

    /// Pins the folios of the populated pages `run`, which brings back those that are swapped out
    /// and moves those that would be in the way of the next kernel.
    ///
    /// Context: may sleep.
    pub(super) fn pin(&self, run: Range<u64>) -> Result<PinnedBatch> {
        // A folio that somebody reads or writes right now cannot be moved, which is reported as a
        // want of memory: the workload goes on, so that this will happen, and soon be over.
        let mut patience = Patience::for_user();
        loop {
            match self.try_pin(&run) {
                Ok(Some(batch)) => return Ok(batch),
                Ok(None) => {}
                Err(ENOMEM) if patience.wait() => {}
                Err(err) => return Err(err),
            }
            task::yield_cpu()?;
        }
    }

    /// One attempt of [`Self::pin`], if no folio is just being used; `None` if one was just being
    /// replaced.
    fn try_pin(&self, run: &Range<u64>) -> Result<Option<PinnedBatch>> {
        let mut folios = KVec::with_capacity(PinnedBatch::MAX, GFP_KERNEL)?;
        let start = run.start << PAGE_SHIFT;
        let end = (run.end << PAGE_SHIFT).min(self.size());
        let mut offset = 0;
        fault::point()?;
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
        Ok(unsafe { PinnedBatch::new(folios, pinned, mapping(&self.file)) })
    }
}

impl Drop for FrozenMemfd {
    /// Takes no lock, for which it could wait for ever: somebody else's write() may have that of the inode,
    /// and its data come from whoever can let it wait. It is there to keep out a truncation that has begun
    /// when the mapping is frozen, and this keeps out nobody.
    fn drop(&mut self) {
        // SAFETY: The inode is valid, and one of shmem. By the type invariant nobody else changes its flags.
        unsafe { bindings::shmem_freeze(inode(&self.file), false) };
    }
}

/// Brings all pages into the page cache of `file` that a previous kernel preserved and nobody has
/// touched yet; they are charged to the memory cgroup of the caller.
///
/// Ends early with `ENOMEM` if that is full (nobody is killed for it), with `EINTR` when the task was
/// killed. What is left then is brought in by the first touch.
///
/// Context: may sleep, and may take long: it yields the CPU. Takes the inode's lock.
pub(super) fn adopt_preserved(file: &File) -> Result {
    let mut next = Some(0);
    while let Some(index) = next {
        // SAFETY: The inode is valid, and one of shmem. The number may change at any time.
        let swapped =
            unsafe { addr_of_mut!((*bindings::SHMEM_I(inode(file))).swapped).read_volatile() };
        if swapped == 0 {
            break;
        }
        task::yield_cpu()?;
        next = adopt_some(file, index)?;
    }
    Ok(())
}

/// Goes on with [`adopt_preserved`] from page `index` on. Returns where it has not come to yet.
fn adopt_some(file: &File, index: u64) -> Result<Option<u64>> {
    /// How many entries of the file are looked at for one to bring in, and how many times one is, without
    /// a pause. With it come the pages around it, or the large folio that it is.
    const ENTRIES: usize = 4096;
    const TIMES: usize = 64;

    // So that what is found stays, or is brought in by somebody else: a page of a hole that was
    // punched meanwhile would be made anew.
    let _locked = InodeLock::new(file)?;
    let mut index = index;
    for _ in 0..TIMES {
        let mut walk = Walk::new(file, index);
        let mut is_preserved = false;
        for _ in 0..ENTRIES {
            let Some(at) = walk.next(usize::MAX as u64) else {
                return Ok(None);
            };
            index = at;
            is_preserved = walk.is_preserved();
            if is_preserved {
                break;
            }
        }
        drop(walk);
        if !is_preserved {
            return Ok(Some(index.saturating_add(1)));
        }
        adopt(file, index)?;
        index = index.saturating_add(1);
    }
    Ok(Some(index))
}

/// Brings in the page at `index`, which must be in the file.
fn adopt(file: &File, index: u64) -> Result {
    let mapping = mapping(file);
    fault::point()?;
    // SAFETY: The mapping is valid, and one of shmem. The folio comes with a reference.
    unsafe {
        // A cgroup without room is no reason to kill anybody: there is no hurry.
        let patient = 1 << bindings::___GFP_RETRY_MAYFAIL_BIT;
        let gfp = (*mapping).gfp_mask | patient | bindings::__GFP_NOWARN;
        let folio = bindings::shmem_read_folio_gfp(mapping, index as usize, gfp);
        bindings::folio_put(from_err_ptr(folio)?);
    }
    Ok(())
}

/// Whether to bring in the pages of a memfd that is finished would be done for nobody: the session is
/// the last to have it, or is closed as a process ends, which is in no memory cgroup any more.
pub(super) fn is_left_behind(file: &File) -> bool {
    let file = file.as_ptr();
    // SAFETY: The file and the current task are valid, and so is the dentry of an open file. Others may
    // come and go, which makes this no less right.
    unsafe {
        // Counted is from 0 on.
        let others = addr_of!((*file).f_ref.refcnt.counter).read_volatile();
        // It may have been opened again by its link in /proc: each such file has the dentry, too.
        let dentry = (*file).__bindgen_anon_1.f_path.dentry;
        let lockref = addr_of!((*dentry).d_lockref.__bindgen_anon_1.__bindgen_anon_1);
        let files = addr_of!((*lockref).count).read_volatile();
        let mm = (*bindings::get_current()).mm;
        (others == 0 && files == 1) || mm.is_null()
    }
}

/// The lock of an inode, until this is dropped.
///
/// # Invariants
///
/// `inode` is valid as long as `_file`, one of shmem, and locked by this.
struct InodeLock<'a> {
    inode: *mut bindings::inode,
    _file: &'a File,
}

impl<'a> InodeLock<'a> {
    /// Takes it, of a shmem file. `EINTR` if the task is killed while it waits: somebody else's write()
    /// may hold the lock for ever.
    fn new(file: &'a File) -> Result<Self> {
        let inode = inode(file);
        // SAFETY: The inode is valid. This is the lock that inode_lock() takes.
        to_result(unsafe { bindings::down_write_killable(addr_of_mut!((*inode).i_rwsem)) })?;
        // INVARIANT: See above.
        Ok(Self { inode, _file: file })
    }

    /// Freezes the mapping of a shmem file.
    fn freeze(&self) {
        // SAFETY: By the type invariant the inode is valid, one of shmem, and locked.
        unsafe { bindings::shmem_freeze(self.inode, true) };
    }
}

impl Drop for InodeLock<'_> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant.
        unsafe { bindings::inode_unlock(self.inode) };
    }
}

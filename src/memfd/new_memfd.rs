// SPDX-License-Identifier: GPL-2.0

//! A memfd that is being filled with folios of the previous kernel.

use super::shmem::{inode, mapping};
use crate::handover::{
    memfd::{Folio, MemfdSer},
    PAGE_SIZE,
};
use core::ptr::{null_mut, NonNull};
use kernel::{
    bindings,
    error::{from_err_ptr, to_result},
    fs::File,
    prelude::*,
    sync::aref::ARef,
};

/// A folio of the previous kernel that has become one of this kernel.
///
/// Without [`Self::free`] or [`NewMemfd::insert`] it is kept for ever: it is the user's data.
///
/// # Invariants
///
/// `folio` is a folio that this owns, which is not in any page cache. `index` is a multiple of its
/// number of pages.
pub(super) struct RestoredFolio {
    folio: NonNull<bindings::folio>,
    index: u64,
    nr_pages: isize,
    uptodate: bool,
}

impl RestoredFolio {
    /// Takes the folio over. Fails with `EINVAL` if it has been taken over before.
    pub(super) fn claim(folio: &Folio) -> Result<Self> {
        let pa = folio.pfn * PAGE_SIZE as u64;
        if crate::kho::preserved_order(pa) != Some(folio.order) {
            return Err(EINVAL);
        }
        // SAFETY: KHO says that a folio of this order is preserved there.
        let restored = unsafe { bindings::kho_restore_folio(pa) };
        // INVARIANT: KHO gave us the only reference; `Folio` says that the index is aligned.
        Ok(Self {
            folio: NonNull::new(restored).ok_or(EINVAL)?,
            index: folio.index,
            nr_pages: 1 << folio.order,
            uptodate: folio.uptodate,
        })
    }

    /// Frees the folio.
    pub(super) fn free(self) {
        // SAFETY: By the type invariant this owns it.
        unsafe { bindings::folio_put(self.folio.as_ptr()) };
    }
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
        // SAFETY: The name ends with a zero.
        let file =
            from_err_ptr(unsafe { bindings::memfd_alloc_file(c"memfd:".as_char_ptr(), flags) })?;
        // SAFETY: The file is new, with one reference, which becomes that of the `ARef`; nobody is
        // inside fdget_pos().
        let file: ARef<File> = unsafe { ARef::from_raw(NonNull::new(file).ok_or(ENOMEM)?.cast()) };

        // SAFETY: The file is valid, and nobody else has it. Position and size were checked to fit.
        unsafe {
            to_result(bindings::memfd_add_seals(file.as_ptr(), memfd.seals))?;
            bindings::i_size_write(inode(&file), i64::try_from(memfd.size)?);
            (*file.as_ptr()).f_pos = i64::try_from(memfd.pos)?;
        }
        // INVARIANT: See above.
        Ok(Self { file })
    }

    /// Puts a folio into the file, as if it had been allocated for it: charged to the caller's
    /// memory cgroup and accounted to the inode. On failure the folio is kept.
    ///
    /// Context: may sleep.
    pub(super) fn insert(&self, restored: RestoredFolio) -> Result {
        let folio = restored.folio.as_ptr();
        let inode = inode(&self.file);
        let mapping = mapping(&self.file);
        // SAFETY: By their invariants the folio is ours alone, and file, inode and mapping valid.
        // The folio is locked and swap-backed, and its index aligned, as shmem wants it.
        unsafe {
            let gfp = bindings::mapping_gfp_mask(mapping);
            bindings::__folio_set_locked(folio);
            bindings::__folio_set_swapbacked(folio);
            to_result(bindings::mem_cgroup_charge(folio, null_mut(), gfp))?;
            to_result(bindings::shmem_inode_acct_blocks(inode, restored.nr_pages))?;
            let index = restored.index as usize;
            let added = bindings::shmem_add_to_page_cache(folio, mapping, index, null_mut(), gfp);
            // On failure this takes the accounting back: the page is not there.
            bindings::shmem_recalc_inode(inode, restored.nr_pages, 0);
            to_result(added)?;

            if restored.uptodate {
                bindings::folio_mark_uptodate(folio);
            }
            bindings::folio_mark_dirty(folio);
            bindings::folio_add_lru(folio);
            bindings::folio_unlock(folio);
            // The page cache has its own reference.
            bindings::folio_put(folio);
        }
        Ok(())
    }

    /// The file, filled.
    pub(super) fn into_file(self) -> ARef<File> {
        self.file
    }

    /// Keeps file and folios for ever: they are the user's data.
    pub(super) fn leak(self) {
        core::mem::forget(self);
    }
}

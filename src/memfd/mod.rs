// SPDX-License-Identifier: GPL-2.0

//! The memfd handler: guest RAM.
//!
//! PRESERVE_FD freezes the mapping, so that its size stays and no page goes, and pins and preserves
//! what is populated. Pages are written to until the kexec: what arrives is what was written last.
//! Holes stay holes; freeze looks at them again, for what was filled since.

mod folio;
mod new_memfd;
mod restore;
mod scan;
mod shmem;

use crate::{
    handler::{FileHandler, Outcome, PreservedFile, Registration},
    handover::{
        luo::Compatible,
        memfd::{MemfdSer, COMPATIBLE_V2},
        PAGE_SIZE,
    },
    kho::PreservedPage,
};
use kernel::{fs::File, new_mutex, prelude::*, sync::aref::ARef, sync::Mutex};
use scan::Contents;
use shmem::FrozenMemfd;

/// The compatible string that memfds are handed over with.
pub(crate) fn format() -> Compatible {
    COMPATIBLE_V2
}

/// Registers the handler.
pub(crate) fn register(module: &'static ThisModule) -> Result<Registration> {
    Registration::new(KBox::new(MemfdHandler, GFP_KERNEL)?, module)
}

/// The handler of memfds, and of other files on tmpfs that have no name.
struct MemfdHandler;

impl FileHandler for MemfdHandler {
    fn compatible(&self) -> Compatible {
        format()
    }

    fn can_preserve(&self, file: &File) -> bool {
        shmem::is_nameless(file)
    }

    fn identity(&self, file: &File) -> usize {
        shmem::identity(file)
    }

    fn preserve(&self, file: &ARef<File>) -> Result<KBox<dyn PreservedFile>> {
        Ok(PreservedMemfd::new(file.clone())?)
    }

    fn retrieve(&self, data: u64) -> Result<ARef<File>> {
        restore::retrieve(data)
    }

    fn finish(&self, data: u64, outcome: &Outcome) {
        // One that was retrieved is the user's; one that failed to be is in doubt, and kept.
        if let Outcome::Pending = outcome {
            restore::discard(data);
        }
    }
}

/// What changes while a memfd is preserved.
struct State {
    contents: Contents,
    /// The description for the next kernel, written by freeze.
    page: PreservedPage,
}

/// A memfd that is preserved.
// The fields are dropped in this order: pages are let go before the mapping is thawed.
struct PreservedMemfd {
    state: Pin<KBox<Mutex<State>>>,
    memfd: FrozenMemfd,
}

impl PreservedMemfd {
    /// Preserves a memfd.
    ///
    /// Errors: `EOPNOTSUPP` for a seal, and `EFBIG` for a size, that cannot be described.
    fn new(file: ARef<File>) -> Result<KBox<Self>> {
        let memfd = FrozenMemfd::new(file);
        memfd.seals()?;
        let nr_pages = memfd.size().div_ceil(PAGE_SIZE as u64);
        if nr_pages > u32::MAX.into() {
            return Err(EFBIG);
        }
        let page = PreservedPage::new()?;
        let mut contents = Contents::new(nr_pages)?;
        contents.scan(&memfd)?;
        let state = KBox::pin_init(new_mutex!(State { contents, page }), GFP_KERNEL_ACCOUNT)?;
        Ok(KBox::new(Self { state, memfd }, GFP_KERNEL_ACCOUNT)?)
    }
}

impl PreservedFile for PreservedMemfd {
    fn freeze(&self) -> Result<u64> {
        let mut state = self.state.lock();
        state.contents.scan(&self.memfd)?;
        let array = state.contents.folios().array();
        let ser = MemfdSer {
            pos: self.memfd.position(),
            size: self.memfd.size(),
            seals: self.memfd.seals()?,
            flags: 0,
            nr_folios: array.len() as u64,
            folios: array.serialize()?,
        };
        ser.write_to_prefix(&mut state.page.0).map_err(|_| EINVAL)?;
        Ok(state.page.phys())
    }
}

// SPDX-License-Identifier: GPL-2.0

//! The memfd handler: guest RAM.
//!
//! PRESERVE_FD freezes the mapping, so that its size stays and no page goes, and pins and preserves
//! what is populated. Pages are written to until the kexec: what arrives is what was written last.
//! Holes stay holes; freeze looks at them again, for what was filled since.
//!
//! RETRIEVE_FD puts what was preserved into a new file, a run of pages at a time. The pages come into
//! its page cache when they are touched; FINISH brings in the rest.

mod description;
mod extent;
mod folio;
mod frame_set;
mod frames;
mod large;
mod new_memfd;
mod patience;
mod pinned_extents;
mod pinned_run;
mod radix;
mod restore;
mod restored_table;
mod runs;
mod scan;
mod shmem;
mod sort;
mod table;
mod walk;

use crate::{
    handler::{FileHandler, NotRetrieved, Outcome, PreservedFile, Registration},
    handover::{
        extent::{COMPATIBLE_EXTENTS, COMPATIBLE_EXTENTS_V1, IN_HEAD},
        luo::Compatible,
        memfd::COMPATIBLE_V2,
        PAGE_SIZE,
    },
    log::warn_limited,
};
use extent::PreservedExtents;
use folio::PreservedFolios;
use kernel::{fs::File, new_mutex, prelude::*, sync::aref::ARef, sync::Mutex};
use scan::{Contents, Encoding, Properties};
use shmem::FrozenMemfd;

/// An encoding of a memfd, with a compatible string of its own.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// That of the kernel's own orchestrator: a list of folios.
    V2,
    /// A list of extents.
    Extents,
}

impl Format {
    /// The one that memfds are handed over with.
    pub(crate) fn chosen() -> Self {
        if crate::module_parameters::memfd_v2.value() {
            Format::V2
        } else {
            Format::Extents
        }
    }

    /// Its compatible string.
    pub(crate) fn compatible(self) -> Compatible {
        match self {
            Format::V2 => COMPATIBLE_V2,
            Format::Extents => COMPATIBLE_EXTENTS,
        }
    }

    /// How many entries it has in the page of the description.
    fn in_head(self) -> usize {
        match self {
            Format::V2 => 0,
            Format::Extents => IN_HEAD,
        }
    }
}

/// The handlers' registrations, one for each compatible string: all of them can be retrieved.
pub(crate) struct Registrations {
    _handlers: [Registration; 3],
}

/// Registers the handlers.
pub(crate) fn register(module: &'static ThisModule) -> Result<Registrations> {
    let register = |format, compatible| {
        let handler = MemfdHandler { format, compatible };
        Registration::new(KBox::new(handler, GFP_KERNEL)?, module)
    };
    Ok(Registrations {
        _handlers: [
            register(Format::Extents, COMPATIBLE_EXTENTS)?,
            register(Format::Extents, COMPATIBLE_EXTENTS_V1)?,
            register(Format::V2, COMPATIBLE_V2)?,
        ],
    })
}

/// The handler of memfds, and of other files on tmpfs that have no name, in one format.
struct MemfdHandler {
    format: Format,
    compatible: Compatible,
}

impl FileHandler for MemfdHandler {
    fn compatible(&self) -> Compatible {
        self.compatible
    }

    fn can_preserve(&self, file: &File) -> bool {
        self.compatible == Format::chosen().compatible() && shmem::is_nameless(file)
    }

    fn identity(&self, file: &File) -> usize {
        shmem::identity(file)
    }

    fn preserve(&self, file: &ARef<File>) -> Result<KBox<dyn PreservedFile>> {
        Ok(PreservedMemfd::new(self.format, file.clone())?)
    }

    fn retrieve(&self, data: u64) -> Result<ARef<File>, NotRetrieved> {
        restore::retrieve(self.format, data)
    }

    fn finish(&self, data: u64, outcome: &Outcome) {
        match outcome {
            Outcome::Pending => restore::discard(self.format, data),
            Outcome::Retrieved(file) if shmem::is_left_behind(file) => {}
            // What nobody has touched is not charged to anybody yet, and could not be reclaimed.
            Outcome::Retrieved(file) => {
                if let Err(err) = shmem::adopt_preserved(file) {
                    warn_limited!(
                        "a finished memfd is not charged in full yet: {:?}; the rest follows as it is touched\n",
                        err
                    );
                }
            }
            // In doubt, and kept.
            Outcome::Failed(_) => {}
        }
    }
}

/// A memfd that is preserved.
// The fields are dropped in this order: pages are let go before the mapping is thawed.
struct PreservedMemfd {
    contents: Pin<KBox<Mutex<Contents>>>,
    memfd: FrozenMemfd,
}

impl PreservedMemfd {
    /// Preserves a memfd.
    ///
    /// Errors: `EOPNOTSUPP` for a seal, and `EFBIG` for a size, that cannot be described.
    fn new(format: Format, file: ARef<File>) -> Result<KBox<Self>> {
        let memfd = FrozenMemfd::new(file)?;
        memfd.seals()?;
        let nr_pages = memfd.size().div_ceil(PAGE_SIZE as u64);
        if nr_pages > u32::MAX.into() {
            return Err(EFBIG);
        }
        memfd.adopt_preserved()?;
        let mut contents = Contents::new(nr_pages, encoding(format)?)?;
        contents.scan(&memfd)?;
        let contents = KBox::pin_init(new_mutex!(contents), GFP_KERNEL_ACCOUNT)?;
        Ok(KBox::new(Self { contents, memfd }, GFP_KERNEL_ACCOUNT)?)
    }
}

/// Nothing yet, in `format`.
fn encoding(format: Format) -> Result<KBox<dyn Encoding>> {
    Ok(match format {
        Format::V2 => KBox::new(PreservedFolios::new()?, GFP_KERNEL_ACCOUNT)?,
        Format::Extents => KBox::new(PreservedExtents::new()?, GFP_KERNEL_ACCOUNT)?,
    })
}

impl PreservedFile for PreservedMemfd {
    fn prepare(&self) -> Result {
        // What was filled since PRESERVE_FD is one thing less to do while the workload is paused.
        self.contents.lock().rescan(&self.memfd)
    }

    fn freeze(&self) -> Result<u64> {
        let mut contents = self.contents.lock();
        contents.rescan(&self.memfd)?;
        contents.describe(Properties {
            pos: self.memfd.position(),
            size: self.memfd.size(),
            seals: self.memfd.seals()?,
        })
    }
}

// SPDX-License-Identifier: GPL-2.0

//! Making a memfd of what the previous kernel handed over.
//!
//! Everything is checked before anything of the data is touched: what is not understood is neither
//! freed nor shown to anybody.

use super::new_memfd::{NewMemfd, RestoredFolio};
use crate::{
    handover::{
        memfd::{Folio, FolioCheck, FolioSer, MemfdSer, KNOWN_SEALS},
        vmalloc::Piece,
        Malformed, Page, Source, PAGE_SIZE,
    },
    kho::{preserved_order, Incoming, RestoredPages},
};
use kernel::{fs::File, prelude::*, sync::aref::ARef};

/// The description of a memfd, taken over from the previous kernel: freed when dropped.
struct Description {
    memfd: MemfdSer,
    /// The pages with [`FolioSer`], in order.
    array: KVVec<RestoredPages>,
    /// All other pages.
    other: KVec<RestoredPages>,
}

/// Why a memfd is refused.
enum Refusal {
    Malformed(Malformed),
    UnknownSeals(u32),
    Failed(Error),
}

impl From<Malformed> for Refusal {
    fn from(malformed: Malformed) -> Self {
        Refusal::Malformed(malformed)
    }
}

impl From<kernel::alloc::AllocError> for Refusal {
    fn from(_: kernel::alloc::AllocError) -> Self {
        Refusal::Failed(ENOMEM)
    }
}

impl From<Error> for Refusal {
    fn from(err: Error) -> Self {
        Refusal::Failed(err)
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Malformed(why) => {
                pr_err!("a memfd of the previous kernel is refused: {:?}\n", why);
                EINVAL
            }
            Refusal::UnknownSeals(seals) => {
                pr_err!(
                    "a memfd of the previous kernel has unknown seals: {:#x}\n",
                    seals
                );
                EOPNOTSUPP
            }
            Refusal::Failed(err) => err,
        }
    }
}

impl Description {
    /// Takes over the description at `pa`, of any value.
    ///
    /// The pages are ours before they are believed: an entry that claims one of them as the user's
    /// data is found out. On failure they are kept.
    fn claim(pa: u64) -> Result<Self, Refusal> {
        let mut scratch = KBox::new(Page::ZERO, GFP_KERNEL)?;
        if !Incoming.read(pa, &mut scratch) {
            return Err(Malformed::NotPreserved(pa).into());
        }
        let (memfd, _) =
            MemfdSer::read_from_prefix(&scratch.0).map_err(|_| Malformed::NotPreserved(pa))?;
        memfd.validate()?;
        if memfd.seals & !KNOWN_SEALS != 0 {
            return Err(Refusal::UnknownSeals(memfd.seals));
        }

        let mut description = Self {
            memfd,
            array: KVVec::new(),
            other: KVec::new(),
        };
        let checked = description
            .claim_pages(pa, &mut scratch)
            .and_then(|()| description.for_each(|_| Ok(())));
        match checked {
            Ok(()) => Ok(description),
            Err(why) => {
                description.leak();
                Err(why)
            }
        }
    }

    fn claim_pages(&mut self, pa: u64, scratch: &mut Page) -> Result<(), Refusal> {
        let Self {
            memfd,
            array,
            other,
        } = self;
        other.push(claim(pa, 0)?, GFP_KERNEL)?;
        if memfd.nr_folios == 0 {
            return Ok(());
        }
        let order = memfd.folios.order;
        memfd.folios.walk(&Incoming, scratch, |piece| {
            match piece {
                Piece::Chunk(pa) => other.push(claim(pa, 0)?, GFP_KERNEL)?,
                Piece::Pages(pa) => array.push(claim(pa, order.into())?, GFP_KERNEL)?,
            }
            Ok(())
        })
    }

    /// Calls `visit` with each folio. Ends early at one that is not, or no more, preserved.
    fn for_each(&self, mut visit: impl FnMut(Folio) -> Result<(), Refusal>) -> Result<(), Refusal> {
        let mut check = FolioCheck::new(&self.memfd);
        let mut left = self.memfd.nr_folios;
        for page in self.array.iter().flat_map(|pages| pages.as_pages()) {
            let entries = <[FolioSer]>::ref_from_bytes(&page.0)
                .map_err(|_| Malformed::Field("folio array"))?;
            for entry in entries {
                if left == 0 {
                    return Ok(());
                }
                left -= 1;
                if entry.pfn() == 0 {
                    continue;
                }
                let pa = entry
                    .pfn()
                    .checked_mul(PAGE_SIZE as u64)
                    .ok_or(Malformed::Field("folio frame"))?;
                let order = preserved_order(pa).ok_or(Malformed::NotPreserved(pa))?;
                visit(check.next(entry, order)?)?;
            }
        }
        Ok(())
    }

    /// Keeps the pages for ever.
    fn leak(self) {
        core::mem::forget(self);
    }
}

/// Takes over pages of the description.
fn claim(pa: u64, order: u32) -> Result<RestoredPages, Malformed> {
    RestoredPages::claim(pa, order).ok_or(Malformed::NotPreserved(pa))
}

/// Makes a memfd of the description at `pa`, of any value.
///
/// On failure all memory is kept.
///
/// Context: may sleep.
pub(super) fn retrieve(pa: u64) -> Result<ARef<File>> {
    let description = Description::claim(pa)?;
    let memfd = match NewMemfd::new(&description.memfd) {
        Ok(memfd) => memfd,
        Err(err) => {
            description.leak();
            return Err(err);
        }
    };
    let filled = description.for_each(|folio| Ok(memfd.insert(RestoredFolio::claim(&folio)?)?));
    match filled {
        Ok(()) => Ok(memfd.into_file()),
        Err(why) => {
            memfd.leak();
            description.leak();
            Err(why.into())
        }
    }
}

/// Frees the memfd that is described at `pa`, of any value: nobody wanted it.
///
/// Context: may sleep.
pub(super) fn discard(pa: u64) {
    let freed = Description::claim(pa).and_then(|description| {
        description.for_each(|folio| {
            RestoredFolio::claim(&folio)?.free();
            Ok(())
        })
    });
    if let Err(why) = freed {
        // What was not freed stays preserved; the conversion logs why.
        let _: Error = why.into();
    }
}

// SPDX-License-Identifier: GPL-2.0

//! Making a memfd of what the previous kernel handed over.
//!
//! Everything is checked before anything of the data is touched: what is not understood is neither
//! freed nor shown to anybody.

use super::{
    new_memfd::{key_order, NewMemfd, PreservedRange, RestoredExtent, Runs},
    Format,
};
use crate::{
    handover::{
        extent::{Extent, ExtentCheck, ExtentSer, KeyWalk},
        memfd::{FolioCheck, FolioSer, MemfdSer, KNOWN_SEALS},
        vmalloc, Malformed, Page, Source,
    },
    kho::{Incoming, RestoredPages},
    log::{err_limited, warn_limited},
};
use kernel::{fs::File, prelude::*, sync::aref::ARef};
use zerocopy::{Immutable, KnownLayout};

/// The description of a memfd, taken over from the previous kernel: freed when dropped.
struct Description {
    format: Format,
    memfd: MemfdSer,
    /// The page of the description itself.
    head: Option<RestoredPages>,
    /// The pages with the array of entries, in order.
    array: KVVec<RestoredPages>,
    /// In which ranges the data is preserved, once that was checked.
    ranges: KVVec<PreservedRange>,
    /// All other pages.
    other: KVec<RestoredPages>,
}

/// An extent of the description.
struct Piece {
    extent: Extent,
    /// Whether a range starts with it.
    starts_range: bool,
    /// Whether its data is valid.
    uptodate: bool,
}

/// Why a memfd is refused.
pub(super) enum Refusal {
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

impl From<core::num::TryFromIntError> for Refusal {
    fn from(_: core::num::TryFromIntError) -> Self {
        Refusal::Failed(EOVERFLOW)
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
                err_limited!("a memfd of the previous kernel is refused: {:?}\n", why);
                EINVAL
            }
            Refusal::UnknownSeals(seals) => {
                err_limited!(
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
    fn claim(format: Format, pa: u64) -> Result<Self, Refusal> {
        let mut scratch = KBox::new(Page::ZERO, GFP_KERNEL)?;
        if !Incoming.read(pa, &mut scratch) {
            return Err(Malformed::NotPreserved(pa).into());
        }
        let (memfd, _) =
            MemfdSer::read_from_prefix(&scratch.0).map_err(|_| Malformed::NotPreserved(pa))?;
        memfd.validate(format.in_head())?;
        if memfd.seals & !KNOWN_SEALS != 0 {
            return Err(Refusal::UnknownSeals(memfd.seals));
        }

        let mut description = Self {
            format,
            memfd,
            head: None,
            array: KVVec::new(),
            ranges: KVVec::new(),
            other: KVec::new(),
        };
        let checked = description
            .claim_pages(pa, &mut scratch)
            .and_then(|()| description.check());
        match checked {
            Ok(()) => Ok(description),
            Err(why) => {
                description.leak();
                Err(why)
            }
        }
    }

    fn claim_pages(&mut self, pa: u64, scratch: &mut Page) -> Result<(), Refusal> {
        let in_head = self.format.in_head();
        let Self {
            memfd,
            head,
            array,
            other,
            ..
        } = self;
        *head = Some(claim(pa, 0)?);
        if memfd.nr_in_array(in_head) == 0 {
            return Ok(());
        }
        let order = memfd.entries.order;
        memfd.entries.walk(&Incoming, scratch, |piece| {
            match piece {
                vmalloc::Piece::Chunk(pa) => other.push(claim(pa, 0)?, GFP_KERNEL)?,
                vmalloc::Piece::Pages(pa) => array.push(claim(pa, order.into())?, GFP_KERNEL)?,
            }
            Ok(())
        })
    }

    /// Calls `visit` with each extent. `order` says of which order the preservation at a frame is, or
    /// was.
    fn for_each(
        &self,
        order: impl FnMut(u64) -> Result<u32, Malformed>,
        mut visit: impl FnMut(Piece) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        if self.format == Format::V2 {
            return self.for_each_folio(order, visit);
        }
        let mut check = ExtentCheck::new(&self.memfd);
        self.for_each_entry(|entry| {
            let (extent, starts_range) = check.next(entry)?;
            visit(Piece {
                extent,
                starts_range,
                uptodate: true,
            })
        })
    }

    /// As [`Self::for_each`], once that has found all of them to be good: a paused workload waits.
    fn for_each_again(
        &self,
        mut visit: impl FnMut(&Extent, bool) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        match self.format {
            Format::V2 => self.for_each_folio(self.claimed_orders(), |piece| {
                visit(&piece.extent, piece.uptodate)
            }),
            Format::Extents => {
                self.for_each_entry(|entry: &ExtentSer| visit(&entry.extent(), true))
            }
        }
    }

    fn for_each_folio(
        &self,
        mut order: impl FnMut(u64) -> Result<u32, Malformed>,
        mut visit: impl FnMut(Piece) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        let check = FolioCheck::new(&self.memfd);
        let mut before: Option<Extent> = None;
        self.for_each_entry(|entry: &FolioSer| {
            if entry.pfn() == 0 {
                return Ok(());
            }
            let folio = check.check(entry, order(entry.pfn())?)?;
            let extent = Extent::folio(folio.pfn, folio.index, folio.order);
            let starts_range = !before.is_some_and(|before| before.adjoins(&extent));
            before = Some(extent);
            visit(Piece {
                extent,
                starts_range,
                uptodate: folio.uptodate,
            })
        })
    }

    /// Calls `visit` with each entry of the array.
    fn for_each_entry<T: FromBytes + KnownLayout + Immutable>(
        &self,
        mut visit: impl FnMut(&T) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        let mut left = self.memfd.nr_entries;
        let head = self.head.iter().flat_map(|pages| pages.as_pages());
        for page in head {
            let (_, rest) = MemfdSer::ref_from_prefix(&page.0)
                .map_err(|_| Malformed::Field("description of a memfd"))?;
            let in_head = self.format.in_head().min(usize::try_from(left)?);
            let (entries, _) = <[T]>::ref_from_prefix_with_elems(rest, in_head)
                .map_err(|_| Malformed::Count(left))?;
            for entry in entries {
                left -= 1;
                visit(entry)?;
            }
        }
        for page in self.array.iter().flat_map(|pages| pages.as_pages()) {
            let entries =
                <[T]>::ref_from_bytes(&page.0).map_err(|_| Malformed::Field("array of a memfd"))?;
            for entry in entries {
                if left == 0 {
                    return Ok(());
                }
                left -= 1;
                visit(entry)?;
            }
        }
        Ok(())
    }

    /// Checks that all extents are what they claim to be, without touching any, and notes in which
    /// ranges they are preserved.
    fn check(&mut self) -> Result<(), Refusal> {
        let mut ranges: KVVec<PreservedRange> = KVVec::new();
        let mut keys = KeyWalk::new();
        self.for_each(
            key_order,
            |Piece {
                 extent,
                 starts_range,
                 ..
             }| {
                keys.advance(&extent, starts_range, |pfn| {
                    Ok::<_, Refusal>(key_order(pfn)?)
                })?;
                match ranges.last_mut() {
                    Some(range) if !starts_range => range.end = extent.end_pfn(),
                    _ => ranges.push(
                        PreservedRange {
                            pfn: extent.pfn,
                            end: extent.end_pfn(),
                            is_folio: extent.order != 0,
                        },
                        GFP_KERNEL,
                    )?,
                }
                Ok(())
            },
        )?;
        keys.finish()?;
        self.ranges = ranges;
        Ok(())
    }

    /// Takes all extents over, and calls `visit` with each.
    fn claim_all(
        &self,
        mut visit: impl FnMut(RestoredExtent) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        for range in self.ranges.iter() {
            range.claim()?;
        }
        self.for_each_again(|extent, uptodate| {
            // SAFETY: All ranges were claimed, and `check` found the extents to be in them, one
            // behind the other. Two ranges cannot have claimed the same page.
            let restored = unsafe { RestoredExtent::new(extent) };
            if !uptodate {
                restored.zero();
            }
            visit(restored)
        })
    }

    /// Says of which order the preservations were, in the order of the ranges: KHO does not know any
    /// more.
    fn claimed_orders(&self) -> impl FnMut(u64) -> Result<u32, Malformed> + '_ {
        let mut ranges = self.ranges.iter().peekable();
        move |pfn| {
            while ranges.next_if(|range| !range.contains(pfn)).is_some() {}
            let range = ranges.peek().ok_or(Malformed::Field("frame"))?;
            Ok(range.folio_order())
        }
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
/// The pages are in the file when this returns, but come into its page cache later: see
/// [`NewMemfd::add`]. On failure all memory is kept.
///
/// Context: may sleep.
pub(super) fn retrieve(format: Format, pa: u64) -> Result<ARef<File>> {
    let description = Description::claim(format, pa)?;
    let memfd = match NewMemfd::new(&description.memfd) {
        Ok(memfd) => memfd,
        Err(err) => {
            description.leak();
            return Err(err);
        }
    };
    match fill(&memfd, &description) {
        Ok(()) => Ok(memfd.into_file()),
        Err(why) => {
            memfd.leak();
            description.leak();
            Err(why.into())
        }
    }
}

/// Puts all extents into `memfd`, in runs as long as can be.
fn fill(memfd: &NewMemfd, description: &Description) -> Result<(), Refusal> {
    let mut runs = Runs::new()?;
    let mut run: Option<RestoredExtent> = None;
    description.claim_all(|next| {
        let next = match &mut run {
            Some(run) => match run.merge(next) {
                Ok(()) => return Ok(()),
                Err(next) => next,
            },
            None => next,
        };
        if let Some(whole) = run.replace(next) {
            runs.push(whole)?;
        }
        if runs.is_full() {
            add(memfd, &mut runs)?;
        }
        Ok(())
    })?;
    if let Some(last) = run {
        runs.push(last)?;
    }
    add(memfd, &mut runs)
}

/// As [`NewMemfd::add`]. What is in one place twice is the description's fault.
fn add(memfd: &NewMemfd, runs: &mut Runs) -> Result<(), Refusal> {
    memfd.add(runs).map_err(|err| match err {
        EEXIST => Malformed::Field("two pages in one place of the file").into(),
        err => err.into(),
    })
}

/// Frees the memfd that is described at `pa`, of any value: nobody wanted it.
///
/// Context: may sleep.
pub(super) fn discard(format: Format, pa: u64) {
    let freed = Description::claim(format, pa).and_then(|description| {
        description.claim_all(|extent| {
            extent.free();
            Ok(())
        })
    });
    if let Err(why) = freed {
        let err: Error = why.into();
        warn_limited!(
            "a memfd that nobody retrieved cannot be freed: {:?}; its memory is kept until the next kexec\n",
            err
        );
    }
}

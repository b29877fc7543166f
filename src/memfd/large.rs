// SPDX-License-Identifier: GPL-2.0

//! Large folios of a memfd, which are preserved and claimed many at a time: the way through KHO's tree,
//! and through the memory's zones, is longer than all else that there is to be done for one of them.

use super::frames::{preserve_each, unpreserve_each};
use crate::{
    handover::{extent::Extent, Malformed},
    kho::claim_folios,
};
use kernel::prelude::*;

/// Large folios of the same order, as they are listed.
pub(super) struct LargeFolios {
    order: u32,
    /// The first frame of each of the first `len`.
    pfns: [u64; Self::MAX],
    len: usize,
}

impl LargeFolios {
    /// How many there are at a time, on the stack.
    const MAX: usize = 64;

    /// Does something with the large folios among `extents`, and no others, many at a time.
    pub(super) fn try_for_each<E: From<Error>>(
        mut extents: impl Iterator<Item = Extent>,
        mut act: impl FnMut(&Self) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut some = Self {
            order: 0,
            pfns: [0; Self::MAX],
            len: 0,
        };
        extents.try_for_each(|folio| -> Result<(), E> {
            if folio.order == 0 {
                return Ok(());
            }
            if folio.order != some.order || some.len == Self::MAX {
                some.flush(&mut act)?;
                some.order = folio.order;
            }
            *some.pfns.get_mut(some.len).ok_or(EINVAL)? = folio.pfn;
            some.len += 1;
            Ok(())
        })?;
        some.flush(&mut act)
    }

    fn flush<E>(&mut self, act: &mut impl FnMut(&Self) -> Result<(), E>) -> Result<(), E> {
        if self.len != 0 {
            act(self)?;
        }
        self.len = 0;
        Ok(())
    }

    fn pfns(&self) -> &[u64] {
        self.pfns.get(..self.len).unwrap_or(&[])
    }

    /// Number of pages in all of them.
    pub(super) fn nr_pages(&self) -> u64 {
        (self.len as u64) << self.order
    }

    /// Preserves them; they must be pinned. On failure none of them is.
    ///
    /// Context: may sleep.
    pub(super) fn preserve(&self) -> Result {
        preserve_each(self.pfns(), self.order)
    }

    /// Undoes [`Self::preserve`].
    pub(super) fn unpreserve(&self) {
        unpreserve_each(self.pfns(), self.order);
    }

    /// Takes over what the previous kernel preserved at these frames, of any value. Fails where that are
    /// no such folios, or some have been taken over before.
    ///
    /// On success all of them are ours, and yet to be made.
    ///
    /// Context: may sleep.
    pub(super) fn claim(&self) -> Result<(), Malformed> {
        claim_folios(self.pfns(), self.order)
    }
}

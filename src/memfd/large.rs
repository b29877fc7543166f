// SPDX-License-Identifier: GPL-2.0

//! Large folios of a memfd, which are preserved many at a time: the way through KHO's tree is longer
//! than all else that there is to be done for one of them.

use super::frames::{preserve_each, unpreserve_each};
use crate::handover::extent::ExtentSer;
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

    /// Does something with the large folios among `entries`, and no others, many at a time.
    pub(super) fn try_for_each<'a>(
        mut entries: impl Iterator<Item = &'a ExtentSer>,
        mut act: impl FnMut(&Self) -> Result,
    ) -> Result {
        let mut some = Self {
            order: 0,
            pfns: [0; Self::MAX],
            len: 0,
        };
        entries.try_for_each(|entry| -> Result {
            let folio = entry.extent();
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

    fn flush(&mut self, act: &mut impl FnMut(&Self) -> Result) -> Result {
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
}

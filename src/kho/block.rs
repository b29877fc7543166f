// SPDX-License-Identifier: GPL-2.0

//! Chains of preserved pages with entries of one type, as they are written.

use super::PreservedPage;
use crate::handover::block::{capacity, header_mut, set_entry, Entry, MAX_BLOCKS};
use core::marker::PhantomData;
use kernel::prelude::*;

/// Pages for entries of type `T`, allocated ahead, so that writing the entries cannot fail for
/// want of memory.
pub(crate) struct BlockChain<T> {
    pages: KVVec<PreservedPage>,
    _entries: PhantomData<T>,
}

impl<T: Entry> BlockChain<T> {
    /// A chain without pages.
    pub(crate) const fn new() -> Self {
        Self {
            pages: KVVec::new(),
            _entries: PhantomData,
        }
    }

    /// Makes room for `count` entries in all.
    ///
    /// Fails with `ENOSPC` beyond what a chain may hold; then, and without memory, the chain is as
    /// before but for unused room.
    ///
    /// Context: may sleep.
    pub(crate) fn reserve(&mut self, count: usize) -> Result {
        let wanted = count.div_ceil(capacity::<T>());
        if wanted > MAX_BLOCKS {
            return Err(ENOSPC);
        }
        while self.pages.len() < wanted {
            self.pages.push(PreservedPage::new()?, GFP_KERNEL_ACCOUNT)?;
        }
        Ok(())
    }

    /// Gives back the pages that `count` entries do not need.
    pub(crate) fn shrink(&mut self, count: usize) {
        let wanted = count.div_ceil(capacity::<T>());
        self.pages.truncate(wanted);
    }

    /// Writes all entries, for the next kernel to read.
    ///
    /// Returns the address of the chain, 0 if there are no entries. An error of `entries` is passed
    /// on. Room for the entries was made by [`Self::reserve`]: `ENOSPC` if not.
    pub(crate) fn write(&mut self, entries: impl Iterator<Item = Result<T>>) -> Result<u64> {
        let mut count = 0;
        for value in entries {
            let value = value?;
            let (block, slot) = (count / capacity::<T>(), count % capacity::<T>());
            if slot == 0 {
                self.begin(block)?;
            }
            let page = self.pages.get_mut(block).ok_or(ENOSPC)?;
            set_entry(page, slot, &value).ok_or(ENOSPC)?;
            header_mut(page).ok_or(ENOSPC)?.count = slot as u64 + 1;
            count += 1;
        }
        match self.pages.first() {
            Some(page) if count != 0 => Ok(page.phys()),
            _ => Ok(0),
        }
    }

    /// Makes page number `block` the last one of the chain.
    fn begin(&mut self, block: usize) -> Result {
        let page = self.pages.get_mut(block).ok_or(ENOSPC)?;
        let pa = page.phys();
        header_mut(page).ok_or(ENOSPC)?.next = 0;
        let before = block.checked_sub(1).and_then(|i| self.pages.get_mut(i));
        if let Some(header) = before.and_then(|page| header_mut(page)) {
            header.next = pa;
        }
        Ok(())
    }
}

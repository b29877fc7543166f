// SPDX-License-Identifier: GPL-2.0

//! Chains of pages that hold entries of one type.
//!
//! Source: `include/linux/kho/abi/block.h` of Linux 7.3. Each page starts with a [`Header`]; the
//! entries follow it. Every page but the last is full.

use super::{Malformed, Page, Source, PAGE_SIZE};
use core::mem::size_of;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The most pages that a chain may have, here as in the kernel's own
/// orchestrator.
pub(crate) const MAX_BLOCKS: usize = 10_000;

/// What stands at the start of each page of a chain.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub(crate) struct Header {
    /// Physical address of the next page, or 0.
    pub(crate) next: u64,
    /// Number of entries in this page, never 0.
    pub(crate) count: u64,
}

/// A layout that is kept in chains.
pub(crate) trait Entry: FromBytes + IntoBytes + Immutable + KnownLayout {}

/// How many entries of type `T` a page holds.
pub(crate) const fn capacity<T>() -> usize {
    (PAGE_SIZE - size_of::<Header>()) / size_of::<T>()
}

/// Where in a page its entry number `slot` stands.
fn range<T>(slot: usize) -> core::ops::Range<usize> {
    let start = size_of::<Header>() + slot * size_of::<T>();
    start..start + size_of::<T>()
}

/// The entry number `slot` of a page.
fn entry<T: Entry>(page: &Page, slot: usize) -> Option<&T> {
    T::ref_from_bytes(page.0.get(range::<T>(slot))?).ok()
}

/// Writes the entry number `slot` of a page; `None` if a page has no such entry.
pub(crate) fn set_entry<T: Entry>(page: &mut Page, slot: usize, value: &T) -> Option<()> {
    if slot >= capacity::<T>() {
        return None;
    }
    value.write_to(page.0.get_mut(range::<T>(slot))?).ok()
}

/// The header of a page.
pub(crate) fn header_mut(page: &mut Page) -> Option<&mut Header> {
    let (header, _) = Header::mut_from_prefix(&mut page.0).ok()?;
    Some(header)
}

/// Where an entry of an incoming chain stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Physical address of its page.
    pub(crate) block_pa: u64,
    /// Its number in the page.
    pub(crate) slot: usize,
}

impl Place {
    /// Where in its page the entry, of type `T`, stands.
    pub(crate) fn offset<T>(&self) -> usize {
        range::<T>(self.slot).start
    }
}

/// Walks the incoming chain that starts at `head`, if that is not 0.
///
/// `visit` is called for each entry in order, with the place where it stands. An error of its own
/// ends the walk. Entries before a damaged page have been visited when [`Malformed`] is returned.
/// The walk ends whatever the memory holds: a chain with a cycle is found out before anything of
/// it is visited.
pub(crate) fn walk<S: Source, T: Entry, E: From<Malformed>>(
    source: &S,
    head: u64,
    scratch: &mut Page,
    mut visit: impl FnMut(Place, &T) -> Result<(), E>,
) -> Result<(), E> {
    check_ends(source, head, scratch)?;

    let mut pa = head;
    while pa != 0 {
        let header = read(source, pa, scratch)?;
        let count = usize::try_from(header.count)
            .ok()
            .filter(|count| (1..=capacity::<T>()).contains(count))
            .ok_or(Malformed::Count(header.count))?;
        for slot in 0..count {
            let value = entry(scratch, slot).ok_or(Malformed::Count(header.count))?;
            visit(Place { block_pa: pa, slot }, value)?;
        }
        pa = header.next;
    }
    Ok(())
}

/// Reads a page of a chain and returns its header.
fn read<S: Source>(source: &S, pa: u64, scratch: &mut Page) -> Result<Header, Malformed> {
    if !source.read(pa, scratch) {
        return Err(Malformed::NotPreserved(pa));
    }
    let (header, _) =
        Header::read_from_prefix(&scratch.0).map_err(|_| Malformed::NotPreserved(pa))?;
    Ok(header)
}

/// Follows a chain to its end, which it must have.
///
/// Brent's algorithm: a milestone is compared with each page, and moved on at every power of two,
/// so that a cycle of length n is found within 3n steps.
fn check_ends<S: Source>(source: &S, head: u64, scratch: &mut Page) -> Result<(), Malformed> {
    let mut milestone = 0;
    let mut pa = head;
    for step in 0..=MAX_BLOCKS {
        if pa == 0 {
            return Ok(());
        }
        if pa == milestone {
            break;
        }
        if step.is_power_of_two() {
            milestone = pa;
        }
        pa = match read(source, pa, scratch) {
            Ok(header) => header.next,
            // The walk will find the same page, after having visited those before it.
            Err(_) => return Ok(()),
        };
    }
    Err(Malformed::Endless)
}

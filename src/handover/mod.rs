// SPDX-License-Identifier: GPL-2.0

//! What one kernel leaves for the next: layouts and their validation.
//!
//! Everything here is pure: `core` and `zerocopy`, no call into the kernel. It is compiled and
//! tested on the host too. Bytes of the previous kernel are input; what comes out of a function
//! here is a value whose invariants hold, or [`Malformed`].
//!
//! Integers are in the byte order of the machine, as KHO hands memory from one kernel to another
//! of the same machine.

pub(crate) mod block;
pub(crate) mod chains;
pub(crate) mod extent;
pub(crate) mod luo;
pub(crate) mod memfd;
pub(crate) mod table;
pub(crate) mod vmalloc;

use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Size of a page, and so of every piece of preserved metadata, in bytes.
///
/// KHO requires both kernels to agree on it.
pub(crate) const PAGE_SIZE: usize = 4096;

/// Bits of a word that are a page frame number, where there are flags in the others.
const PFN_BITS: u32 = 52;

/// A page of bytes, aligned so that every layout here can be read in place.
#[repr(C, align(4096))]
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
pub(crate) struct Page(pub(crate) [u8; PAGE_SIZE]);

impl Page {
    /// A page of zeroes.
    pub(crate) const ZERO: Self = Self([0; PAGE_SIZE]);
}

/// Where incoming bytes come from: memory of the previous kernel, or a test's idea of it.
pub(crate) trait Source {
    /// Copies the page at the physical address `pa` to `into`.
    ///
    /// `false` if the previous kernel did not preserve a page there: `pa` may be of any value.
    fn read(&self, pa: u64, into: &mut Page) -> bool;
}

/// Why incoming bytes were refused. For the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Malformed {
    /// An address where the previous kernel preserved nothing, or nothing of that size.
    NotPreserved(u64),
    /// An address of something that is part of another structure.
    Shared(u64),
    /// A compatible string that this kernel does not know.
    Incompatible,
    /// A count that does not fit where it stands, or does not match another one.
    Count(u64),
    /// A list that does not end.
    Endless,
    /// A string without its terminating zero, or an empty one.
    String,
    /// A field with a value that it cannot have.
    Field(&'static str),
}

// SPDX-License-Identifier: GPL-2.0

//! A file per structure, and two for all of them together.

mod array;
mod array_hostile;
mod chain;
mod chain_hostile;
mod corpus;
mod extent;
mod folio;
mod layout;
mod luo;
mod memfd;
mod owners;
mod radix;
mod random_page;
mod runs;
mod singles;
mod stress;
mod table;
mod whole;

use crate::{
    example::EDGES,
    handover::{
        block::Entry,
        luo::{Compatible, FileSer},
        Malformed,
    },
};
use zerocopy::{FromBytes, IntoBytes};

/// A file whose fields tell which it is.
fn file(token: u64) -> FileSer {
    FileSer {
        compatible: Compatible::from_str("test"),
        data: !token,
        token,
    }
}

/// Checks that `value` is these bytes, and these bytes are it.
fn assert_bytes<T: IntoBytes + FromBytes + zerocopy::Immutable>(value: &T, expected: &[u8]) {
    assert_eq!(value.as_bytes(), expected);
    let read = T::read_from_bytes(expected).expect("the size of the structure");
    assert_eq!(read.as_bytes(), expected);
}

/// An entry of 32 bytes, to see that nothing depends on a particular size.
#[derive(
    Clone,
    Debug,
    PartialEq,
    Eq,
    zerocopy_derive::FromBytes,
    zerocopy_derive::IntoBytes,
    zerocopy_derive::Immutable,
    zerocopy_derive::KnownLayout,
)]
#[repr(C)]
struct Small([u64; 4]);

impl Entry for Small {}

/// Why a test's own visitor ended a walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    Malformed(Malformed),
    Own,
}

impl From<Malformed> for Stop {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

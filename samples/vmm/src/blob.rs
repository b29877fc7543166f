// SPDX-License-Identifier: GPL-2.0

//! How a state lies in the memfd that is handed over: sealed in a header that tells whose state it is, and whether it
//! is whole.
//!
//! Whoever reads it is another program, maybe another version, in another kernel. Nothing in it is believed that the
//! header does not vouch for, and what is refused is left as it was.
//!
//! | bytes    | what                                                                     |
//! | -------- | ------------------------------------------------------------------------ |
//! | 0..8     | the magic word; zeros when there is no state                             |
//! | 8..12    | version of all that follows                                              |
//! | 12..16   | CRC-32 of all that follows, to the end of the state                      |
//! | 16..32   | identity of the guest                                                    |
//! | 32..40   | length of the state                                                      |
//! | 40..     | the state, as postcard encodes it                                        |

use crate::memory::GuestId;
use serde::de::DeserializeOwned;
use serde::Serialize;
use std::ops::Range;

const MAGIC: [u8; 8] = *b"LUOVMST\n";
/// To be raised with every change of what a state consists of.
const VERSION: u32 = 1;
/// Bytes before the state.
pub const HEADER_SIZE: usize = 40;
/// Where what the checksum is of begins.
const CHECKED_FROM: usize = 16;

/// Why a state is refused. Nothing was touched then.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// No state was written.
    #[error("there is no state: the guest was not paused when its host's kernel was replaced, or goes on already")]
    Missing,
    /// The bytes are something else.
    #[error("this is not the state of a guest")]
    Foreign,
    /// Another version of this program wrote it.
    #[error(
        "the state is of version {0}, and this program reads version {VERSION}: \
         resume the guest with the program that wrote it"
    )]
    Version(u32),
    /// There are fewer bytes than it says.
    #[error("the state is truncated: {found} of {wanted} bytes")]
    Truncated {
        /// What there is.
        found: u64,
        /// What there should be.
        wanted: u64,
    },
    /// The checksum is another one.
    #[error("the state is damaged: its checksum is wrong")]
    Damaged,
    /// It belongs to another guest's memory.
    #[error("the state is not of the guest that this memory is of")]
    OtherGuest,
    /// The checksum is right, but what is summed up is no state.
    #[error("the state cannot be understood")]
    Malformed,
}

/// Writes a state down.
pub fn encode(state: &impl Serialize, guest: GuestId) -> Result<Vec<u8>, postcard::Error> {
    let body = postcard::to_stdvec(state)?;
    let checked = [&guest.0[..], &(body.len() as u64).to_le_bytes(), &body].concat();
    let sum = crc32fast::hash(&checked);
    Ok([
        &MAGIC[..],
        &VERSION.to_le_bytes(),
        &sum.to_le_bytes(),
        &checked,
    ]
    .concat())
}

/// Reads a state; what stands behind it does not matter.
pub fn decode<S: DeserializeOwned>(bytes: &[u8], guest: GuestId) -> Result<S, Refusal> {
    let truncated = |wanted| Refusal::Truncated {
        found: bytes.len() as u64,
        wanted,
    };
    let field = |range: Range<usize>| bytes.get(range).ok_or(truncated(HEADER_SIZE as u64));
    let magic = field(0..8)?;
    if magic == [0; 8] {
        return Err(Refusal::Missing);
    }
    if magic != MAGIC {
        return Err(Refusal::Foreign);
    }
    let version = number(field(8..12)?) as u32;
    if version != VERSION {
        return Err(Refusal::Version(version));
    }
    let wanted = number(field(32..40)?).saturating_add(HEADER_SIZE as u64);
    let end = usize::try_from(wanted).map_err(|_| truncated(wanted))?;
    let checked = bytes.get(CHECKED_FROM..end).ok_or(truncated(wanted))?;
    if u64::from(crc32fast::hash(checked)) != number(field(12..16)?) {
        return Err(Refusal::Damaged);
    }
    if field(16..32)? != guest.0 {
        return Err(Refusal::OtherGuest);
    }
    match postcard::take_from_bytes(&bytes[HEADER_SIZE..end]) {
        Ok((state, [])) => Ok(state),
        _ => Err(Refusal::Malformed),
    }
}

/// A little-endian number of up to eight bytes.
fn number(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .rev()
        .fold(0, |number, &byte| (number << 8) | u64::from(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GUEST: GuestId = GuestId([7; 16]);
    const STATE: (u64, &str) = (42, "registers and the like");

    fn blob() -> Vec<u8> {
        encode(&STATE, GUEST).unwrap()
    }

    fn read(bytes: &[u8]) -> Result<(u64, String), Refusal> {
        decode(bytes, GUEST)
    }

    #[test]
    fn what_was_written_is_read_also_from_a_longer_file() {
        let mut bytes = blob();
        assert_eq!(read(&bytes).unwrap(), (STATE.0, STATE.1.to_string()));
        bytes.resize(4096, 0);
        assert_eq!(read(&bytes).unwrap(), (STATE.0, STATE.1.to_string()));
    }

    #[test]
    fn no_state() {
        assert_eq!(read(&[0; 4096]), Err(Refusal::Missing));
        assert_eq!(
            read(b"something else, of some length"),
            Err(Refusal::Foreign)
        );
    }

    #[test]
    fn every_truncation_is_refused() {
        let bytes = blob();
        for len in 0..bytes.len() {
            let refusal = read(&bytes[..len]).unwrap_err();
            assert!(
                matches!(refusal, Refusal::Truncated { found, .. } if found == len as u64),
                "{len}: {refusal:?}"
            );
        }
    }

    #[test]
    fn every_flipped_bit_is_refused() {
        let mut bytes = blob();
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(read(&bytes).is_err(), "bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn another_version_says_so_and_what_to_do() {
        let mut bytes = blob();
        bytes[8] = 9;
        let refusal = read(&bytes).unwrap_err();
        assert_eq!(refusal, Refusal::Version(9));
        assert!(
            refusal
                .to_string()
                .contains("of version 9, and this program reads version 1"),
            "{refusal}"
        );
    }

    #[test]
    fn another_guest() {
        assert_eq!(
            decode::<(u64, String)>(&blob(), GuestId([8; 16])),
            Err(Refusal::OtherGuest)
        );
    }

    #[test]
    fn a_length_beyond_all_memory() {
        let mut bytes = blob();
        bytes[32..40].fill(0xff);
        assert!(matches!(
            read(&bytes),
            Err(Refusal::Truncated {
                wanted: u64::MAX,
                ..
            })
        ));
    }

    #[test]
    fn bytes_that_are_no_state_under_a_right_checksum() {
        let bytes = encode(&"only a text", GUEST).unwrap();
        assert_eq!(read(&bytes), Err(Refusal::Malformed));
        let bytes = encode(&(STATE, 1), GUEST).unwrap();
        assert_eq!(read(&bytes), Err(Refusal::Malformed));
    }
}

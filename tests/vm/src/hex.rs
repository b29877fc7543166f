// SPDX-License-Identifier: GPL-2.0

//! Bytes as text, two digits for each.

use std::fmt::Write;

/// Writes bytes.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes all");
        text
    })
}

/// Reads what [`hex`] wrote; `None` if it is anything else.
pub fn from_hex(text: &str) -> Option<Vec<u8>> {
    // What else from_str_radix() takes: a sign.
    let digits = text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let pairs = (0..text.len()).step_by(2);
    let bytes = pairs.map(|i| u8::from_str_radix(text.get(i..i + 2)?, 16).ok());
    bytes.collect::<Option<_>>().filter(|_| digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pairs_of_digits_are_bytes() {
        assert_eq!(from_hex(&hex(b"\x00\x7f\xff")), Some(vec![0, 0x7f, 0xff]));
        assert_eq!(from_hex(""), Some(vec![]));
        for text in ["0", "000", "0g", "+1", " 1", "\u{e9}"] {
            assert_eq!(from_hex(text), None, "{text:?}");
        }
    }
}

// SPDX-License-Identifier: GPL-2.0

//! Root, sessions and strings of "luo-v5".

use crate::{
    handover::{
        luo::{Compatible, LuoSer, SessionName, SessionSer, COMPATIBLE},
        Malformed,
    },
    reader::check_name,
};
use proptest::prelude::*;
use zerocopy::FromBytes;

/// A field with these bytes at its start.
fn field(text: &[u8]) -> [u8; 64] {
    let mut field = [0; 64];
    field[..text.len()].copy_from_slice(text);
    field
}

fn session(name: &[u8], files_pa: u64, nr_files: u64) -> SessionSer {
    SessionSer {
        name: field(name),
        files_pa,
        nr_files,
    }
}

#[test]
fn name_lengths() {
    for len in 1..=63 {
        let text = vec![b'x'; len];
        let name = SessionName::new(&field(&text)).expect("a good name");
        check_name(&name);
        assert_eq!(name.as_bytes(), text);
    }
    assert!(SessionName::new(&[0; 64]).is_none());
    assert!(SessionName::new(&[b'x'; 64]).is_none());
    assert!(
        SessionName::new(&field(b"\0x")).is_none(),
        "empty, with garbage"
    );
}

#[test]
fn names_as_words() {
    for (name, word) in [
        (&b"vm"[..], "vm"),
        (b"a b\nc=\"\\\"", "a\\x20b\\nc=\\\"\\\\\\\""),
        (&[0xff; 63], &"\\xff".repeat(63)),
    ] {
        let name = SessionName::new(&field(name)).expect("a good name");
        check_name(&name);
        let bytes = name.word();
        let end = bytes.iter().position(|&byte| byte == 0).expect("an end");
        assert_eq!(&bytes[..end], word.as_bytes());
    }
}

#[test]
fn names_are_equal_whatever_follows_them() {
    let clean = SessionName::new(&field(b"vm")).unwrap();
    let garbage = SessionName::new(&field(b"vm\0garbage")).unwrap();
    assert_eq!(clean, garbage);
    assert_eq!(garbage.as_array(), &field(b"vm"));
    assert_ne!(clean, SessionName::new(&field(b"vm2")).unwrap());
}

#[test]
fn root_of_another_layout() {
    let root = |compatible| LuoSer {
        compatible,
        liveupdate_num: 1,
        sessions_pa: 0,
        flbs_pa: 0,
    };
    assert_eq!(root(COMPATIBLE).validate(), Ok(()));
    for bit in 0..64 {
        let mut compatible = COMPATIBLE;
        compatible[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(root(compatible).validate(), Err(Malformed::Incompatible));
    }
    for other in [*b"luo-v4\0\0", *b"luo-v50\0", *b"luo-v5\0x", [0; 8]] {
        assert_eq!(root(other).validate(), Err(Malformed::Incompatible));
    }
}

#[test]
fn sessions() {
    let name = SessionName::new(&field(b"vm"));
    for (session, expected) in [
        (SessionSer::GONE, Ok(None)),
        (session(b"vm", 0, 0), Ok(name)),
        (session(b"vm", 4096, 1), Ok(name)),
        (session(b"vm", !0, !0), Ok(name)),
        (session(b"vm", 4096, 0), Err(Malformed::Count(0))),
        (session(b"vm", 0, 1), Err(Malformed::Count(1))),
        (session(b"vm", 0, !0), Err(Malformed::Count(!0))),
        (session(b"", 4096, 1), Err(Malformed::String)),
        (session(&[b'x'; 64], 4096, 1), Err(Malformed::String)),
        (session(&[b'x'; 64], 0, 0), Err(Malformed::String)),
    ] {
        assert_eq!(session.validate(), expected);
    }
}

#[test]
fn compatible_strings() {
    let text = Compatible::from_str("memfd-v2");
    assert_eq!(&text.as_array()[..9], b"memfd-v2\0");
    assert_eq!(format!("{text:?}"), "[memfd-v2]");
    let longest = "x".repeat(47);
    assert_eq!(
        Compatible::from_str(&longest).as_array()[..47],
        *longest.as_bytes()
    );
    // What is incoming may be anything: as it stands it is compared as a whole, normalized by its text.
    let mut garbage = *text.as_array();
    garbage[20] = 1;
    let incoming = Compatible::read_from_bytes(&garbage).unwrap();
    assert_ne!(incoming, text);
    assert_eq!(incoming.normalized(), text);
}

#[test]
#[should_panic]
fn compatible_string_too_long() {
    Compatible::from_str(&"x".repeat(48));
}

proptest! {
    /// A name is taken exactly if it has 1 to 63 bytes, and is then those bytes.
    #[test]
    fn any_name(mut bytes in any::<[u8; 64]>(), end in 0usize..80) {
        if let Some(byte) = bytes.get_mut(end) {
            *byte = 0;
        }
        let len = bytes.iter().position(|&byte| byte == 0);
        let name = SessionName::new(&bytes);
        match len {
            None | Some(0) => prop_assert!(name.is_none()),
            Some(len) => {
                let name = name.expect("a good name");
                check_name(&name);
                prop_assert_eq!(name.as_bytes(), &bytes[..len]);
            }
        }
    }

    /// Names are in the order of their text.
    #[test]
    fn names_in_order(a in "[a-c]{1,4}", b in "[a-c]{1,4}") {
        let name = |text: &str| SessionName::new(&field(text.as_bytes())).unwrap();
        prop_assert_eq!(name(&a).cmp(&name(&b)), a.cmp(&b));
    }

    /// A compatible string is taken exactly if it has 1 to 47 bytes; normalizing does no more than clearing the rest.
    #[test]
    fn any_compatible(mut bytes in any::<[u8; 48]>(), end in 0usize..60) {
        if let Some(byte) = bytes.get_mut(end) {
            *byte = 0;
        }
        let incoming = Compatible::read_from_bytes(&bytes).unwrap();
        prop_assert_eq!(incoming.as_array(), &bytes);
        match bytes.iter().position(|&byte| byte == 0) {
            None | Some(0) => {
                prop_assert!(Compatible::new(&bytes).is_none());
                prop_assert_eq!(incoming.normalized(), incoming);
            }
            Some(len) => {
                bytes[len..].fill(0);
                let clean = Compatible::read_from_bytes(&bytes).unwrap();
                prop_assert_eq!(Compatible::new(incoming.as_array()), Some(clean));
                prop_assert_eq!(incoming.normalized(), clean);
            }
        }
    }

    /// Nothing that could harm a log or a terminal is shown.
    #[test]
    fn strings_are_shown_harmlessly(bytes in any::<[u8; 48]>()) {
        let shown = format!("{:?}", Compatible::read_from_bytes(&bytes).unwrap());
        prop_assert!(shown.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
        prop_assert!(shown.starts_with('[') && shown.ends_with(']'));
    }

    /// A session is gone, good, or refused: and good only with files and address both or neither.
    #[test]
    fn any_session(name in any::<[u8; 64]>(), files_pa in 0u64..2, nr_files in 0u64..2) {
        match (SessionSer { name, files_pa, nr_files }).validate() {
            Ok(None) => prop_assert_eq!((name[0], files_pa, nr_files), (0, 0, 0)),
            Ok(Some(name)) => {
                check_name(&name);
                prop_assert_eq!(files_pa, nr_files);
            }
            Err(Malformed::String) => prop_assert!(name[0] == 0 || !name.contains(&0)),
            Err(why) => {
                prop_assert_eq!(why, Malformed::Count(nr_files));
                prop_assert_ne!(files_pa, nr_files);
            }
        }
    }
}

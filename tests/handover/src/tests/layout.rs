// SPDX-License-Identifier: GPL-2.0

//! The layouts, byte for byte as the C structures have them on a little-endian machine.
//!
//! The fixtures are by hand from the fields of `include/linux/kho/abi/*.h` of Linux 7.3, and were compared with what a
//! C compiler makes of those. They are the contract with the C orchestrator: never adapt them to the code.

use super::{assert_bytes, file, Small};
use crate::{
    handover::{
        block::{self, capacity, header_mut, set_entry, Header, Place},
        luo::{self, Compatible, FileSer, FlbHeaderSer, FlbSer, LuoSer, SessionName, SessionSer},
        memfd::{self, FolioSer, MemfdSer},
        vmalloc::{Chunk, VmallocSer, CHUNK_CAPACITY},
        Page, PAGE_SIZE,
    },
    memory::{scratch, Memory},
    write,
};
use std::mem::offset_of;
use zerocopy::{FromBytes, IntoBytes};

/// Three integers whose every byte differs, and those bytes.
const A: u64 = 0x1817_1615_1413_1211;
const B: u64 = 0x2827_2625_2423_2221;
const C: u64 = 0x3837_3635_3433_3231;
const A_BYTES: &[u8] = b"\x11\x12\x13\x14\x15\x16\x17\x18";
const B_BYTES: &[u8] = b"\x21\x22\x23\x24\x25\x26\x27\x28";
const C_BYTES: &[u8] = b"\x31\x32\x33\x34\x35\x36\x37\x38";

#[test]
fn numbers_and_names() {
    assert_eq!(PAGE_SIZE, 4096);
    assert_eq!(luo::KHO_ENTRY.to_bytes_with_nul(), b"LUO\0");
    assert_eq!(&luo::COMPATIBLE, b"luo-v5\0\0");
    assert_eq!(SessionName::SIZE, 64);
    assert_eq!(Compatible::SIZE, 48);
    assert_eq!(block::MAX_BLOCKS, 10_000);
    // F_SEAL_SEAL, SHRINK, GROW, WRITE, FUTURE_WRITE, EXEC
    assert_eq!(memfd::KNOWN_SEALS, 1 | 2 | 4 | 8 | 0x10 | 0x20);
}

#[test]
fn root() {
    let root = LuoSer {
        compatible: luo::COMPATIBLE,
        liveupdate_num: A,
        sessions_pa: B,
        flbs_pa: C,
    };
    assert_bytes(&root, &[b"luo-v5\0\0", A_BYTES, B_BYTES, C_BYTES].concat());
    assert_eq!(offset_of!(LuoSer, sessions_pa), 16);
}

#[test]
fn session() {
    let mut name = [0; 64];
    name[..2].copy_from_slice(b"vm");
    let session = SessionSer {
        name,
        files_pa: A,
        nr_files: B,
    };
    assert_bytes(&session, &[b"vm", &[0; 62][..], A_BYTES, B_BYTES].concat());
    assert_bytes(&SessionSer::GONE, &[0; 80]);
}

#[test]
fn file_entry() {
    let file = FileSer {
        compatible: memfd::COMPATIBLE_V2,
        data: A,
        token: B,
    };
    assert_bytes(
        &file,
        &[b"memfd-v2", &[0; 40][..], A_BYTES, B_BYTES].concat(),
    );
}

#[test]
fn flb() {
    let header = FlbHeaderSer {
        nr_pages: A,
        count: B,
    };
    assert_bytes(&header, &[A_BYTES, B_BYTES].concat());
    let flb = FlbSer {
        compatible: Compatible::from_str("liveupdate-test-flb-v1"),
        data: A,
        count: B,
    };
    let bytes = [b"liveupdate-test-flb-v1", &[0; 26][..], A_BYTES, B_BYTES].concat();
    assert_bytes(&flb, &bytes);
}

#[test]
fn memfd_entry() {
    let memfd = MemfdSer {
        pos: A,
        size: B,
        seals: 0x4443_4241,
        flags: 0x5453_5251,
        nr_entries: C,
        entries: VmallocSer {
            first: A,
            nr_pages: 0x6463_6261,
            flags: 0x7271,
            order: 0x8281,
        },
    };
    let bytes = [
        A_BYTES,
        B_BYTES,
        b"\x41\x42\x43\x44\x51\x52\x53\x54",
        C_BYTES,
        A_BYTES,
        b"\x61\x62\x63\x64\x71\x72\x81\x82",
    ];
    assert_bytes(&memfd, &bytes.concat());
}

#[test]
fn folio() {
    // Dirty and up to date, as all folios are that are written.
    let folio = FolioSer::new(0x1_2345, B);
    assert_bytes(
        &folio,
        &[b"\x45\x23\x01\x00\x00\x00\x30\x00", B_BYTES].concat(),
    );
    // The frame number takes 52 bits, and no flag leaks into it.
    let bytes = b"\x43\x65\x87\xa9\xcb\xed\x0f\x80\x07\0\0\0\0\0\0\0";
    let folio = FolioSer::read_from_bytes(bytes).unwrap();
    assert_eq!((folio.pfn(), folio.index()), (0xf_edcb_a987_6543, 7));
    assert_eq!(FolioSer::PER_PAGE, 256);
}

#[test]
fn array_description() {
    // An array of vmalloc() of single pages: what this kernel writes.
    assert_bytes(
        &VmallocSer::new(A, 0x6463_6261),
        &[A_BYTES, b"\x61\x62\x63\x64\x01\x00\x00\x00"].concat(),
    );
}

#[test]
fn chunk() {
    assert_eq!(CHUNK_CAPACITY, 511);
    let mut chunk = Chunk::read_from_bytes(&[0; PAGE_SIZE]).unwrap();
    chunk.next = A;
    chunk.pages[0] = B;
    chunk.pages[510] = C;
    let bytes = [A_BYTES, B_BYTES, &[0; 4072], C_BYTES].concat();
    assert_bytes(&chunk, &bytes);
}

#[test]
fn block_header_and_entries() {
    assert_bytes(&Header { next: A, count: B }, &[A_BYTES, B_BYTES].concat());
    assert_eq!(capacity::<SessionSer>(), 51);
    assert_eq!(capacity::<FileSer>(), 63);
    assert_eq!(capacity::<Small>(), 127);

    let mut page = Page::ZERO;
    *header_mut(&mut page).unwrap() = Header { next: A, count: 2 };
    set_entry(&mut page, 1, &file(B)).unwrap();
    let entry = file(B);
    let expected = [
        A_BYTES,
        b"\x02\0\0\0\0\0\0\0",
        &[0; 64],
        entry.as_bytes(),
        &[0; 3952],
    ];
    assert_eq!(page.0[..], expected.concat());
    let place = Place {
        block_pa: A,
        slot: 1,
    };
    assert_eq!(place.offset::<FileSer>(), 80);
    assert_eq!(place.offset::<SessionSer>(), 96);
}

#[test]
fn no_entry_beyond_the_page() {
    for slot in [63, 64, usize::MAX / 64, usize::MAX] {
        let mut page = Page::ZERO;
        assert_eq!(set_entry(&mut page, slot, &file(!0)), None);
        assert_eq!(page.0, [0; PAGE_SIZE]);
    }
    assert_eq!(set_entry(&mut scratch(), 62, &file(0)), Some(()));
}

/// A whole handover of one empty memfd, every byte of every page of it.
#[test]
fn handover() {
    let mut memory = Memory::default();
    let session = write::Session {
        name: b"vm".to_vec(),
        files: vec![write::File {
            token: A,
            kind: Ok(write::Memfd {
                pos: B,
                size: 0,
                seals: 1,
                contents: write::Contents::Folios {
                    folios: vec![],
                    array_order: 0,
                },
            }),
        }],
    };
    let root_pa = write::handover(&mut memory, 3, &[session]).root_pa;

    let next = |bytes: &[&[u8]]| {
        let mut page = bytes.concat();
        page.resize(PAGE_SIZE, 0);
        page
    };
    let sessions_pa = memory.word(root_pa, 16);
    let root = next(&[
        b"luo-v5\0\0",
        b"\x03\0\0\0\0\0\0\0",
        &sessions_pa.to_le_bytes(),
    ]);
    assert_eq!(memory.bytes(root_pa)[..], root);

    let files_pa = memory.word(sessions_pa, 16 + 64);
    let one = 1u64.to_le_bytes();
    let sessions = next(&[
        &[0; 8],
        &one,
        b"vm",
        &[0; 62],
        &files_pa.to_le_bytes(),
        &one,
    ]);
    assert_eq!(memory.bytes(sessions_pa)[..], sessions);

    let memfd_pa = memory.word(files_pa, 16 + 48);
    let files = next(&[
        &[0; 8],
        &one,
        b"memfd-v2",
        &[0; 40],
        &memfd_pa.to_le_bytes(),
        A_BYTES,
    ]);
    assert_eq!(memory.bytes(files_pa)[..], files);

    let memfd = next(&[
        B_BYTES,
        &[0; 8],
        b"\x01\0\0\0\0\0\0\0",
        &[0; 20],
        b"\x01\0\0\0",
    ]);
    // The array of an empty memfd is not read; the flags of vmalloc() are there all the same.
    assert_eq!(memory.bytes(memfd_pa)[..], memfd);
}

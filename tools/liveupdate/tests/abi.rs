//! The argument structs and numbers are those of the kernel's header.

use std::mem::{align_of, offset_of, size_of};

use liveupdate::raw::*;

macro_rules! layout {
    ($type:ident, $size:literal { $($field:ident: $offset:literal),* $(,)? }) => {
        assert_eq!(size_of::<$type>(), $size, stringify!($type));
        $(assert_eq!(
            offset_of!($type, $field), $offset,
            concat!(stringify!($type), ".", stringify!($field))
        );)*
    };
}

#[test]
fn commands_of_the_kernel_header() {
    layout!(CreateSession, 72 { size: 0, fd: 4, name: 8 });
    layout!(RetrieveSession, 72 { size: 0, fd: 4, name: 8 });
    layout!(SessionPreserveFd, 16 { size: 0, fd: 4, token: 8 });
    layout!(SessionRetrieveFd, 16 { size: 0, fd: 4, token: 8 });
    layout!(SessionFinish, 8 { size: 0, reserved: 4 });
    layout!(SessionGetName, 72 { size: 0, reserved: 4, name: 8 });

    assert_eq!(CreateSession::OPCODE, 0xBA00);
    assert_eq!(RetrieveSession::OPCODE, 0xBA01);
    assert_eq!(SessionPreserveFd::OPCODE, 0xBA40);
    assert_eq!(SessionRetrieveFd::OPCODE, 0xBA41);
    assert_eq!(SessionFinish::OPCODE, 0xBA42);
    assert_eq!(SessionGetName::OPCODE, 0xBA43);
}

#[test]
fn extensions() {
    layout!(GetInfo, 104 {
        flags: 4, features: 8, liveupdate_num: 16, implementation: 24, memfd_format: 56,
    });
    layout!(ListSessions, 40 { reserved: 4, start: 8, count: 16, entries: 24, total: 32 });
    layout!(SessionUnpreserveFd, 16 { reserved: 4, token: 8 });
    layout!(SessionPrepare, 16 { reserved: 4, failed_token: 8 });
    layout!(SessionCancel, 8 { reserved: 4 });
    layout!(SessionGetState, 24 { state: 4, nr_files: 8, nr_retrieved: 16 });
    layout!(SessionListFds, 40 { reserved: 4, start: 8, count: 16, entries: 24, total: 32 });
    layout!(SessionSetFlags, 8 { flags: 4 });
    layout!(SessionEntry, 80 { name: 0, state: 64, flags: 68, nr_files: 72 });
    layout!(FdEntry, 64 { token: 0, compatible: 8, state: 56, reserved: 60 });
    assert_eq!(align_of::<SessionEntry>(), 8);
    assert_eq!(align_of::<FdEntry>(), 8);

    assert_eq!(GetInfo::OPCODE, 0xBAA0);
    assert_eq!(ListSessions::OPCODE, 0xBAA1);
    assert_eq!(SessionUnpreserveFd::OPCODE, 0xBAC0);
    assert_eq!(SessionPrepare::OPCODE, 0xBAC1);
    assert_eq!(SessionCancel::OPCODE, 0xBAC2);
    assert_eq!(SessionGetState::OPCODE, 0xBAC3);
    assert_eq!(SessionListFds::OPCODE, 0xBAC4);
    assert_eq!(SessionSetFlags::OPCODE, 0xBAC5);
}

#[test]
fn the_default_is_zero_with_its_size() {
    let command = SessionPreserveFd::default();
    assert_eq!((command.size, command.fd, command.token), (16, 0, 0));
    assert_eq!(CreateSession::default().size, 72);
    assert_eq!(GetInfo::default().memfd_format, [0; 48]);
}

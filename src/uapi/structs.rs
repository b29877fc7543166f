// SPDX-License-Identifier: GPL-2.0

//! Command numbers and structures of the user ABI.
//!
//! Source, with the meaning of each field: `include/uapi/linux/liveupdate.h`.

use super::Argument;
use core::mem::size_of;
use kernel::{ioctl::_IO, prelude::*};
use zerocopy_derive::{Immutable, KnownLayout};

/// The type of all our ioctls (`LIVEUPDATE_IOCTL_TYPE`).
const TYPE: u32 = 0xBA;

pub(crate) const CREATE_SESSION: u32 = _IO(TYPE, 0x00);
pub(crate) const RETRIEVE_SESSION: u32 = _IO(TYPE, 0x01);

pub(crate) const SESSION_PRESERVE_FD: u32 = _IO(TYPE, 0x40);
pub(crate) const SESSION_RETRIEVE_FD: u32 = _IO(TYPE, 0x41);
pub(crate) const SESSION_FINISH: u32 = _IO(TYPE, 0x42);
pub(crate) const SESSION_GET_NAME: u32 = _IO(TYPE, 0x43);

pub(crate) const GET_INFO: u32 = _IO(TYPE, 0xA0);
pub(crate) const LIST_SESSIONS: u32 = _IO(TYPE, 0xA1);

pub(crate) const SESSION_UNPRESERVE_FD: u32 = _IO(TYPE, 0xC0);
pub(crate) const SESSION_PREPARE: u32 = _IO(TYPE, 0xC1);
pub(crate) const SESSION_CANCEL: u32 = _IO(TYPE, 0xC2);
pub(crate) const SESSION_GET_STATE: u32 = _IO(TYPE, 0xC3);
pub(crate) const SESSION_LIST_FDS: u32 = _IO(TYPE, 0xC4);
pub(crate) const SESSION_SET_FLAGS: u32 = _IO(TYPE, 0xC5);

/// Files come and go.
pub(crate) const STATE_NORMAL: u32 = 1;
/// Checked, and closed for changes.
pub(crate) const STATE_PREPARED: u32 = 2;
/// The kexec is under way.
pub(crate) const STATE_FROZEN: u32 = 3;
/// Handed over by the previous kernel.
pub(crate) const STATE_UPDATED: u32 = 4;

/// Files are retrieved in order only, and unpreserved in reverse.
pub(crate) const SESSION_F_ORDERED: u32 = 1;

/// `struct liveupdate_ioctl_create_session` and `struct liveupdate_ioctl_retrieve_session`.
#[repr(C)]
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
pub(crate) struct NamedSession {
    pub(crate) size: u32,
    pub(crate) fd: i32,
    pub(crate) name: [u8; 64],
}

impl Argument for NamedSession {}

/// `struct liveupdate_session_preserve_fd` and `struct liveupdate_session_retrieve_fd`.
#[repr(C)]
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
pub(crate) struct TokenFd {
    pub(crate) size: u32,
    pub(crate) fd: i32,
    pub(crate) token: u64,
}

impl Argument for TokenFd {}

/// `struct liveupdate_session_finish` and `struct liveupdate_session_cancel`.
#[repr(C)]
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
pub(crate) struct Plain {
    pub(crate) size: u32,
    pub(crate) reserved: u32,
}

impl Argument for Plain {}

/// `struct liveupdate_session_get_name`.
#[repr(C)]
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
pub(crate) struct GetName {
    pub(crate) size: u32,
    pub(crate) reserved: u32,
    pub(crate) name: [u8; 64],
}

impl Argument for GetName {}

/// `struct liveupdate_ioctl_get_info`.
#[repr(C)]
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
pub(crate) struct GetInfo {
    pub(crate) size: u32,
    pub(crate) flags: u32,
    pub(crate) features: u64,
    pub(crate) liveupdate_num: u64,
    pub(crate) implementation: [u8; 32],
    pub(crate) memfd_format: [u8; 48],
}

impl Argument for GetInfo {}

/// `struct liveupdate_ioctl_list_sessions` and `struct liveupdate_session_list_fds`.
#[repr(C)]
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
pub(crate) struct List {
    pub(crate) size: u32,
    pub(crate) reserved: u32,
    pub(crate) start: u64,
    pub(crate) count: u64,
    pub(crate) entries: u64,
    pub(crate) total: u64,
}

impl Argument for List {}

/// `struct liveupdate_session_unpreserve_fd` and `struct liveupdate_session_prepare`.
#[repr(C)]
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
pub(crate) struct Token {
    pub(crate) size: u32,
    pub(crate) reserved: u32,
    pub(crate) token: u64,
}

impl Argument for Token {}

/// `struct liveupdate_session_get_state`.
#[repr(C)]
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
pub(crate) struct GetState {
    pub(crate) size: u32,
    pub(crate) state: u32,
    pub(crate) nr_files: u64,
    pub(crate) nr_retrieved: u64,
}

impl Argument for GetState {}

/// `struct liveupdate_session_set_flags`.
#[repr(C)]
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
pub(crate) struct SetFlags {
    pub(crate) size: u32,
    pub(crate) flags: u32,
}

impl Argument for SetFlags {}

/// `struct liveupdate_session_entry`.
#[repr(C)]
#[derive(IntoBytes, Immutable)]
pub(crate) struct SessionEntry {
    pub(crate) name: [u8; 64],
    pub(crate) state: u32,
    pub(crate) flags: u32,
    pub(crate) nr_files: u64,
}

/// `struct liveupdate_fd_entry`.
#[repr(C)]
#[derive(IntoBytes, Immutable)]
pub(crate) struct FdEntry {
    pub(crate) token: u64,
    pub(crate) compatible: [u8; 48],
    pub(crate) state: u32,
    pub(crate) reserved: u32,
}

const _: () = assert!(size_of::<NamedSession>() == 72);
const _: () = assert!(size_of::<GetInfo>() == 104);
const _: () = assert!(size_of::<List>() == 40);
const _: () = assert!(size_of::<SessionEntry>() == 80);
const _: () = assert!(size_of::<FdEntry>() == 64);

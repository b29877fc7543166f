// SPDX-License-Identifier: GPL-2.0

//! The border to user space: command numbers, structures, and copying them in and out.
//!
//! Source: `include/uapi/linux/liveupdate.h`. Every structure starts with its size as the caller
//! knows it; one that is longer than ours may only have zeroes in the rest.

use core::mem::size_of;
use kernel::{
    ioctl::_IO,
    prelude::*,
    uaccess::{UserPtr, UserSlice},
};
use zerocopy::{Immutable, KnownLayout};
use zerocopy_derive::{Immutable, KnownLayout};

/// The type of all our ioctls (`LIVEUPDATE_IOCTL_TYPE`).
const TYPE: u32 = 0xBA;

/// The number of an ioctl (`_IOC_NR`).
const fn nr(cmd: u32) -> u32 {
    cmd & 0xff
}

pub(crate) const CREATE_SESSION: u32 = _IO(TYPE, 0x00);
pub(crate) const RETRIEVE_SESSION: u32 = _IO(TYPE, 0x01);

pub(crate) const SESSION_PRESERVE_FD: u32 = _IO(TYPE, 0x40);
pub(crate) const SESSION_RETRIEVE_FD: u32 = _IO(TYPE, 0x41);
pub(crate) const SESSION_FINISH: u32 = _IO(TYPE, 0x42);
pub(crate) const SESSION_GET_NAME: u32 = _IO(TYPE, 0x43);

/// A structure of the user ABI.
pub(crate) trait Argument: FromBytes + IntoBytes + Immutable + KnownLayout {
    /// The size that the oldest callers know, in bytes.
    const MIN_SIZE: usize;
}

/// `struct liveupdate_ioctl_create_session` and `struct liveupdate_ioctl_retrieve_session`.
#[repr(C)]
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
pub(crate) struct NamedSession {
    pub(crate) size: u32,
    pub(crate) fd: i32,
    pub(crate) name: [u8; 64],
}

impl Argument for NamedSession {
    const MIN_SIZE: usize = size_of::<Self>();
}

/// `struct liveupdate_session_preserve_fd` and `struct liveupdate_session_retrieve_fd`.
#[repr(C)]
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
pub(crate) struct TokenFd {
    pub(crate) size: u32,
    pub(crate) fd: i32,
    pub(crate) token: u64,
}

impl Argument for TokenFd {
    const MIN_SIZE: usize = size_of::<Self>();
}

/// `struct liveupdate_session_finish`.
#[repr(C)]
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
pub(crate) struct Finish {
    pub(crate) size: u32,
    pub(crate) reserved: u32,
}

impl Argument for Finish {
    const MIN_SIZE: usize = size_of::<Self>();
}

/// `struct liveupdate_session_get_name`.
#[repr(C)]
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
pub(crate) struct GetName {
    pub(crate) size: u32,
    pub(crate) reserved: u32,
    pub(crate) name: [u8; 64],
}

impl Argument for GetName {
    const MIN_SIZE: usize = size_of::<Self>();
}

/// A range of command numbers that an object serves.
#[derive(Clone, Copy)]
pub(crate) struct Range {
    /// The first number.
    pub(crate) first: u32,
    /// The last number.
    pub(crate) last: u32,
}

/// The extensions of the device and of sessions: an unknown number there is `ENOTTY`.
const EXTENSIONS: Range = Range {
    first: 0xA0,
    last: 0xFF,
};

impl Range {
    /// Whether `cmd` has a number of this range.
    fn contains(self, cmd: u32) -> bool {
        (self.first..=self.last).contains(&nr(cmd))
    }
}

/// A command, before its structure was copied in.
pub(crate) struct Request {
    /// The command's number with its type.
    pub(crate) cmd: u32,
    user: UserPtr,
    user_size: usize,
}

impl Request {
    /// Looks at a command. Errors are those of the peer, and found in its order: `EINVAL` for a
    /// number outside of `numbers`, `EFAULT` if the size cannot be read; and the caller answers
    /// `ENOTTY` to a `cmd` that it does not know.
    pub(crate) fn new(cmd: u32, arg: usize, numbers: Range) -> Result<Self> {
        if EXTENSIONS.contains(cmd) {
            return Err(ENOTTY);
        }
        if !numbers.contains(cmd) {
            return Err(EINVAL);
        }
        let user = UserPtr::from_addr(arg);
        let mut size = [0; size_of::<u32>()];
        UserSlice::new(user, size.len())
            .reader()
            .read_slice(&mut size)?;
        Ok(Self {
            cmd,
            user,
            user_size: u32::from_ne_bytes(size) as usize,
        })
    }

    /// Copies the structure in. `EINVAL` if it is too short, `E2BIG` if it has something that this
    /// kernel does not know, `EFAULT` if it cannot be read.
    pub(crate) fn read<T: Argument>(&self) -> Result<T> {
        if self.user_size < T::MIN_SIZE {
            return Err(EINVAL);
        }
        let mut value = T::new_zeroed();
        let mut reader = UserSlice::new(self.user, self.user_size).reader();
        let bytes = value.as_mut_bytes();
        let known = bytes.len().min(self.user_size);
        reader.read_slice(bytes.get_mut(..known).ok_or(EINVAL)?)?;

        let mut rest = [0; 256];
        while !reader.is_empty() {
            let some = rest.len().min(reader.len());
            let chunk = rest.get_mut(..some).ok_or(EINVAL)?;
            reader.read_slice(chunk)?;
            if chunk.iter().any(|&byte| byte != 0) {
                return Err(E2BIG);
            }
        }
        Ok(value)
    }

    /// Copies the structure out, as much of it as the caller has room for.
    pub(crate) fn respond<T: Argument>(&self, value: &T) -> Result {
        let bytes = value.as_bytes();
        let known = bytes.len().min(self.user_size);
        UserSlice::new(self.user, known)
            .writer()
            .write_slice(bytes.get(..known).ok_or(EINVAL)?)
    }
}

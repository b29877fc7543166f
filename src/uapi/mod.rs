// SPDX-License-Identifier: GPL-2.0

//! The border to user space: command numbers, structures, and copying them in and out.
//!
//! Source: `include/uapi/linux/liveupdate.h`. Every structure starts with its size as the caller
//! knows it; one that is longer than ours may only have zeroes in the rest.

use core::mem::size_of;
use kernel::{
    page::PAGE_SIZE,
    prelude::*,
    uaccess::{UserPtr, UserSlice, UserSliceReader},
};
use zerocopy::{Immutable, KnownLayout};

mod list;
mod structs;

pub(crate) use list::{Listings, Place, Window};
pub(crate) use structs::*;

/// The number of an ioctl (`_IOC_NR`).
const fn nr(cmd: u32) -> u32 {
    cmd & 0xff
}

/// A structure of the user ABI.
pub(crate) trait Argument: Sized + FromBytes + IntoBytes + Immutable + KnownLayout {
    /// The size that the oldest callers know, in bytes.
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
    address: usize,
    user_size: usize,
}

impl Request {
    /// Looks at a command. Errors are those of the kernel's own orchestrator, and found in its order:
    /// `EINVAL` for a number outside of `numbers`, `EFAULT` if the size cannot be read; and the caller
    /// answers `ENOTTY` to a `cmd` that it does not know. An extension that is not among `extensions`
    /// is `ENOTTY`, too.
    pub(crate) fn new(cmd: u32, arg: usize, numbers: Range, extensions: Range) -> Result<Self> {
        if EXTENSIONS.contains(cmd) {
            if !extensions.contains(cmd) {
                return Err(ENOTTY);
            }
        } else if !numbers.contains(cmd) {
            return Err(EINVAL);
        }
        let user_size: u32 = UserSlice::new(UserPtr::from_addr(arg), size_of::<u32>())
            .reader()
            .read()?;
        Ok(Self {
            cmd,
            address: arg,
            user_size: user_size as usize,
        })
    }

    /// The first `len` bytes of the structure in user memory.
    #[inline(always)]
    fn user(&self, len: usize) -> UserSlice {
        UserSlice::new(UserPtr::from_addr(self.address), len)
    }

    /// Copies the structure in. `EINVAL` if it is too short, `E2BIG` if it has something that this
    /// kernel does not know, `EFAULT` if it cannot be read.
    pub(crate) fn read<T: Argument>(&self) -> Result<T> {
        if self.user_size < T::MIN_SIZE {
            return Err(EINVAL);
        }
        let mut value = T::new_zeroed();
        let mut reader = self.user(self.user_size).reader();
        let bytes = value.as_mut_bytes();
        let known = bytes.len().min(self.user_size);
        reader.read_slice(bytes.get_mut(..known).ok_or(EINVAL)?)?;
        if !reader.is_empty() {
            check_rest(reader, self.address.wrapping_add(self.user_size))?;
        }
        Ok(value)
    }

    /// Copies the structure out, as much of it as the caller has room for.
    pub(crate) fn respond<T: Argument>(&self, value: &T) -> Result {
        let bytes = value.as_bytes();
        let known = bytes.len().min(self.user_size);
        self.user(known)
            .writer()
            .write_slice(bytes.get(..known).ok_or(EINVAL)?)
    }
}

/// Checks that what a newer caller has behind the structure, up to the address `end`, is zero.
#[cold]
#[inline(never)]
fn check_rest(mut reader: UserSliceReader, end: usize) -> Result {
    let mut rest = [0; 256];
    while !reader.is_empty() {
        // Never over the end of a page: memory that ends there does not hide what is before it.
        let to_page_end = PAGE_SIZE - end.wrapping_sub(reader.len()) % PAGE_SIZE;
        let some = rest.len().min(reader.len()).min(to_page_end);
        let chunk = rest.get_mut(..some).ok_or(EINVAL)?;
        reader.read_slice(chunk)?;
        if chunk.iter().any(|&byte| byte != 0) {
            return Err(E2BIG);
        }
    }
    Ok(())
}

// SPDX-License-Identifier: GPL-2.0

//! ioctls whose arguments are passed in right and wrong ways.

use crate::cases::common::luo::{ioctl, ioctl_raw};
use crate::cases::common::pages::{bytes_of, Pages};
use luo_model::{Errno, Shape};
use std::os::fd::RawFd;

/// An argument as it is to be passed.
pub struct Call {
    /// How.
    pub shape: Shape,
    /// Whether it has a reserved field.
    pub has_reserved: bool,
    /// Whether the command is refused if the answer cannot be written.
    pub answers: bool,
}

impl Call {
    /// The ioctl. Whatever the argument is, an answer is written to `arg`.
    pub fn ioctl<T: Copy>(&self, fd: RawFd, number: u32, arg: &mut T) -> Result<(), Errno> {
        let size = size_of::<T>();
        let mut bytes = bytes_of(arg);
        match self.shape {
            Shape::Reserved if self.has_reserved => bytes[4..8].copy_from_slice(&[1, 0, 0, 0]),
            Shape::ReadOnly if self.answers => {}
            Shape::Good | Shape::Reserved | Shape::ReadOnly => {
                return done(ioctl(fd, number, arg));
            }
            Shape::Unreadable => {
                let nowhere = std::ptr::null_mut();
                // SAFETY: nothing is mapped there.
                return done(unsafe { ioctl_raw(fd, number, nowhere) });
            }
            Shape::Longer => bytes.resize(size + 24, 0),
            Shape::Newer => bytes.resize(size + 24, 1),
            Shape::Short => bytes.truncate(size - 1),
        }
        let len = bytes.len() as u32;
        bytes[..4].copy_from_slice(&len.to_ne_bytes());
        let mut pages = Pages::new(1).expect("a page of memory");
        let at = pages.at_end(&bytes);
        if self.shape == Shape::ReadOnly {
            pages.read_only_from(0).expect("a page of ours");
        }
        // SAFETY: what the size field says is mapped, and ours; so are the entries of lists.
        done(unsafe { ioctl_raw(fd, number, at) })?;
        if bytes.len() >= size {
            // SAFETY: so many bytes are there, and any are a value of these plain structs.
            *arg = unsafe { at.cast::<T>().read_unaligned() };
        }
        Ok(())
    }
}

/// What a result means to the model that tells nothing.
pub fn done<T>(result: Result<T, nix::errno::Errno>) -> Result<(), Errno> {
    result.map(drop).map_err(errno)
}

/// An error as the model knows it.
pub fn errno(errno: nix::errno::Errno) -> Errno {
    Errno::from(errno as i32)
}

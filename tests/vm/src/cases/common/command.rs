// SPDX-License-Identifier: GPL-2.0

//! Commands as bytes: issued whole, cut off, with something behind them, or from memory that ends too early.

use super::pages::{bytes_of, Pages};
use crate::cases::common::luo::{
    ioctl_raw, Device, FdArg, FinishArg, NameArg, Session, SessionArg,
};
use crate::cases::common::luo::{
    CREATE_SESSION, FINISH, GET_NAME, PRESERVE_FD, RETRIEVE_FD, RETRIEVE_SESSION,
};
use anyhow::Result;
use nix::errno::Errno;
use std::ffi::c_void;
use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// A command that would succeed if it were issued as it is.
#[derive(Clone, Debug)]
pub struct Command {
    /// For messages.
    pub what: &'static str,
    /// On which descriptor.
    pub on: RawFd,
    /// The ioctl number.
    pub number: u32,
    /// The argument.
    pub arg: Vec<u8>,
    /// Whether the answer is a new descriptor.
    pub gives_fd: bool,
}

impl Command {
    /// CREATE_SESSION
    pub fn create(device: &Device, name: &str) -> Self {
        let arg = bytes_of(&SessionArg::new(name));
        Self::new("CREATE_SESSION", &device.0, CREATE_SESSION, arg, true)
    }

    /// RETRIEVE_SESSION
    pub fn retrieve_session(device: &Device, name: &str) -> Self {
        let arg = bytes_of(&SessionArg::new(name));
        Self::new("RETRIEVE_SESSION", &device.0, RETRIEVE_SESSION, arg, true)
    }

    /// PRESERVE_FD
    pub fn preserve(session: &Session, file: &File, token: u64) -> Self {
        let arg = bytes_of(&FdArg::new(file.as_raw_fd(), token));
        Self::new("PRESERVE_FD", &session.0, PRESERVE_FD, arg, false)
    }

    /// RETRIEVE_FD
    pub fn retrieve(session: &Session, token: u64) -> Self {
        let arg = bytes_of(&FdArg::new(-1, token));
        Self::new("RETRIEVE_FD", &session.0, RETRIEVE_FD, arg, true)
    }

    /// FINISH
    pub fn finish(session: &Session) -> Self {
        let size = size_of::<FinishArg>() as u32;
        let arg = bytes_of(&FinishArg { size, reserved: 0 });
        Self::new("FINISH", &session.0, FINISH, arg, false)
    }

    /// GET_NAME
    pub fn get_name(session: &Session) -> Self {
        let arg = bytes_of(&NameArg {
            size: size_of::<NameArg>() as u32,
            reserved: 0,
            name: [0; 64],
        });
        Self::new("GET_NAME", &session.0, GET_NAME, arg, false)
    }

    fn new(
        what: &'static str,
        on: &impl AsRawFd,
        number: u32,
        arg: Vec<u8>,
        gives_fd: bool,
    ) -> Self {
        let on = on.as_raw_fd();
        Self {
            what,
            on,
            number,
            arg,
            gives_fd,
        }
    }

    /// The same with another size field, and with more or fewer bytes if so wanted.
    pub fn resized(&self, size: u32, bytes: usize) -> Self {
        let mut other = self.clone();
        other.arg.resize(bytes.max(4), 0);
        other.arg[..4].copy_from_slice(&size.to_ne_bytes());
        other
    }

    /// The same with bytes behind it, and a size that says so.
    pub fn with_tail(&self, tail: &[u8]) -> Self {
        let size = self.arg.len() + tail.len();
        let mut other = self.resized(size as u32, size);
        other.arg[self.arg.len()..].copy_from_slice(tail);
        other
    }

    /// The same with another ioctl number.
    pub fn renumbered(&self, number: u32) -> Self {
        Self {
            number,
            ..self.clone()
        }
    }

    /// Issues it from memory that ends with the argument, or where the argument ends too early.
    pub fn issue(&self) -> Result<Result<Answer, Errno>> {
        let mut pages = Pages::new(self.arg.len().div_ceil(super::pages::PAGE))?;
        let at = pages.at_end(&self.arg);
        let result = self.issue_at(at);
        let end = pages.bytes().len();
        let bytes = pages.bytes()[end - self.arg.len()..].to_vec();
        Ok(result.map(|()| Answer {
            fd: self.fd_in(&bytes),
            bytes,
        }))
    }

    /// Issues it with this address for argument. An answered descriptor is left to the caller to pick up.
    pub fn issue_at(&self, at: *mut c_void) -> Result<(), Errno> {
        // SAFETY: the kernel writes no more than the size field says, and where that says more than there is, the
        // memory ends before anything that is not ours: `Pages` sees to it.
        unsafe { ioctl_raw(self.on, self.number, at) }.map(drop)
    }

    /// The descriptor in an answer.
    pub fn fd_in(&self, bytes: &[u8]) -> Option<OwnedFd> {
        let number = bytes.get(4..8).filter(|_| self.gives_fd)?;
        let number = RawFd::from_ne_bytes(number.try_into().ok()?);
        // SAFETY: called with what the kernel answered, once.
        Some(unsafe { OwnedFd::from_raw_fd(number) })
    }
}

/// What the kernel answered.
#[derive(Debug)]
pub struct Answer {
    /// The descriptor in it.
    pub fd: Option<OwnedFd>,
    /// The whole argument.
    pub bytes: Vec<u8>,
}

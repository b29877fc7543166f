// SPDX-License-Identifier: GPL-2.0

//! The user ABI of `/dev/liveupdate`, transcribed anew for the tests, with the bare errno for result.
//!
//! The client library is left aside here: a mistake in it would go unseen if what it sends were all that is tested, and
//! much of what these tests send is what it takes care never to send. It has cases of its own, in `client`.

use anyhow::{Context, Result};
use nix::errno::Errno;
use std::fs::{File, OpenOptions};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// Path of the device.
pub const DEVICE: &str = "/dev/liveupdate";
/// Room for a session's name, its final NUL included.
pub const NAME_LEN: usize = 64;

/// `LIVEUPDATE_IOCTL_CREATE_SESSION`
pub const CREATE_SESSION: u32 = number(0x00);
/// `LIVEUPDATE_IOCTL_RETRIEVE_SESSION`
pub const RETRIEVE_SESSION: u32 = number(0x01);
/// `LIVEUPDATE_SESSION_PRESERVE_FD`
pub const PRESERVE_FD: u32 = number(0x40);
/// `LIVEUPDATE_SESSION_RETRIEVE_FD`
pub const RETRIEVE_FD: u32 = number(0x41);
/// `LIVEUPDATE_SESSION_FINISH`
pub const FINISH: u32 = number(0x42);
/// `LIVEUPDATE_SESSION_GET_NAME`
pub const GET_NAME: u32 = number(0x43);

/// The ioctl number of a command: `_IO(0xBA, command)`.
pub const fn number(command: u8) -> u32 {
    0xBA << 8 | command as u32
}

/// `struct liveupdate_ioctl_create_session`, and `..._retrieve_session`, which is laid out alike.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct SessionArg {
    /// Size of the struct.
    pub size: u32,
    /// Answer: the session.
    pub fd: i32,
    /// Its name, ended by NUL.
    pub name: [u8; NAME_LEN],
}

impl SessionArg {
    /// A well-formed argument. The name must fit.
    pub fn new(name: &str) -> Self {
        Self {
            size: size_of::<Self>() as u32,
            fd: -1,
            name: super::name_bytes(name.as_bytes()),
        }
    }
}

/// `struct liveupdate_session_preserve_fd`, and `..._retrieve_fd`, which is laid out alike.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct FdArg {
    /// Size of the struct.
    pub size: u32,
    /// The file: asked on preserve, answered on retrieve.
    pub fd: i32,
    /// What it is known by.
    pub token: u64,
}

impl FdArg {
    /// A well-formed argument.
    pub fn new(fd: RawFd, token: u64) -> Self {
        Self {
            size: size_of::<Self>() as u32,
            fd,
            token,
        }
    }
}

/// `struct liveupdate_session_finish`
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct FinishArg {
    /// Size of the struct.
    pub size: u32,
    /// Zero.
    pub reserved: u32,
}

/// `struct liveupdate_session_get_name`
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct NameArg {
    /// Size of the struct.
    pub size: u32,
    /// Zero.
    pub reserved: u32,
    /// Answer: the name, ended by NUL.
    pub name: [u8; NAME_LEN],
}

/// Any ioctl with any argument, which may be nonsense.
///
/// # Safety
///
/// Whatever lies where `arg` points must be ours to be read and written by the kernel, as far as the command does so;
/// an address that is not mapped at all is fine.
pub unsafe fn ioctl_raw(fd: RawFd, number: u32, arg: *mut libc::c_void) -> Result<i32, Errno> {
    // SAFETY: the caller promises that the kernel may use what `arg` points to.
    Errno::result(unsafe { libc::ioctl(fd, number as _, arg) })
}

/// An ioctl whose argument is this value. Its `size` field may say less than the value holds, but not more.
pub fn ioctl<T: Copy>(fd: RawFd, number: u32, arg: &mut T) -> Result<i32, Errno> {
    // SAFETY: `arg` is exclusively borrowed, plain data, and of the size that its type says.
    unsafe { ioctl_raw(fd, number, std::ptr::from_mut(arg).cast()) }
}

/// The open device.
#[derive(Debug)]
pub struct Device(pub File);

impl Device {
    /// Opens it.
    pub fn open() -> Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(DEVICE)
            .context(DEVICE)?;
        Ok(Self(file))
    }

    /// CREATE_SESSION.
    pub fn create_session(&self, name: &str) -> Result<Session, Errno> {
        self.session(CREATE_SESSION, name)
    }

    /// RETRIEVE_SESSION.
    pub fn retrieve_session(&self, name: &str) -> Result<Session, Errno> {
        self.session(RETRIEVE_SESSION, name)
    }

    fn session(&self, number: u32, name: &str) -> Result<Session, Errno> {
        super::session_by_bytes(self, number, &super::name_bytes(name.as_bytes()))
    }
}

/// A session, outgoing or incoming. Dropping it closes it.
#[derive(Debug)]
pub struct Session(pub OwnedFd);

impl Session {
    /// PRESERVE_FD.
    pub fn preserve(&self, file: &impl AsRawFd, token: u64) -> Result<(), Errno> {
        super::preserve_number(self, file.as_raw_fd(), token)
    }

    /// RETRIEVE_FD.
    pub fn retrieve(&self, token: u64) -> Result<File, Errno> {
        let mut arg = FdArg::new(-1, token);
        ioctl(self.0.as_raw_fd(), RETRIEVE_FD, &mut arg)?;
        // SAFETY: the kernel just made this descriptor for us.
        Ok(File::from(unsafe { OwnedFd::from_raw_fd(arg.fd) }))
    }

    /// FINISH.
    pub fn finish(&self) -> Result<(), Errno> {
        let mut arg = FinishArg {
            size: size_of::<FinishArg>() as u32,
            reserved: 0,
        };
        ioctl(self.0.as_raw_fd(), FINISH, &mut arg).map(drop)
    }

    /// GET_NAME. What is not UTF-8 in it is replaced.
    pub fn name(&self) -> Result<String, Errno> {
        Ok(String::from_utf8_lossy(&self.raw_name()?).into_owned())
    }

    /// GET_NAME, its bytes.
    pub fn raw_name(&self) -> Result<Vec<u8>, Errno> {
        let size = size_of::<NameArg>() as u32;
        let mut arg = NameArg {
            size,
            reserved: 0,
            name: [0xff; NAME_LEN],
        };
        ioctl(self.0.as_raw_fd(), GET_NAME, &mut arg)?;
        let len = arg.name.iter().position(|&b| b == 0).unwrap_or(NAME_LEN);
        Ok(arg.name[..len].to_vec())
    }
}

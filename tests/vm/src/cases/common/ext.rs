// SPDX-License-Identifier: GPL-2.0

//! The extensions of the user ABI, transcribed anew like the rest of it in [`super::luo`].

use super::luo::{ioctl, number, Device, FinishArg, Session};
use nix::errno::Errno;
use std::os::fd::AsRawFd;

/// `LIVEUPDATE_IOCTL_GET_INFO`
pub const GET_INFO: u32 = number(0xA0);
/// `LIVEUPDATE_IOCTL_LIST_SESSIONS`
pub const LIST_SESSIONS: u32 = number(0xA1);
/// `LIVEUPDATE_SESSION_UNPRESERVE_FD`
pub const UNPRESERVE_FD: u32 = number(0xC0);
/// `LIVEUPDATE_SESSION_PREPARE`
pub const PREPARE: u32 = number(0xC1);
/// `LIVEUPDATE_SESSION_CANCEL`
pub const CANCEL: u32 = number(0xC2);
/// `LIVEUPDATE_SESSION_GET_STATE`
pub const GET_STATE: u32 = number(0xC3);
/// `LIVEUPDATE_SESSION_LIST_FDS`
pub const LIST_FDS: u32 = number(0xC4);
/// `LIVEUPDATE_SESSION_SET_FLAGS`
pub const SET_FLAGS: u32 = number(0xC5);

/// `LIVEUPDATE_STATE_NORMAL`
pub const NORMAL: u32 = 1;
/// `LIVEUPDATE_STATE_PREPARED`
pub const PREPARED: u32 = 2;
/// `LIVEUPDATE_STATE_UPDATED`
pub const UPDATED: u32 = 4;
/// `LIVEUPDATE_SESSION_F_ORDERED`
pub const ORDERED: u32 = 1;

/// `struct liveupdate_ioctl_get_info`
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct InfoArg {
    /// Size of the struct.
    pub size: u32,
    /// Answer: none are defined.
    pub flags: u32,
    /// Answer: none are defined.
    pub features: u64,
    /// Answer: how many live updates there have been.
    pub liveupdate_num: u64,
    /// Answer: name and version, ended by NUL.
    pub implementation: [u8; 32],
    /// Answer: compatible string of memfds.
    pub memfd_format: [u8; 48],
}

/// `struct liveupdate_ioctl_list_sessions`, and `liveupdate_session_list_fds`, which is laid out alike.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ListArg {
    /// Size of the struct.
    pub size: u32,
    /// Zero.
    pub reserved: u32,
    /// How many to leave out.
    pub start: u64,
    /// Room; answer: how many were written.
    pub count: u64,
    /// Address of the array.
    pub entries: u64,
    /// Answer: how many there are.
    pub total: u64,
}

/// `struct liveupdate_session_entry`
#[repr(C)]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SessionEntry {
    /// Its name, ended by NUL.
    pub name: [u8; 64],
    /// Its state.
    pub state: u32,
    /// Its flags.
    pub flags: u32,
    /// Number of files.
    pub nr_files: u64,
}

/// `struct liveupdate_fd_entry`
#[repr(C)]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct FdEntry {
    /// What it is known by.
    pub token: u64,
    /// Compatible string of its handler.
    pub compatible: [u8; 48],
    /// Its state.
    pub state: u32,
    /// Zero.
    pub reserved: u32,
}

/// `struct liveupdate_session_unpreserve_fd`, and `..._prepare`, which is laid out alike.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct TokenArg {
    /// Size of the struct.
    pub size: u32,
    /// Zero.
    pub reserved: u32,
    /// The file; on PREPARE an answer.
    pub token: u64,
}

/// `struct liveupdate_session_get_state`
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct StateArg {
    /// Size of the struct.
    pub size: u32,
    /// Answer: the state.
    pub state: u32,
    /// Answer: number of files.
    pub nr_files: u64,
    /// Answer: how many of them were retrieved.
    pub nr_retrieved: u64,
}

/// `struct liveupdate_session_set_flags`
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct FlagsArg {
    /// Size of the struct.
    pub size: u32,
    /// The flags.
    pub flags: u32,
}

impl InfoArg {
    /// A well-formed argument, of bytes that no answer has.
    pub fn new() -> Self {
        Self {
            size: size_of::<Self>() as u32,
            flags: !0,
            features: !0,
            liveupdate_num: !0,
            implementation: [!0; 32],
            memfd_format: [!0; 48],
        }
    }
}

impl ListArg {
    /// A well-formed argument for this array.
    pub fn new<T>(start: u64, entries: &mut [T]) -> Self {
        Self {
            size: size_of::<Self>() as u32,
            reserved: 0,
            start,
            count: entries.len() as u64,
            entries: entries.as_mut_ptr() as u64,
            total: !0,
        }
    }
}

impl TokenArg {
    /// A well-formed argument.
    pub fn new(token: u64) -> Self {
        Self {
            size: size_of::<Self>() as u32,
            reserved: 0,
            token,
        }
    }
}

impl FlagsArg {
    /// A well-formed argument.
    pub fn new(flags: u32) -> Self {
        Self {
            size: size_of::<Self>() as u32,
            flags,
        }
    }
}

impl SessionEntry {
    /// An entry that nothing was written to.
    pub const NONE: Self = Self {
        name: [!0; 64],
        state: !0,
        flags: !0,
        nr_files: !0,
    };

    /// The name as text.
    pub fn name(&self) -> String {
        text(&self.name)
    }
}

impl FdEntry {
    /// An entry that nothing was written to.
    pub const NONE: Self = Self {
        token: !0,
        compatible: [!0; 48],
        state: !0,
        reserved: !0,
    };
}

/// A text up to its NUL.
pub fn text(bytes: &[u8]) -> String {
    let len = bytes.iter().position(|&b| b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..len]).into_owned()
}

/// What a listing command answered: the entries written, and how many there are.
pub type Listed<T> = Result<(Vec<T>, u64), Errno>;

fn list<T: Copy>(fd: i32, command: u32, start: u64, mut entries: Vec<T>) -> Listed<T> {
    let mut arg = ListArg::new(start, &mut entries);
    ioctl(fd, command, &mut arg)?;
    assert!(arg.count <= entries.len() as u64, "more than there is room");
    entries.truncate(arg.count as usize);
    Ok((entries, arg.total))
}

impl Device {
    /// GET_INFO.
    pub fn info(&self) -> Result<InfoArg, Errno> {
        let mut arg = InfoArg::new();
        ioctl(self.0.as_raw_fd(), GET_INFO, &mut arg)?;
        Ok(arg)
    }

    /// LIST_SESSIONS, with room for so many.
    pub fn list_sessions(&self, start: u64, room: usize) -> Listed<SessionEntry> {
        let entries = vec![SessionEntry::NONE; room];
        list(self.0.as_raw_fd(), LIST_SESSIONS, start, entries)
    }
}

impl Session {
    /// UNPRESERVE_FD.
    pub fn unpreserve(&self, token: u64) -> Result<(), Errno> {
        let mut arg = TokenArg::new(token);
        ioctl(self.0.as_raw_fd(), UNPRESERVE_FD, &mut arg).map(drop)
    }

    /// PREPARE; an error comes with the token that it is about.
    pub fn prepare(&self) -> Result<(), (Errno, u64)> {
        let mut arg = TokenArg::new(!0);
        match ioctl(self.0.as_raw_fd(), PREPARE, &mut arg) {
            Ok(_) => Ok(()),
            Err(errno) => Err((errno, arg.token)),
        }
    }

    /// CANCEL.
    pub fn cancel(&self) -> Result<(), Errno> {
        let size = size_of::<FinishArg>() as u32;
        let mut arg = FinishArg { size, reserved: 0 };
        ioctl(self.0.as_raw_fd(), CANCEL, &mut arg).map(drop)
    }

    /// GET_STATE: state, number of files, number of those that were retrieved.
    pub fn state(&self) -> Result<(u32, u64, u64), Errno> {
        let mut arg = StateArg {
            size: size_of::<StateArg>() as u32,
            state: !0,
            nr_files: !0,
            nr_retrieved: !0,
        };
        ioctl(self.0.as_raw_fd(), GET_STATE, &mut arg)?;
        Ok((arg.state, arg.nr_files, arg.nr_retrieved))
    }

    /// LIST_FDS, with room for so many.
    pub fn list_fds(&self, start: u64, room: usize) -> Listed<FdEntry> {
        let entries = vec![FdEntry::NONE; room];
        list(self.0.as_raw_fd(), LIST_FDS, start, entries)
    }

    /// The tokens of all files, in the order in which they are listed.
    pub fn tokens(&self) -> Result<Vec<u64>, Errno> {
        let (_, total) = self.list_fds(0, 0)?;
        let (entries, _) = self.list_fds(0, total as usize)?;
        Ok(entries.iter().map(|entry| entry.token).collect())
    }

    /// SET_FLAGS.
    pub fn set_flags(&self, flags: u32) -> Result<(), Errno> {
        let mut arg = FlagsArg::new(flags);
        ioctl(self.0.as_raw_fd(), SET_FLAGS, &mut arg).map(drop)
    }
}

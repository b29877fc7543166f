// SPDX-License-Identifier: GPL-2.0

//! What a command can be answered.

use serde::{Deserialize, Serialize};

/// What a step is answered: what it told, or why it failed.
pub type Answer = Result<Told, Errno>;

/// The errors that have a meaning here.
#[allow(missing_docs)]
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub enum Errno {
    EPERM,
    ENOENT,
    EIO,
    E2BIG,
    EBADF,
    EAGAIN,
    EFAULT,
    EBUSY,
    EEXIST,
    EINVAL,
    ENOTTY,
    EOPNOTSUPP,
    /// Any other: never the right one.
    Other(i32),
}

impl From<i32> for Errno {
    fn from(number: i32) -> Self {
        match number {
            1 => Self::EPERM,
            2 => Self::ENOENT,
            5 => Self::EIO,
            7 => Self::E2BIG,
            9 => Self::EBADF,
            11 => Self::EAGAIN,
            14 => Self::EFAULT,
            16 => Self::EBUSY,
            17 => Self::EEXIST,
            22 => Self::EINVAL,
            25 => Self::ENOTTY,
            95 => Self::EOPNOTSUPP,
            other => Self::Other(other),
        }
    }
}

/// What a successful command tells.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Told {
    /// Nothing but that it was done.
    Nothing,
    /// GET_INFO: how many live updates there have been.
    LiveUpdates(u64),
    /// LIST_SESSIONS.
    Sessions {
        /// Those that there was room for.
        entries: Vec<SessionEntry>,
        /// How many there are.
        total: u64,
    },
    /// LIST_FDS.
    Files {
        /// Those that there was room for.
        entries: Vec<FileEntry>,
        /// How many there are.
        total: u64,
    },
    /// GET_STATE.
    State {
        /// What the session has come to.
        state: SessionState,
        /// Number of its files.
        files: u64,
        /// How many of them were retrieved.
        retrieved: u64,
    },
    /// GET_NAME.
    Name(Vec<u8>),
    /// What /proc/PID/fdinfo shows of a session.
    FdInfo {
        /// What the session has come to.
        state: SessionState,
        /// Whether it is ordered.
        ordered: bool,
        /// Number of its files.
        files: u64,
    },
    /// What is in a memfd.
    Contents {
        /// Size in bytes.
        size: u64,
        /// The first eight bytes of each page that has so many.
        words: Vec<u64>,
    },
    /// The number of a file of the recorder; `None` if its position is behind it.
    Id(Option<u32>),
}

impl Told {
    /// Whether it tells of a kexec that is under way.
    pub fn is_of_kexec(&self) -> bool {
        let frozen = |state: SessionState| state == SessionState::Frozen;
        match self {
            Self::Sessions { entries, .. } => entries.iter().any(|entry| frozen(entry.state)),
            Self::Files { entries, .. } => entries.iter().any(|entry| frozen(entry.state)),
            Self::State { state, .. } | Self::FdInfo { state, .. } => frozen(*state),
            _ => false,
        }
    }
}

/// `enum liveupdate_state`
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum SessionState {
    /// `LIVEUPDATE_STATE_NORMAL`
    Normal,
    /// `LIVEUPDATE_STATE_PREPARED`
    Prepared,
    /// `LIVEUPDATE_STATE_FROZEN`: never the right one, but while a kexec is under way.
    Frozen,
    /// `LIVEUPDATE_STATE_UPDATED`
    Updated,
    /// Any other: never the right one.
    Other(u32),
}

/// `struct liveupdate_session_entry`
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct SessionEntry {
    /// Its name, without the zero.
    pub name: Vec<u8>,
    /// What it has come to.
    pub state: SessionState,
    /// Whether it is ordered, the one flag that there is.
    pub ordered: bool,
    /// Number of its files.
    pub files: u64,
}

/// `struct liveupdate_fd_entry`
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct FileEntry {
    /// What the file is called.
    pub token: u64,
    /// Compatible string of its handler.
    pub compatible: String,
    /// What it has come to.
    pub state: SessionState,
}

//! What outgoing and incoming sessions have in common.

use std::fmt;
use std::os::fd::BorrowedFd;

use crate::list::{self, FileInfo};
use crate::raw::{self, SessionGetName, SessionGetState, SessionListFds, SessionSetFlags};
use crate::{Errno, Error, Result, SessionName};

/// Where a session, or a file in it, stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum State {
    /// Files can be added and removed.
    Normal,
    /// Checked and ready for the kexec; it cannot change until that is cancelled.
    Prepared,
    /// In the midst of the kexec.
    Frozen,
    /// Handed on by the previous kernel.
    Updated,
    /// A state that this crate does not know.
    Other(u32),
}

impl From<u32> for State {
    fn from(raw: u32) -> Self {
        match raw {
            1 => Self::Normal,
            2 => Self::Prepared,
            3 => Self::Frozen,
            4 => Self::Updated,
            other => Self::Other(other),
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Normal => f.pad("normal"),
            Self::Prepared => f.pad("prepared"),
            Self::Frozen => f.pad("frozen"),
            Self::Updated => f.pad("updated"),
            Self::Other(raw) => f.pad(&format!("state {raw}")),
        }
    }
}

bitflags::bitflags! {
    /// Flags of a session.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct SessionFlags: u32 {
        /// Files can be retrieved only in the order in which they were preserved, and unpreserved
        /// only in the reverse order.
        const ORDERED = raw::SESSION_F_ORDERED;
    }
}

/// A session's state and how far it has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SessionState {
    /// The state.
    pub state: State,
    /// Number of files it holds.
    pub files: u64,
    /// How many of them were retrieved.
    pub retrieved: u64,
}

pub(crate) fn name(fd: BorrowedFd<'_>) -> Result<SessionName> {
    let mut command = SessionGetName::default();
    raw::call(fd, &mut command).map_err(|errno| match errno {
        // Only a device answers so: a session takes the command, whichever kind it is.
        Errno::INVAL => Error::NotASession,
        errno => Error::other("GET_NAME", errno),
    })?;
    Ok(SessionName::from_raw(&command.name))
}

pub(crate) fn state(fd: BorrowedFd<'_>) -> Result<SessionState> {
    let mut command = SessionGetState::default();
    raw::call(fd, &mut command).map_err(|errno| extension_error(fd, "GET_STATE", errno))?;
    Ok(SessionState {
        state: State::from(command.state),
        files: command.nr_files,
        retrieved: command.nr_retrieved,
    })
}

pub(crate) fn files(fd: BorrowedFd<'_>) -> Result<Vec<FileInfo>> {
    let entries =
        list::all::<SessionListFds>(fd).map_err(|errno| extension_error(fd, "LIST_FDS", errno))?;
    Ok(entries.iter().map(FileInfo::from).collect())
}

pub(crate) fn set_flags(fd: BorrowedFd<'_>, flags: SessionFlags) -> Result<()> {
    let mut command = SessionSetFlags {
        flags: flags.bits(),
        ..SessionSetFlags::default()
    };
    raw::call(fd, &mut command).map_err(|errno| match errno {
        Errno::OPNOTSUPP => Error::UnknownFlag,
        errno => extension_error(fd, "SET_FLAGS", errno),
    })
}

/// What it means that an extension of the session commands failed with an errno that has no
/// meaning of its own for that extension.
///
/// A session without extensions says EINVAL to all of them, and one with extensions says it to one
/// that is for the other kind of session. GET_STATE, which is for both kinds, tells them apart, and
/// GET_NAME, which every session has, tells sessions from other files.
pub(crate) fn extension_error(fd: BorrowedFd<'_>, command: &'static str, errno: Errno) -> Error {
    if !matches!(errno, Errno::INVAL | Errno::NOTTY) {
        return Error::other(command, errno);
    }
    if raw::call(fd, &mut SessionGetName::default()).is_err() {
        return Error::NotASession;
    }
    let has_extensions = raw::call(fd, &mut SessionGetState::default()).is_ok();
    if errno == Errno::INVAL && has_extensions {
        Error::WrongKind
    } else {
        Error::Unsupported(command)
    }
}

/// The queries that a session offers, of whatever kind.
macro_rules! queries {
    ($session:ident) => {
        impl $session {
            /// The session's full name.
            ///
            /// # Errors
            ///
            /// [`Error::NotASession`](crate::Error::NotASession) if it was made from a descriptor of something else.
            pub fn name(&self) -> Result<SessionName> {
                session::name(self.as_fd())
            }

            /// Where the session stands. (An extension.)
            ///
            /// # Errors
            ///
            /// [`Error::Unsupported`](crate::Error::Unsupported) if the orchestrator does not have the command.
            pub fn state(&self) -> Result<SessionState> {
                session::state(self.as_fd())
            }

            /// Lists the session's files, in the order of preservation. (An extension.)
            ///
            /// # Errors
            ///
            /// [`Error::Unsupported`](crate::Error::Unsupported) if the orchestrator does not have the command.
            pub fn files(&self) -> Result<Vec<FileInfo>> {
                session::files(self.as_fd())
            }
        }
    };
}

/// The conversions, the queries and the rest that both kinds of session offer.
macro_rules! common {
    ($session:ident) => {
        crate::session::queries!($session);

        impl $session {
            /// Sets the session's flags: those given are on, all others off. (An extension.)
            ///
            /// # Errors
            ///
            /// [`Error::UnknownFlag`] if there is one among them that the orchestrator does not
            /// know, [`Error::Unsupported`] if it does not have the command.
            pub fn set_flags(&self, flags: SessionFlags) -> Result<()> {
                session::set_flags(self.as_fd(), flags)
            }
        }

        impl AsFd for $session {
            fn as_fd(&self) -> BorrowedFd<'_> {
                self.fd.as_fd()
            }
        }

        impl AsRawFd for $session {
            fn as_raw_fd(&self) -> RawFd {
                self.fd.as_raw_fd()
            }
        }

        /// Takes a descriptor that is known to be a session of this kind, such as one received
        /// from another process. Nothing is checked: on anything else, commands fail with
        /// [`Error::NotASession`] or [`Error::WrongKind`].
        impl From<OwnedFd> for $session {
            fn from(fd: OwnedFd) -> Self {
                Self { fd }
            }
        }

        /// Gives the descriptor away, and with it the session.
        impl From<$session> for OwnedFd {
            fn from(session: $session) -> Self {
                session.fd
            }
        }
    };
}

pub(crate) use {common, queries};

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn states_have_their_numbers() {
        let states: Vec<State> = (0..6).map(State::from).collect();
        assert_eq!(
            states,
            [
                State::Other(0),
                State::Normal,
                State::Prepared,
                State::Frozen,
                State::Updated,
                State::Other(5)
            ]
        );
        assert_eq!(format!("{:>8}|", State::Normal), "  normal|");
        assert_eq!(State::Other(9).to_string(), "state 9");
    }

    #[test]
    fn other_files_are_told_from_sessions() {
        let file = std::fs::File::open("/dev/null").unwrap();
        assert_eq!(name(file.as_fd()), Err(Error::NotASession));
        assert_eq!(state(file.as_fd()), Err(Error::NotASession));
        assert_eq!(files(file.as_fd()), Err(Error::NotASession));
        assert_eq!(
            set_flags(file.as_fd(), SessionFlags::ORDERED),
            Err(Error::NotASession)
        );
    }
}

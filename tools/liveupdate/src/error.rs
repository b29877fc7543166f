//! What can go wrong, in the words of who called.

use std::io;

use crate::{Errno, NameError, SessionName};

/// Shorthand for results of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a command failed.
///
/// The kernel says it with an errno whose meaning depends on the command; here each meaning is a
/// variant of its own. [`Error::errno`] gives the errno back, and `io::Error::from` keeps it too.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no device: no orchestrator is active in this kernel.
    #[error("no live update device: is the orchestrator loaded?")]
    NoDevice(#[source] Errno),
    /// The device is open already; it serves one at a time.
    #[error("the live update device is in use by another process")]
    DeviceBusy,
    /// What the previous kernel handed on cannot be read, so nothing can be retrieved.
    #[error("what the previous kernel handed on cannot be read; see the kernel's log")]
    HandoverUnreadable,
    /// The caller may not open the device.
    #[error("no permission to open the live update device")]
    Permission(#[source] Errno),

    /// The name is not one that a session can have. The kernel was not asked.
    #[error(transparent)]
    InvalidName(#[from] NameError),
    /// There is a session of this name.
    #[error("the session name '{0}' is taken")]
    NameTaken(SessionName),
    /// The previous kernel handed on no session of this name.
    #[error("no session '{0}' was handed on")]
    NoSuchSession(SessionName),
    /// The session was retrieved before.
    #[error("the session '{0}' was already retrieved")]
    AlreadyRetrieved(SessionName),
    /// The command is not for this kind of session: one for outgoing sessions was sent to an
    /// incoming one, or the reverse. Of PRESERVE_FD, where the orchestrator has no extensions, it
    /// may also be that the file's handler found it invalid.
    #[error("the command is not for this kind of session")]
    WrongKind,
    /// The descriptor is not that of a session.
    #[error("the file descriptor is not a session")]
    NotASession,

    /// The session has a file under this token.
    #[error("token {0:#x} is in use in this session")]
    TokenUsed(u64),
    /// The session has no file under this token.
    #[error("the session has no token {0:#x}")]
    NoSuchToken(u64),
    /// The descriptor is not open.
    #[error("the file descriptor to preserve is not open")]
    BadDescriptor,
    /// No handler takes files of this type.
    #[error("files of this type cannot be preserved")]
    UnsupportedFile,
    /// A handler takes this type, but not a property of this file, such as an unknown seal.
    #[error("the file has a property that cannot be preserved")]
    UnsupportedProperty,
    /// The file is larger than its handler can describe.
    #[error("the file is too large to be preserved")]
    FileTooLarge,
    /// The file is preserved already, in this session or another.
    #[error("the file is already preserved")]
    AlreadyPreserved,
    /// The session is prepared; [`cancel`](crate::OutgoingSession::cancel) comes first.
    #[error("the session is prepared: cancel that before changing it")]
    Prepared,
    /// PREPARE found a file that could not be handed on. Nothing has changed.
    #[error("the file with token {token:#x} cannot be handed on")]
    PrepareRefused {
        /// The file.
        token: u64,
        /// What its handler said.
        #[source]
        errno: Errno,
    },
    /// The session is [ordered](crate::SessionFlags::ORDERED) and another token's turn has come.
    #[error("it is not the turn of token {0:#x} in this ordered session")]
    OutOfOrder(u64),
    /// No module that is loaded can rebuild the file: once there is one, the same command works.
    #[error("no handler is there for the file with token {0:#x}")]
    NoHandler(u64),
    /// The file could not be rebuilt; other files are unaffected. Where its memory could not be had,
    /// or an errno of the handler's own says so, it is worth another try, and does no harm anyhow: one
    /// that is lost gives the same answer again.
    #[error("the file with token {token:#x} could not be rebuilt")]
    RetrieveFailed {
        /// The file.
        token: u64,
        /// What its handler said.
        #[source]
        errno: Errno,
    },
    /// A file of the session is not yet ready to be let go; nothing was.
    #[error("a file of the session is not ready to be finished")]
    FinishBusy,

    /// No room for another file descriptor; once there is, the same command works.
    #[error("too many open files")]
    TooManyFiles(#[source] Errno),
    /// Out of memory.
    #[error("out of memory")]
    OutOfMemory,
    /// A flag that this orchestrator does not know.
    #[error("the orchestrator does not know one of the flags")]
    UnknownFlag,
    /// This orchestrator does not have the command, an extension. It is absent, not broken.
    #[error("this orchestrator has no command {0}")]
    Unsupported(&'static str),
    /// Anything else.
    #[error("{command} failed")]
    Os {
        /// The command.
        command: &'static str,
        /// The kernel's answer.
        #[source]
        errno: Errno,
    },
}

impl Error {
    /// The kernel's errno. For what this crate refused by itself it is the errno with which the
    /// kernel would have.
    #[must_use]
    pub fn errno(&self) -> Errno {
        match self {
            Self::NoDevice(errno)
            | Self::Permission(errno)
            | Self::TooManyFiles(errno)
            | Self::PrepareRefused { errno, .. }
            | Self::RetrieveFailed { errno, .. }
            | Self::Os { errno, .. } => *errno,
            Self::DeviceBusy
            | Self::AlreadyPreserved
            | Self::Prepared
            | Self::OutOfOrder(_)
            | Self::FinishBusy => Errno::BUSY,
            Self::HandoverUnreadable => Errno::IO,
            Self::InvalidName(_) | Self::AlreadyRetrieved(_) | Self::WrongKind => Errno::INVAL,
            Self::NameTaken(_) | Self::TokenUsed(_) => Errno::EXIST,
            Self::NoSuchSession(_)
            | Self::NoSuchToken(_)
            | Self::NoHandler(_)
            | Self::UnsupportedFile => Errno::NOENT,
            Self::NotASession | Self::Unsupported(_) => Errno::NOTTY,
            Self::BadDescriptor => Errno::BADF,
            Self::UnsupportedProperty | Self::UnknownFlag => Errno::OPNOTSUPP,
            Self::FileTooLarge => Errno::FBIG,
            Self::OutOfMemory => Errno::NOMEM,
        }
    }

    /// True if the command is an extension that this orchestrator does not have.
    #[must_use]
    pub fn is_unsupported(&self) -> bool {
        matches!(self, Self::Unsupported(_))
    }

    /// What an errno means for any command.
    pub(crate) fn other(command: &'static str, errno: Errno) -> Self {
        match errno {
            Errno::MFILE | Errno::NFILE => Self::TooManyFiles(errno),
            Errno::NOMEM => Self::OutOfMemory,
            Errno::NOTTY => Self::NotASession,
            errno => Self::Os { command, errno },
        }
    }
}

/// An `io::Error` with the same errno, for callers that speak `io::Result`.
impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        Self::from_raw_os_error(error.errno().raw_os_error())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errno_survives() {
        let taken = Error::NameTaken(SessionName::new("vm").unwrap());
        assert_eq!(taken.errno(), Errno::EXIST);
        assert_eq!(taken.to_string(), "the session name 'vm' is taken");
        assert_eq!(io::Error::from(taken).kind(), io::ErrorKind::AlreadyExists);
        let odd = Error::other("FINISH", Errno::XDEV);
        assert_eq!(odd.errno(), Errno::XDEV);
        assert_eq!(odd.to_string(), "FINISH failed");
        assert_eq!(
            std::error::Error::source(&odd).unwrap().to_string(),
            Errno::XDEV.to_string()
        );
    }

    #[test]
    fn what_every_command_can_say() {
        assert!(matches!(
            Error::other("X", Errno::MFILE),
            Error::TooManyFiles(Errno::MFILE)
        ));
        assert_eq!(Error::other("X", Errno::NOMEM), Error::OutOfMemory);
        assert_eq!(Error::other("X", Errno::NOTTY), Error::NotASession);
        assert!(Error::Unsupported("LIST_SESSIONS").is_unsupported());
    }
}

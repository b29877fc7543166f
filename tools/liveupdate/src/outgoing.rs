//! Sessions on their way to the next kernel.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use crate::list::FileInfo;
use crate::raw::{self, SessionCancel, SessionPrepare, SessionPreserveFd, SessionUnpreserveFd};
use crate::session::{self, common, extension_error};
use crate::{Errno, Error, Result, SessionFlags, SessionName, SessionState, State};

/// A session that is to be handed on to the next kernel.
///
/// It lasts as long as its descriptor is open somewhere: closing the last one (by dropping this, or
/// by the process ending) lets go of every file in it, which then is as it was before. To hand the
/// session on, keep it open until `reboot(LINUX_REBOOT_CMD_KEXEC)`.
#[derive(Debug)]
pub struct OutgoingSession {
    fd: OwnedFd,
}

common!(OutgoingSession);

impl OutgoingSession {
    /// Preserves a file, to be retrieved in the next kernel by `token`.
    ///
    /// The file stays in use meanwhile; what is written to it arrives too. The caller may close its
    /// own descriptor. A preserved memfd cannot change its size.
    ///
    /// # Errors
    ///
    /// [`Error::TokenUsed`], [`Error::AlreadyPreserved`], [`Error::UnsupportedFile`],
    /// [`Error::UnsupportedProperty`], [`Error::FileTooLarge`], or [`Error::Prepared`]. In every
    /// case the file is as before.
    pub fn preserve(&self, file: impl AsFd, token: u64) -> Result<()> {
        let mut command = SessionPreserveFd {
            fd: file.as_fd().as_raw_fd(),
            token,
            ..SessionPreserveFd::default()
        };
        raw::call(self, &mut command).map_err(|errno| match errno {
            Errno::BUSY if self.is_prepared() => Error::Prepared,
            // Not about the session, but the handler's word about the file.
            Errno::INVAL if self.is_outgoing() => Error::other("PRESERVE_FD", errno),
            errno => preserve_error(token, errno),
        })
    }

    /// Takes a file out of the session again. (An extension.)
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchToken`], [`Error::Prepared`], [`Error::OutOfOrder`], or
    /// [`Error::Unsupported`] if the orchestrator does not have the command.
    pub fn unpreserve(&self, token: u64) -> Result<()> {
        let mut command = SessionUnpreserveFd {
            token,
            ..SessionUnpreserveFd::default()
        };
        raw::call(self, &mut command).map_err(|errno| match errno {
            Errno::NOENT => Error::NoSuchToken(token),
            Errno::BUSY if self.is_prepared() => Error::Prepared,
            Errno::BUSY => Error::OutOfOrder(token),
            errno => extension_error(self.as_fd(), "UNPRESERVE_FD", errno),
        })
    }

    /// Checks that every file could be handed on now, while the workload is still running, and
    /// keeps the session from changing until [`cancel`](Self::cancel). (An extension.)
    ///
    /// A kexec does the same checks itself; preparing first means not to learn of a problem only
    /// when the workload has been paused.
    ///
    /// # Errors
    ///
    /// [`Error::PrepareRefused`] names the file that stands in the way; nothing has changed then.
    /// [`Error::Unsupported`] if the orchestrator does not have the command.
    pub fn prepare(&self) -> Result<()> {
        // The answer comes with a failure too, but only if a file was to blame: so start from a
        // token that the session does not have.
        let unused = self.unused_token();
        let mut command = SessionPrepare {
            failed_token: unused,
            ..SessionPrepare::default()
        };
        raw::call(self, &mut command).map_err(|errno| match command.failed_token {
            token if token != unused => Error::PrepareRefused { token, errno },
            _ => extension_error(self.as_fd(), "PREPARE", errno),
        })
    }

    /// Undoes [`prepare`](Self::prepare): files can be preserved and unpreserved again. (An
    /// extension.)
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] if the orchestrator does not have the command.
    pub fn cancel(&self) -> Result<()> {
        raw::call(self, &mut SessionCancel::default())
            .map_err(|errno| extension_error(self.as_fd(), "CANCEL", errno))
    }

    fn is_prepared(&self) -> bool {
        self.state()
            .is_ok_and(|state| state.state == State::Prepared)
    }

    /// Whether it is said to be of this kind: an orchestrator without extensions does not tell.
    fn is_outgoing(&self) -> bool {
        self.state()
            .is_ok_and(|state| state.state != State::Updated)
    }

    fn unused_token(&self) -> u64 {
        let used = self.files().unwrap_or_default();
        (0..=u64::MAX)
            .rev()
            .find(|&token| used.iter().all(|file| file.token != token))
            .unwrap_or(u64::MAX)
    }
}

fn preserve_error(token: u64, errno: Errno) -> Error {
    match errno {
        Errno::EXIST => Error::TokenUsed(token),
        Errno::BUSY => Error::AlreadyPreserved,
        Errno::NOENT => Error::UnsupportedFile,
        Errno::OPNOTSUPP => Error::UnsupportedProperty,
        Errno::FBIG => Error::FileTooLarge,
        Errno::BADF => Error::BadDescriptor,
        Errno::INVAL => Error::WrongKind,
        errno => Error::other("PRESERVE_FD", errno),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn preserve_errors_in_the_callers_words() {
        let cases = [
            (Errno::EXIST, Error::TokenUsed(7)),
            (Errno::BUSY, Error::AlreadyPreserved),
            (Errno::NOENT, Error::UnsupportedFile),
            (Errno::OPNOTSUPP, Error::UnsupportedProperty),
            (Errno::FBIG, Error::FileTooLarge),
            (Errno::BADF, Error::BadDescriptor),
            (Errno::NOMEM, Error::OutOfMemory),
        ];
        for (errno, error) in cases {
            assert_eq!(preserve_error(7, errno), error);
            assert_eq!(error.errno(), errno);
        }
    }

    #[test]
    fn ownership_of_the_descriptor_goes_in_and_out() {
        let file = std::fs::File::open("/dev/null").unwrap();
        let number = file.as_raw_fd();
        let session = OutgoingSession::from(OwnedFd::from(file));
        assert_eq!(session.as_raw_fd(), number);
        let back = OwnedFd::from(session);
        assert_eq!(back.as_raw_fd(), number);
    }

    #[test]
    fn commands_to_something_else_say_so() {
        let null = || OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        let session = OutgoingSession::from(null());
        assert_eq!(session.preserve(null(), 1), Err(Error::NotASession));
        assert_eq!(session.unpreserve(1), Err(Error::NotASession));
        assert_eq!(session.prepare(), Err(Error::NotASession));
        assert_eq!(session.cancel(), Err(Error::NotASession));
    }
}

//! Sessions that the previous kernel handed on.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use crate::device::owned;
use crate::list::FileInfo;
use crate::raw::{self, SessionFinish, SessionRetrieveFd};
use crate::session::{self, common};
use crate::{Errno, Error, Result, SessionFlags, SessionName, SessionState};

/// A session that the previous kernel handed on, retrieved by its name.
///
/// Take the files out with [`retrieve`](Self::retrieve), then [`finish`](Self::finish). Closing the
/// last descriptor finishes it too. What was not retrieved by then is gone.
#[derive(Debug)]
pub struct IncomingSession {
    fd: OwnedFd,
}

common!(IncomingSession);

impl IncomingSession {
    /// Takes out the file that was preserved by `token`.
    ///
    /// Asking again for the same token gives another descriptor of the same file, until the session
    /// is finished.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchToken`], also for want of a handler where the orchestrator cannot list its files;
    /// else [`Error::NoHandler`]; [`Error::OutOfOrder`] if the session is ordered;
    /// [`Error::TooManyFiles`], which leaves everything as it was; [`Error::RetrieveFailed`].
    pub fn retrieve(&self, token: u64) -> Result<OwnedFd> {
        let mut command = SessionRetrieveFd {
            token,
            ..SessionRetrieveFd::default()
        };
        raw::call(self, &mut command).map_err(|errno| match retrieve_error(token, errno) {
            Error::NoSuchToken(_) if self.has(token) => Error::NoHandler(token),
            error => error,
        })?;
        // SAFETY: The kernel has just made this descriptor, for nobody else.
        Ok(unsafe { owned(command.fd) })
    }

    /// Whether it is said to have a file.
    fn has(&self, token: u64) -> bool {
        self.files()
            .is_ok_and(|files| files.iter().any(|file| file.token == token))
    }

    /// Ends the session: the kernel no longer holds on to the files that were retrieved, and drops
    /// those that were not.
    ///
    /// # Errors
    ///
    /// [`Error::FinishBusy`] if a file is not ready for it; nothing is finished then, and it can be
    /// tried again.
    pub fn finish(&self) -> Result<()> {
        raw::call(self, &mut SessionFinish::default()).map_err(|errno| match errno {
            Errno::BUSY => Error::FinishBusy,
            Errno::INVAL => Error::WrongKind,
            errno => Error::other("FINISH", errno),
        })
    }
}

fn retrieve_error(token: u64, errno: Errno) -> Error {
    match errno {
        Errno::NOENT => Error::NoSuchToken(token),
        Errno::BUSY => Error::OutOfOrder(token),
        Errno::MFILE | Errno::NFILE | Errno::NOTTY => Error::other("RETRIEVE_FD", errno),
        errno => Error::RetrieveFailed { token, errno },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retrieve_errors_in_the_callers_words() {
        assert_eq!(retrieve_error(7, Errno::NOENT), Error::NoSuchToken(7));
        assert_eq!(retrieve_error(7, Errno::BUSY), Error::OutOfOrder(7));
        assert_eq!(
            retrieve_error(7, Errno::MFILE),
            Error::TooManyFiles(Errno::MFILE)
        );
        let broken = retrieve_error(7, Errno::IO);
        assert_eq!(
            broken.to_string(),
            "the file with token 0x7 could not be rebuilt"
        );
        assert_eq!(broken.errno(), Errno::IO);
    }

    #[test]
    fn commands_to_something_else_say_so() {
        let null = std::fs::File::open("/dev/null").unwrap();
        let session = IncomingSession::from(OwnedFd::from(null));
        assert_eq!(session.retrieve(1).unwrap_err(), Error::NotASession);
        assert_eq!(session.finish(), Err(Error::NotASession));
        assert_eq!(session.name(), Err(Error::NotASession));
    }
}

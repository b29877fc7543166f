//! Sessions of which it is not known whether they come or go.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::list::FileInfo;
use crate::raw::{self, SessionPreserveFd};
use crate::session;
use crate::{Errno, IncomingSession, OutgoingSession, Result, SessionName, SessionState, State};

/// A session of either kind.
///
/// It is for those who get a descriptor from elsewhere, such as a supervisor or a tool that looks
/// at all sessions of a machine.
///
/// ```no_run
/// use liveupdate::Session;
///
/// # fn received() -> std::os::fd::OwnedFd { unimplemented!() }
/// match Session::identify(received())? {
///     Session::Outgoing(session) => println!("{} is to be handed on", session.name()?),
///     Session::Incoming(session) => println!("{} was handed on", session.name()?),
/// }
/// # Ok::<(), liveupdate::Error>(())
/// ```
#[derive(Debug)]
pub enum Session {
    /// It is to be handed on to the next kernel.
    Outgoing(OutgoingSession),
    /// The previous kernel handed it on.
    Incoming(IncomingSession),
}

impl Session {
    /// Finds out which kind of session a descriptor is. The session does not change by that.
    ///
    /// # Errors
    ///
    /// [`Error::NotASession`](crate::Error::NotASession) if it is none at all.
    pub fn identify(fd: OwnedFd) -> Result<Self> {
        session::name(fd.as_fd())?;
        Ok(match is_incoming(fd.as_fd())? {
            true => Self::Incoming(fd.into()),
            false => Self::Outgoing(fd.into()),
        })
    }
}

session::queries!(Session);

fn is_incoming(fd: BorrowedFd<'_>) -> Result<bool> {
    match session::state(fd) {
        Ok(state) => Ok(state.state == State::Updated),
        Err(error) if error.is_unsupported() => Ok(refuses_to_preserve(fd)),
        Err(error) => Err(error),
    }
}

/// Whether PRESERVE_FD is no command for this session. An outgoing one has another fault to find
/// with this call: there is no such descriptor.
fn refuses_to_preserve(fd: BorrowedFd<'_>) -> bool {
    let mut command = SessionPreserveFd {
        fd: -1,
        ..SessionPreserveFd::default()
    };
    raw::call(fd, &mut command) == Err(Errno::INVAL)
}

impl AsFd for Session {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Outgoing(session) => session.as_fd(),
            Self::Incoming(session) => session.as_fd(),
        }
    }
}

impl From<Session> for OwnedFd {
    fn from(session: Session) -> Self {
        match session {
            Session::Outgoing(session) => session.into(),
            Session::Incoming(session) => session.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;

    #[test]
    fn other_files_are_no_sessions() {
        let null = std::fs::File::open("/dev/null").unwrap();
        assert_eq!(
            Session::identify(null.into()).unwrap_err(),
            Error::NotASession
        );
    }
}

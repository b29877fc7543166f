//! The device, from which all sessions come.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};

use crate::list::{self, SessionInfo};
use crate::name::until_nul;
use crate::raw::{self, CreateSession, GetInfo, RetrieveSession, SessionEntry};
use crate::{Errno, Error, IncomingSession, OutgoingSession, Result, SessionName};

/// The live update device, open.
///
/// One process at a time can have it open, so hold it no longer than sessions are to be created or
/// retrieved: they live on without it.
#[derive(Debug)]
pub struct Device {
    fd: OwnedFd,
}

/// What an orchestrator says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Info {
    /// The implementation's name.
    pub implementation: String,
    /// The format in which it will hand on memfds.
    pub memfd_format: String,
    /// How many live updates this machine has gone through since it was powered on.
    pub liveupdate_num: u64,
    /// Bits for what it can do.
    pub features: u64,
}

impl Device {
    /// Where the device is.
    pub const PATH: &'static str = "/dev/liveupdate";

    /// Opens the device.
    ///
    /// # Errors
    ///
    /// [`Error::NoDevice`] if no orchestrator is active, [`Error::DeviceBusy`] if another process
    /// has it open, [`Error::HandoverUnreadable`] if what the previous kernel left is damaged.
    pub fn open() -> Result<Self> {
        Self::open_at(Self::PATH)
    }

    /// Opens the device by another path than [`Device::PATH`].
    ///
    /// # Errors
    ///
    /// As [`Device::open`].
    pub fn open_at(path: impl AsRef<Path>) -> Result<Self> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        match rustix::fs::open(path.as_ref(), flags, Mode::empty()) {
            Ok(fd) => Ok(Self { fd }),
            Err(errno) => Err(open_error(errno)),
        }
    }

    /// Creates a session, into which files can then be put.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidName`], or [`Error::NameTaken`] if there is a session of this name that is
    /// to be handed on.
    pub fn create_session(&self, name: impl AsRef<[u8]>) -> Result<OutgoingSession> {
        let name = SessionName::new(name)?;
        let mut command = CreateSession {
            name: name.to_raw(),
            ..CreateSession::default()
        };
        raw::call(self, &mut command).map_err(|errno| match errno {
            Errno::EXIST => Error::NameTaken(name),
            errno => Error::other("CREATE_SESSION", errno),
        })?;
        // SAFETY: The kernel has just made this descriptor, for nobody else.
        Ok(unsafe { owned(command.fd) }.into())
    }

    /// Takes over a session that the previous kernel handed on.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchSession`] if there is none of this name, [`Error::AlreadyRetrieved`] if
    /// somebody did so before.
    pub fn retrieve_session(&self, name: impl AsRef<[u8]>) -> Result<IncomingSession> {
        let name = SessionName::new(name)?;
        let mut command = RetrieveSession {
            name: name.to_raw(),
            ..RetrieveSession::default()
        };
        raw::call(self, &mut command).map_err(|errno| match errno {
            Errno::NOENT => Error::NoSuchSession(name),
            Errno::INVAL => Error::AlreadyRetrieved(name),
            errno => Error::other("RETRIEVE_SESSION", errno),
        })?;
        // SAFETY: The kernel has just made this descriptor, for nobody else.
        Ok(unsafe { owned(command.fd) }.into())
    }

    /// Asks the orchestrator what it is. (An extension.)
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] if it does not have the command.
    pub fn info(&self) -> Result<Info> {
        let mut command = GetInfo::default();
        raw::call(self, &mut command).map_err(|errno| absent("GET_INFO", errno))?;
        Ok(Info {
            implementation: text(&command.implementation),
            memfd_format: text(&command.memfd_format),
            liveupdate_num: command.liveupdate_num,
            features: command.features,
        })
    }

    /// Lists the sessions: those to be handed on and those that were. (An extension.)
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] if the orchestrator does not have the command.
    pub fn sessions(&self) -> Result<Vec<SessionInfo>> {
        let entries: Vec<SessionEntry> = list::all::<raw::ListSessions>(self.as_fd())
            .map_err(|errno| absent("LIST_SESSIONS", errno))?;
        Ok(entries.iter().map(SessionInfo::from).collect())
    }
}

fn open_error(errno: Errno) -> Error {
    match errno {
        Errno::NOENT | Errno::NXIO | Errno::NODEV => Error::NoDevice(errno),
        Errno::BUSY => Error::DeviceBusy,
        Errno::IO => Error::HandoverUnreadable,
        Errno::ACCESS | Errno::PERM => Error::Permission(errno),
        errno => Error::other("opening the device", errno),
    }
}

/// An orchestrator without extensions says EINVAL to numbers beyond those that it knows. Nothing
/// else in the device's extensions could be wrong.
fn absent(command: &'static str, errno: Errno) -> Error {
    match errno {
        Errno::INVAL | Errno::NOTTY => Error::Unsupported(command),
        errno => Error::other(command, errno),
    }
}

/// A text from the kernel.
pub(crate) fn text(raw: &[u8]) -> String {
    String::from_utf8_lossy(until_nul(raw)).into_owned()
}

/// # Safety
///
/// `fd` must be open, and the caller its only owner.
pub(crate) unsafe fn owned(fd: RawFd) -> OwnedFd {
    // SAFETY: As promised by the caller.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for Device {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

/// Takes a descriptor that is known to be the device's, such as one received from a supervisor.
impl From<OwnedFd> for Device {
    fn from(fd: OwnedFd) -> Self {
        Self { fd }
    }
}

impl From<Device> for OwnedFd {
    fn from(device: Device) -> Self {
        device.fd
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_says_why_not() {
        assert_eq!(
            Device::open_at("/nonexistent/liveupdate").unwrap_err(),
            Error::NoDevice(Errno::NOENT)
        );
        assert_eq!(open_error(Errno::BUSY), Error::DeviceBusy);
        assert_eq!(open_error(Errno::IO), Error::HandoverUnreadable);
        assert_eq!(open_error(Errno::ACCESS), Error::Permission(Errno::ACCESS));
    }

    #[test]
    fn names_are_checked_before_the_kernel_is_asked() {
        let device = Device::open_at("/dev/null").unwrap();
        assert!(matches!(
            device.create_session("").unwrap_err(),
            Error::InvalidName(_)
        ));
        assert!(matches!(
            device.retrieve_session([b'x'; 64]).unwrap_err(),
            Error::InvalidName(_)
        ));
    }

    #[test]
    fn a_missing_extension_is_absent_not_failed() {
        for errno in [Errno::INVAL, Errno::NOTTY] {
            assert_eq!(absent("GET_INFO", errno), Error::Unsupported("GET_INFO"));
        }
        // A device without any ioctl.
        let device = Device::open_at("/dev/null").unwrap();
        assert!(device.info().unwrap_err().is_unsupported());
        assert!(device.sessions().unwrap_err().is_unsupported());
    }
}

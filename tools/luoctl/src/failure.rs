// SPDX-License-Identifier: GPL-2.0

//! What went wrong, in the operator's words: the cause, and what to do next.

use crate::output::{ERROR, STRONG};
use liveupdate::Error;
use std::fmt::{self, Display};
use std::process::ExitCode;

/// Shorthand for results of this program.
pub type Result<T, E = Failure> = std::result::Result<T, E>;

/// The exit code. 0 is success, and 2 is what clap says to wrong usage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// For a reason without a code of its own.
    Failed = 1,
    /// What was typed makes no sense.
    Usage = 2,
    /// Something is missing on this machine: no orchestrator, no kernel loaded.
    NotReady = 3,
    /// The device is in use by another process.
    Busy = 4,
    /// For root only.
    Permission = 5,
    /// No such session, token or file.
    NotFound = 6,
    /// A session, or the kernel, refuses the live update; nothing was interrupted.
    Refused = 7,
    /// By Ctrl-C or SIGTERM.
    Interrupted = 130,
}

/// The exit codes as the manual tells them.
pub const EXIT_CODES: &str = "\
Exit codes:
  0    done
  1    failed, for a reason without a code of its own
  2    wrong usage
  3    the machine is not ready: no orchestrator, no kernel loaded, or what check found
  4    the device is in use by another process
  5    no permission
  6    no such session, token or file
  7    the live update is refused; nothing was interrupted
  130  interrupted by Ctrl-C or SIGTERM";

/// An error that ends the program.
#[derive(Debug)]
pub struct Failure {
    /// What to exit with.
    pub status: Status,
    /// What happened.
    pub cause: String,
    /// What the operator can do about it.
    pub next: String,
}

impl Failure {
    /// A failure with its cause and the next step.
    pub fn new(status: Status, cause: impl Display, next: impl Display) -> Self {
        Self {
            status,
            cause: cause.to_string(),
            next: next.to_string(),
        }
    }

    /// A failed system call or the like on something, such as a path.
    pub fn io(what: impl Display, error: impl Into<std::io::Error>, next: impl Display) -> Self {
        let error = error.into();
        let status = match error.kind() {
            std::io::ErrorKind::NotFound => Status::NotFound,
            std::io::ErrorKind::PermissionDenied => Status::Permission,
            _ => Status::Failed,
        };
        Self::new(status, format_args!("{what}: {error}"), next)
    }

    /// Says in front of the cause what it was about.
    #[must_use]
    pub fn about(mut self, what: impl Display) -> Self {
        self.cause = format!("{what}: {}", self.cause);
        self
    }

    /// The program's exit code.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.status as u8)
    }
}

impl Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{ERROR}error{ERROR:#}: {}", self.cause)?;
        write!(f, "{STRONG}next step{STRONG:#}: {}", self.next)
    }
}

/// The client library's errors, which name the cause but not what this program can do about it.
impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let (status, next) = match &error {
            Error::NoDevice(_) => (
                Status::NotReady,
                "insert luo.ko (`modprobe luo`); `luoctl check` says what else is missing",
            ),
            Error::DeviceBusy => (Status::Busy, "try again when that process is done with it"),
            Error::HandoverUnreadable => (
                Status::Failed,
                "`dmesg | grep -e luo -e KHO` says what is damaged; a reboot starts afresh",
            ),
            Error::Permission(_) => (Status::Permission, "run it as root"),
            Error::NameTaken(_) => (
                Status::Failed,
                "choose another name, or end that session: `luoctl list` shows who holds it",
            ),
            Error::NoSuchSession(_) | Error::NoSuchToken(_) => {
                (Status::NotFound, "`luoctl list` shows what there is")
            }
            Error::NoHandler(_) => (
                Status::Failed,
                "insert the module that handles this type, and try again: `luoctl list` shows the type",
            ),
            Error::AlreadyRetrieved(_) => (
                Status::Failed,
                "`luoctl list` shows who holds it: end that process, or ask it for the files",
            ),
            Error::TokenUsed(_) => (Status::Failed, "give each file a token of its own"),
            Error::UnsupportedFile => (
                Status::Failed,
                "memfds and unlinked files on tmpfs can be preserved; other types need a handler \
                 module: `luoctl check` shows which there are",
            ),
            Error::AlreadyPreserved => (
                Status::Failed,
                "a file can be in one session only: `luoctl list` shows all",
            ),
            Error::Prepared => (
                Status::Failed,
                "wait for the update that prepared it, or `luoctl update --cancel`",
            ),
            Error::PrepareRefused { .. } => (
                Status::Refused,
                "`dmesg | grep luo` says why; nothing was interrupted",
            ),
            Error::FinishBusy => (
                Status::Failed,
                "`dmesg | grep luo` says which file is not ready; try again later",
            ),
            Error::TooManyFiles(_) => (
                Status::Failed,
                "raise the limit on open files (`ulimit -n`)",
            ),
            Error::OutOfMemory => (Status::Failed, "free some memory, then try again"),
            Error::Unsupported(_) => (
                Status::Failed,
                "this needs luo.ko; the kernel's own orchestrator does not have it",
            ),
            _ => (Status::Failed, "`dmesg | grep luo` may say why"),
        };
        Self::new(status, chain(&error), next)
    }
}

/// An error and what caused it, in one line.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use liveupdate::Errno;

    #[test]
    fn cause_and_next_step_are_both_there() {
        let failure = Failure::from(Error::PrepareRefused {
            token: 7,
            errno: Errno::IO,
        })
        .about("session 'vm'");
        let text = anstream::adapter::strip_str(&failure.to_string()).to_string();
        assert_eq!(
            text,
            "error: session 'vm': the file with token 0x7 cannot be handed on: Input/output error (os error 5)\n\
             next step: `dmesg | grep luo` says why; nothing was interrupted"
        );
        assert_eq!(failure.status, Status::Refused);
    }

    #[test]
    fn every_exit_code_is_documented() {
        for status in [
            Status::Failed,
            Status::Usage,
            Status::NotReady,
            Status::Busy,
            Status::Permission,
            Status::NotFound,
            Status::Refused,
            Status::Interrupted,
        ] {
            let code = format!("\n  {:<4} ", status as u8);
            assert!(EXIT_CODES.contains(&code), "{status:?}");
        }
    }
}

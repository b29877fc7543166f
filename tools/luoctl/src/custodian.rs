// SPDX-License-Identifier: GPL-2.0

//! A process that does nothing but hold a session: until the kexec, or until it is told to end.
//!
//! A session lasts as long as a descriptor of it is open, and `luoctl` itself ends with each command. The custodian is
//! `luoctl` again, started with the session's descriptor. Over a socket between the two it learns what to do when the
//! one that started it is gone; nothing else asks it anything, see [`crate::held`].

use crate::failure::{Failure, Result, Status};
use crate::proc::Process;
use liveupdate::{Session, SessionName};
use rustix::event::{poll, PollFd, PollFlags};
use rustix::io::{fcntl_dupfd_cloexec, fcntl_setfd, FdFlags};
use rustix::process::{pidfd_open, pidfd_send_signal, Pid, PidfdFlags, Signal};
use std::ffi::OsStr;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

/// The hidden command by which it is started.
pub const COMMAND: &str = "custodian";

/// What it says when it is ready.
const READY: u8 = b'r';
/// What it is told.
const KEEP: u8 = b'k';
const FINISH: u8 = b'f';

/// The starting side of a custodian: if this ends before [`Custodian::keep`], the custodian does, too.
#[derive(Debug)]
pub struct Custodian {
    /// Its process id.
    pub pid: u32,
    control: UnixStream,
}

impl Custodian {
    /// Starts one that has this session, too.
    pub fn start(session: impl AsFd, name: &SessionName) -> Result<Self> {
        let failed = |error: std::io::Error| {
            let next = "free some memory or processes, then try again";
            Failure::io("cannot start the custodian", error, next)
        };
        let (mut control, theirs) = UnixStream::pair().map_err(failed)?;
        let session = session.as_fd().try_clone_to_owned().map_err(failed)?;
        let mut command = Command::new("/proc/self/exe");
        command
            .arg0("luoctl")
            .arg(COMMAND)
            .arg(OsStr::from_bytes(name.as_bytes()))
            .args(["--session", &inherited(&session).map_err(failed)?])
            .args(["--control", &inherited(&theirs).map_err(failed)?])
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let child = command.spawn().map_err(failed)?;
        drop((session, theirs));
        let pid = child.id();
        let mut word = [0];
        match control.read_exact(&mut word) {
            Ok(()) if word == [READY] => Ok(Self { pid, control }),
            _ => Err(died(pid)),
        }
    }

    /// Lets it hold the session from now on, whatever becomes of this process.
    pub fn keep(&mut self) -> Result<()> {
        self.tell(KEEP)
    }

    /// Lets it finish the session as soon as this process has ended or become another program.
    pub fn finish_then(&mut self) -> Result<()> {
        self.tell(FINISH)
    }

    /// Moves our end of the socket to a descriptor from this number on.
    pub fn move_control_above(&mut self, number: RawFd) -> std::io::Result<()> {
        self.control = fcntl_dupfd_cloexec(&self.control, number)?.into();
        Ok(())
    }

    /// Returns when the custodian has heard it.
    fn tell(&mut self, word: u8) -> Result<()> {
        let mut answer = [0];
        let heard = self
            .control
            .write_all(&[word])
            .and_then(|()| self.control.read_exact(&mut answer));
        heard.map_err(|_| died(self.pid))
    }
}

fn died(pid: u32) -> Failure {
    Failure::new(
        Status::Failed,
        format_args!("the custodian (PID {pid}) has died, and the session with it"),
        "`dmesg` says if the kernel killed it for memory; then try again",
    )
}

/// The number by which a child gets this descriptor.
fn inherited(fd: &impl AsFd) -> std::io::Result<String> {
    fcntl_setfd(fd, FdFlags::empty())?;
    Ok(fd.as_fd().as_raw_fd().to_string())
}

/// Ends a custodian, and returns when it is gone.
pub fn end(custodian: &Process) -> Result<()> {
    let run = || -> std::io::Result<()> {
        let pid = i32::try_from(custodian.pid).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or(std::io::ErrorKind::NotFound)?;
        let process = pidfd_open(pid, PidfdFlags::empty())?;
        pidfd_send_signal(&process, Signal::TERM)?;
        poll(&mut [PollFd::new(&process, PollFlags::IN)], None)?;
        Ok(())
    };
    match run() {
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
        result => result.map_err(|error| {
            let next = format!("end it by hand: kill {}", custodian.pid);
            Failure::io(format_args!("cannot end {custodian}"), error, next)
        }),
    }
}

/// The custodian itself. It ends only by a signal, or when its starter ends too early.
pub fn run(session: RawFd, control: RawFd) -> Result<()> {
    let (session, control) = receive(session, control)?;
    crate::interrupt::unblock();
    // Started by the link in /proc, it would be called after that.
    let _ = rustix::thread::set_name(c"luoctl");
    // Not to get the signals of the terminal that it was started from.
    let _ = rustix::process::setsid();
    // It has nothing to give back to a machine that is short of memory, and others' memory to lose.
    let _ = std::fs::write("/proc/self/oom_score_adj", "-1000");
    let mut control = UnixStream::from(control);
    let mut then = None;
    let mut say = READY;
    loop {
        // That nobody hears it shows in the next read.
        let _ = control.write_all(&[say]);
        let mut word = [0];
        match control.read_exact(&mut word) {
            Ok(()) => {
                then = Some(word[0]);
                say = word[0];
            }
            Err(_) => break,
        }
    }
    match (then, &session) {
        (None, _) => return Ok(()),
        (Some(FINISH), Session::Incoming(incoming)) if incoming.finish().is_ok() => return Ok(()),
        _ => {}
    }
    drop(control);
    loop {
        std::thread::park();
    }
}

/// Takes the two descriptors, and leaves nothing else open that may have come along.
fn receive(session: RawFd, control: RawFd) -> Result<(Session, OwnedFd)> {
    let not_for_you = || {
        let next = "this command is for luoctl's own use: see `luoctl preserve`";
        Failure::new(Status::Usage, "no session was handed over", next)
    };
    let (low, high) = (session.min(control), session.max(control));
    if low <= 2 || low == high {
        return Err(not_for_you());
    }
    for (first, last) in [(3, low - 1), (low + 1, high - 1), (high + 1, RawFd::MAX)] {
        if first <= last {
            // SAFETY: Nothing of this process uses these descriptors: it has just begun.
            unsafe { libc::close_range(first as u32, last as u32, 0) };
        }
    }
    // SAFETY: They were given to this process for this purpose. A number behind which there is nothing makes calls on
    // it fail, and nobody else in this process opens files so that it could come to mean something.
    let (session, control) =
        unsafe { (OwnedFd::from_raw_fd(session), OwnedFd::from_raw_fd(control)) };
    let session = Session::identify(session).map_err(|_| not_for_you())?;
    Ok((session, control))
}

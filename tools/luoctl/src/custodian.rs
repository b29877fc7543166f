// SPDX-License-Identifier: GPL-2.0

//! A process that does nothing but hold a session: until the kexec, or until it is told to end.
//!
//! A session lasts as long as a descriptor of it is open, and `luoctl` itself ends with each command. The custodian is
//! `luoctl` again. Its standard input is a socket, over which it gets the session and learns what to do when the one that
//! started it is gone; nothing else asks it anything, see [`crate::held`].

use crate::failure::{Failure, Result, Status};
use crate::proc::Process;
use liveupdate::{Session, SessionName};
use rustix::cmsg_space;
use rustix::event::{poll, PollFd, PollFlags};
use rustix::io::{fcntl_dupfd_cloexec, IoSlice, IoSliceMut};
use rustix::net::{
    recvmsg, sendmsg, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use rustix::process::{pidfd_open, pidfd_send_signal, Pid, PidfdFlags, Signal};
use std::ffi::OsStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

/// The hidden command by which it is started.
pub const COMMAND: &str = "custodian";

/// What the two say to each other, in a byte; the custodian answers with the same.
mod word {
    /// It is ready.
    pub const READY: u8 = b'r';
    /// Here is the session.
    pub const TAKE: u8 = b't';
    /// Hold it, whatever becomes of me.
    pub const KEEP: u8 = b'k';
    /// Finish it when I have ended or have become another program.
    pub const FINISH: u8 = b'f';
}

/// The starting side of a custodian: if this ends before [`Custodian::keep`], the custodian does, too.
#[derive(Debug)]
pub struct Custodian {
    /// Its process id.
    pub pid: u32,
    control: OwnedFd,
}

impl Custodian {
    /// Starts one, without a session. This is what may fail, so it is done first.
    pub fn start(name: &SessionName) -> Result<Self> {
        let failed = |error: io::Error| {
            let next = "free some memory or processes, then try again";
            Failure::io("cannot start the custodian", error, next)
        };
        let (control, theirs) = UnixStream::pair().map_err(failed)?;
        let mut command = Command::new("/proc/self/exe");
        command
            .arg0("luoctl")
            .arg(COMMAND)
            .arg(OsStr::from_bytes(name.as_bytes()))
            .current_dir("/")
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        // SAFETY: It does nothing but to fork and to end.
        unsafe { command.pre_exec(leave_to_init) };
        // Nobody is there to be waited for where SIGCHLD is ignored.
        let _ = command.spawn().map_err(failed)?.wait();
        // With our copy of the other end: that it closes is how we learn that the custodian is gone.
        drop(command);
        let mut custodian = Self {
            pid: 0,
            control: control.into(),
        };
        custodian.hear(word::READY)?;
        custodian.pid = custodian.hear_pid().map_err(failed)?;
        Ok(custodian)
    }

    fn hear_pid(&self) -> io::Result<u32> {
        let mut pid = [0; 4];
        let mut control = std::fs::File::from(self.control.try_clone()?);
        io::Read::read_exact(&mut control, &mut pid)?;
        Ok(u32::from_ne_bytes(pid))
    }

    /// Gives it a descriptor of the session.
    pub fn give(&self, session: impl AsFd) -> Result<()> {
        self.tell(word::TAKE, Some(session.as_fd()))
    }

    /// Lets it hold the session from now on, whatever becomes of this process.
    pub fn keep(&self) -> Result<()> {
        self.tell(word::KEEP, None)
    }

    /// Lets it finish the session as soon as this process has ended or become another program.
    pub fn finish_then(&self) -> Result<()> {
        self.tell(word::FINISH, None)
    }

    /// Moves our end of the socket to a descriptor from this number on.
    pub fn move_control_above(&mut self, number: RawFd) -> io::Result<()> {
        self.control = fcntl_dupfd_cloexec(&self.control, number)?;
        Ok(())
    }

    /// Returns when the custodian has heard it.
    fn tell(&self, word: u8, session: Option<BorrowedFd<'_>>) -> Result<()> {
        send(self.control.as_fd(), word, session).map_err(|_| self.died())?;
        self.hear(word)
    }

    fn hear(&self, wanted: u8) -> Result<()> {
        match receive(self.control.as_fd()) {
            Ok(Some((word, _))) if word == wanted => Ok(()),
            _ => Err(self.died()),
        }
    }

    fn died(&self) -> Failure {
        Failure::new(
            Status::Failed,
            format_args!("the custodian (PID {}) has died", self.pid),
            "`dmesg` says if the kernel killed it for memory; then try again",
        )
    }
}

/// Goes on as a grandchild. What luoctl becomes is not to have a child that it knows nothing of, and a zombie in the end.
fn leave_to_init() -> io::Result<()> {
    // SAFETY: The process has one thread, and both halves do only what they may do between fork and exec.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(()),
        // SAFETY: It does not return.
        _ => unsafe { libc::_exit(0) },
    }
}

/// Ends a custodian, and returns when it is gone.
pub fn end(custodian: &Process) -> Result<()> {
    let run = || -> io::Result<()> {
        let pid = i32::try_from(custodian.pid).ok().and_then(Pid::from_raw);
        let process = pidfd_open(pid.ok_or(io::ErrorKind::NotFound)?, PidfdFlags::empty())?;
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
pub fn run() -> Result<()> {
    let control = control().map_err(|error| {
        let next = "this command is for luoctl's own use: see `luoctl preserve`";
        Failure::io("standard input", error, next)
    })?;
    detach();
    let mut session = None;
    let mut then = None;
    // That nobody hears it shows in what is received next.
    let _ = send(control.as_fd(), word::READY, None);
    let _ = rustix::io::write(&control, &std::process::id().to_ne_bytes());
    while let Ok(Some((word, fd))) = receive(control.as_fd()) {
        match word {
            word::TAKE => session = fd.and_then(|fd| Session::identify(fd).ok()),
            word => then = Some(word),
        }
        let _ = send(control.as_fd(), word, None);
    }
    match (&session, then) {
        (Some(Session::Incoming(incoming)), Some(word::FINISH)) if incoming.finish().is_ok() => {
            Ok(())
        }
        (Some(_), Some(_)) => {
            drop(control);
            loop {
                std::thread::park();
            }
        }
        _ => Ok(()),
    }
}

/// The socket that is our standard input.
fn control() -> io::Result<OwnedFd> {
    // What came along from whoever started luoctl may be a pipe whose other end waits for us to close it.
    // SAFETY: This process has just begun, and uses nothing but its standard descriptors so far.
    unsafe { libc::close_range(3, libc::c_uint::MAX, 0) };
    let control = io::stdin().as_fd().try_clone_to_owned()?;
    rustix::net::sockopt::socket_type(&control)?;
    rustix::stdio::dup2_stdin(std::fs::File::open("/dev/null")?)?;
    Ok(control)
}

/// Makes this process independent of the one that started it.
fn detach() {
    crate::interrupt::unblock();
    // Started by the link in /proc, it would be called after that.
    let _ = rustix::thread::set_name(c"luoctl");
    // Not to get the signals of the terminal that it was started from.
    let _ = rustix::process::setsid();
    // It has nothing to give back to a machine that is short of memory, and others' memory to lose.
    let _ = std::fs::write("/proc/self/oom_score_adj", "-1000");
}

fn send(socket: BorrowedFd<'_>, word: u8, fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds: Vec<BorrowedFd<'_>> = fd.into_iter().collect();
    if !fds.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(&fds));
    }
    // A starter that is gone is no reason for a signal.
    sendmsg(
        socket,
        &[IoSlice::new(&[word])],
        &mut control,
        SendFlags::NOSIGNAL,
    )?;
    Ok(())
}

/// `None` if the other end is closed.
fn receive(socket: BorrowedFd<'_>) -> io::Result<Option<(u8, Option<OwnedFd>)>> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut word = [0];
    let flags = RecvFlags::CMSG_CLOEXEC;
    let received = recvmsg(
        socket,
        &mut [IoSliceMut::new(&mut word)],
        &mut control,
        flags,
    )?;
    if received.bytes == 0 {
        return Ok(None);
    }
    let fd = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    Ok(Some((word[0], fd)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn a_word_arrives_with_and_without_a_descriptor() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut file = tempfile::tempfile().unwrap();
        send(ours.as_fd(), word::TAKE, Some(file.as_fd())).unwrap();
        send(ours.as_fd(), word::KEEP, None).unwrap();
        drop(ours);
        let (first, fd) = receive(theirs.as_fd()).unwrap().unwrap();
        assert_eq!(first, word::TAKE);
        io::Write::write_all(&mut std::fs::File::from(fd.unwrap()), b"same").unwrap();
        let (second, none) = receive(theirs.as_fd()).unwrap().unwrap();
        assert_eq!(second, word::KEEP);
        assert!(none.is_none());
        assert!(receive(theirs.as_fd()).unwrap().is_none());
        let mut text = String::new();
        io::Seek::rewind(&mut file).unwrap();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "same");
    }
}

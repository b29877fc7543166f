// SPDX-License-Identifier: GPL-2.0

//! Child processes: how tests are kept apart, and how a test gets a process that it may kill.

use anyhow::{bail, Context, Result};
use nix::fcntl::OFlag;
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
use nix::sys::signal::{kill, Signal};
use nix::sys::wait::{waitid, waitpid, Id, WaitPidFlag, WaitStatus};
use nix::unistd::{fork, pipe2, ForkResult, Pid};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

/// How long a holder's preparations may take.
const SETUP: Duration = Duration::from_secs(30);
/// What a child says when these are done.
const READY: &str = "ready";
/// What one says that has done what it was for.
const DONE: &str = "done";

/// How often it is looked whether a silent child still lives.
const LOOK: Duration = Duration::from_millis(50);

/// What a child said.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Said {
    /// A line, without its end.
    Line(String),
    /// Nothing more: it ended.
    Ended,
    /// Nothing in the given time.
    Late,
}

/// The letter that /proc has for what a process does: 'D' where it waits in the kernel for what only SIGKILL ends, if
/// anything.
pub fn state_of(pid: Pid) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

/// A forked child and the pipe on which it speaks.
#[derive(Debug)]
pub struct Child {
    pid: Pid,
    pipe: File,
    reaped: bool,
}

impl Child {
    /// Forks a child that runs `body` with the writing end of a pipe, then exits with 0.
    ///
    /// A panic in `body` ends the child with 101.
    pub fn spawn(body: impl FnOnce(&mut File)) -> Result<Self> {
        // Closed on exec: a program started by the child must not keep the pipe open.
        let (reader, writer) = pipe2(OFlag::O_CLOEXEC).context("pipe")?;
        // SAFETY: this program has no threads, so the child may do all that the parent may.
        match unsafe { fork() }.context("fork")? {
            ForkResult::Parent { child } => {
                drop(writer);
                Ok(Self {
                    pid: child,
                    pipe: File::from(reader),
                    reaped: false,
                })
            }
            ForkResult::Child => {
                drop(reader);
                exit_after(body, writer)
            }
        }
    }

    /// A child that runs `setup`, says that it is done, and then only waits to be killed, holding what `setup` gave.
    ///
    /// Returns once `setup` is done.
    pub fn holder<T>(setup: impl FnOnce() -> Result<T>) -> Result<Self> {
        Self::service(SETUP, setup, |_held| loop {
            nix::unistd::pause();
        })
    }

    /// A child that runs `setup` and then goes on with `run`. Returns once `setup` is done.
    pub fn service<T>(
        timeout: Duration,
        setup: impl FnOnce() -> Result<T>,
        run: impl FnOnce(T),
    ) -> Result<Self> {
        let mut child = Self::spawn(|pipe| match setup() {
            Ok(ready) => {
                let _ = writeln!(pipe, "{READY}");
                run(ready);
            }
            Err(err) => {
                let _ = writeln!(pipe, "{err:#}");
            }
        })?;
        match child.listen(timeout)? {
            Said::Line(word) if word == READY => Ok(child),
            Said::Line(word) => bail!("the child process: {word}"),
            Said::Ended => bail!("the child process ended during its preparations"),
            Said::Late => bail!(
                "the child process is not ready within {} s",
                timeout.as_secs()
            ),
        }
    }

    /// Does something in a child process, and waits for its end. An error is that of `body`, or tells how the child ended.
    pub fn run(timeout: Duration, body: impl FnOnce() -> Result<()>) -> Result<()> {
        Self::start(body)?.done(timeout)
    }

    /// A child process that does something: [`Child::done`] tells how it went.
    pub fn start(body: impl FnOnce() -> Result<()>) -> Result<Self> {
        Self::spawn(|pipe| {
            let said = match body() {
                Ok(()) => DONE.to_string(),
                Err(err) => format!("{err:#}"),
            };
            let _ = writeln!(pipe, "{said}");
        })
    }

    /// Waits for its end. An error is that of what it did, or tells how it ended.
    pub fn done(mut self, timeout: Duration) -> Result<()> {
        match self.listen(timeout)? {
            Said::Line(line) if line == DONE => self.wait().map(drop),
            Said::Line(line) => bail!("{line}"),
            Said::Ended => bail!("the child process ended: {:?}", self.wait()?),
            Said::Late => bail!("not done within {} s", timeout.as_secs()),
        }
    }

    /// Its process id.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// The next line of what it writes.
    ///
    /// That the pipe is still open does not mean that the child lives: its own children inherit it.
    pub fn listen(&mut self, timeout: Duration) -> Result<Said> {
        let deadline = Instant::now() + timeout;
        let mut line = Vec::new();
        loop {
            if self.readable(deadline.min(Instant::now() + LOOK))? {
                let mut byte = [0];
                match self.pipe.read(&mut byte)? {
                    0 => return Ok(Said::Ended),
                    _ if byte[0] == b'\n' => {
                        return Ok(Said::Line(String::from_utf8_lossy(&line).into_owned()))
                    }
                    _ => line.push(byte[0]),
                }
            } else if Instant::now() >= deadline {
                return Ok(Said::Late);
            } else if self.has_ended()? && !self.readable(Instant::now())? {
                return Ok(Said::Ended);
            }
        }
    }

    /// SIGKILL, and the wait until the kernel has torn it down: when this returns its files are closed.
    pub fn kill(mut self) -> Result<WaitStatus> {
        kill(self.pid, Signal::SIGKILL).context("kill")?;
        self.reap()
    }

    /// Waits for its end.
    pub fn wait(mut self) -> Result<WaitStatus> {
        self.reap()
    }

    fn reap(&mut self) -> Result<WaitStatus> {
        self.reaped = true;
        waitpid(self.pid, None).context("waitpid")
    }

    /// Whether it has ended.
    pub fn has_ended(&self) -> Result<bool> {
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        let status = waitid(Id::Pid(self.pid), flags).context("waitid")?;
        Ok(!matches!(status, WaitStatus::StillAlive))
    }

    fn readable(&self, deadline: Instant) -> Result<bool> {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        let mut fds = [PollFd::new(self.pipe.as_fd(), PollFlags::POLLIN)];
        Ok(poll(&mut fds, left)? > 0)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if !self.reaped {
            let _ = kill(self.pid, Signal::SIGKILL);
            let _ = waitpid(self.pid, None);
        }
    }
}

fn exit_after(body: impl FnOnce(&mut File), writer: OwnedFd) -> ! {
    let mut pipe = File::from(writer);
    let run = std::panic::AssertUnwindSafe(|| body(&mut pipe));
    let code = if std::panic::catch_unwind(run).is_ok() {
        0
    } else {
        101
    };
    // Not std::process::exit: what the parent had registered for its own exit is not the child's to run.
    // SAFETY: ends this process and touches nothing else.
    unsafe { libc::_exit(code) }
}

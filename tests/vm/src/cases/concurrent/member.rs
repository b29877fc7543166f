// SPDX-License-Identifier: GPL-2.0

//! A process that has the session, too: it is given it by a socket.

use super::notes::{Found, Notes};
use super::worker::{Shared, Worker};
use super::world::Step;
use super::{Plan, PATIENCE};
use crate::cases::common::history::{Log, Moment};
use crate::cases::common::luo::{Device, Session};
use crate::cases::common::modules::Recorder;
use crate::cases::common::{memfd, passing};
use crate::process::Child;
use anyhow::{Context, Result};
use fastrand::Rng;
use nix::sys::socket::MsgFlags;
use nix::sys::wait::WaitStatus;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixDatagram;

/// The process.
pub struct Member {
    child: Child,
    line: UnixDatagram,
    notes: File,
}

/// What one did.
pub struct Done {
    /// Every way in which it may have come about: what it noted, and what the kernel did in its place.
    pub happened: Vec<Vec<Log<Step>>>,
    /// Number of commands.
    pub commands: u64,
    /// Whether it was killed.
    pub killed: bool,
    /// Whether it was in the midst of a command then.
    pub amid: bool,
}

impl Member {
    /// Brings it into being; it waits for the session, and then does those of its commands that have these numbers. Before
    /// the session is made: or it would inherit it.
    pub fn new(
        device: &Device,
        recorder: &Recorder,
        files: &[File],
        plan: &Plan,
        seed: u64,
        numbers: &[usize],
    ) -> Result<Self> {
        let (line, theirs) = UnixDatagram::pair()?;
        line.set_read_timeout(Some(PATIENCE))?;
        let moment = Rng::with_seed(!seed).usize(0..=numbers.len());
        let (before, after) = numbers.split_at(moment);
        let notes = memfd::create(0)?;
        let child = Child::start(|| {
            let session =
                Session(passing::receive(&theirs, MsgFlags::empty()).context("the session")?);
            let shared = Shared {
                device,
                recorder,
                files,
                session: &session,
            };
            let mut worker = Worker::new(shared, plan.own, seed, Notes::to(notes.try_clone()?));
            worker.work(before)?;
            theirs.send(&[0])?;
            worker.work(after)?;
            worker.end();
            Ok(())
        })?;
        Ok(Self { child, line, notes })
    }

    /// Gives it the session: it begins.
    pub fn give(&self, session: &Session) -> Result<()> {
        passing::send(&self.line, session.0.as_raw_fd()).context("sending the session")
    }

    /// Waits for its end.
    pub fn end(self) -> Result<Done> {
        self.child.done(PATIENCE)?;
        let found = Found::read(&self.notes)?;
        Ok(Done {
            commands: found.commands,
            happened: vec![vec![found.log]],
            killed: false,
            amid: false,
        })
    }

    /// Kills it at some moment, unless it is faster.
    pub fn kill(self) -> Result<Done> {
        // If none comes, it has failed.
        if self.line.recv(&mut [0]).is_err() {
            return self.end();
        }
        let killed = Moment::now();
        let status = self.child.kill()?;
        let found = Found::read(&self.notes)?;
        Ok(Done {
            commands: found.commands,
            killed: matches!(status, WaitStatus::Signaled(..)),
            amid: found.unanswered.is_some(),
            happened: found.of_killed(killed, Moment::now()),
        })
    }
}

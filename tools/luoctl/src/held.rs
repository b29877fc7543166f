// SPDX-License-Identifier: GPL-2.0

//! The sessions that processes of this machine hold.
//!
//! A command on a session needs a descriptor of it. pidfd_getfd(2) gives root another one of any that a process has, so
//! custodians need no socket of their own to be asked by, and the sessions of agents can be looked at as well.

use crate::failure::{chain, Failure, Result, Status};
use crate::proc::{Descriptor, Proc, Process};
use liveupdate::{Session, SessionName};

/// A session, and who has it.
#[derive(Debug)]
pub struct Held {
    /// A descriptor of our own. While it is there the session does not end.
    pub session: Session,
    /// Its name.
    pub name: SessionName,
    /// The processes that have it open.
    pub holders: Vec<Process>,
}

impl Held {
    /// Whether it is to be handed on.
    #[must_use]
    pub fn is_outgoing(&self) -> bool {
        matches!(self.session, Session::Outgoing(_))
    }

    /// Its holders, in one line.
    #[must_use]
    pub fn by(&self) -> String {
        let holders: Vec<String> = self.holders.iter().map(ToString::to_string).collect();
        holders.join(", ")
    }
}

/// A descriptor that we were not given, and why.
#[derive(Debug)]
pub struct Denied {
    /// The process that has it.
    pub process: Process,
    /// The reason.
    pub why: String,
}

/// All sessions that are held.
#[derive(Debug, Default)]
pub struct AllHeld {
    /// Those that we have now, too.
    pub sessions: Vec<Held>,
    /// Those that we do not.
    pub denied: Vec<Denied>,
}

impl AllHeld {
    /// Looks for them.
    #[must_use]
    pub fn find(proc: &Proc) -> Self {
        let mut all = Self::default();
        for descriptor in proc.sessions() {
            match open(&descriptor) {
                Ok((session, name)) => all.add(session, name, descriptor.process),
                Err(Some(why)) => all.denied.push(Denied {
                    process: descriptor.process,
                    why,
                }),
                Err(None) => {}
            }
        }
        all
    }

    fn add(&mut self, session: Session, name: SessionName, holder: Process) {
        let outgoing = matches!(session, Session::Outgoing(_));
        // Of each kind a name is there once.
        let known = self
            .sessions
            .iter_mut()
            .find(|held| held.name == name && held.is_outgoing() == outgoing);
        match known {
            Some(held) if held.holders.contains(&holder) => {}
            Some(held) => held.holders.push(holder),
            None => self.sessions.push(Held {
                session,
                name,
                holders: vec![holder],
            }),
        }
    }

    /// The session of this name and kind.
    #[must_use]
    pub fn get(&self, name: &SessionName, outgoing: bool) -> Option<&Held> {
        self.sessions
            .iter()
            .find(|held| held.name == *name && held.is_outgoing() == outgoing)
    }

    /// Gives that session away.
    pub fn take(&mut self, name: &SessionName, outgoing: bool) -> Option<Held> {
        let index = self
            .sessions
            .iter()
            .position(|held| held.name == *name && held.is_outgoing() == outgoing)?;
        Some(self.sessions.swap_remove(index))
    }
}

/// `Err(None)` if there is no such descriptor any more.
fn open(descriptor: &Descriptor) -> Result<(Session, SessionName), Option<String>> {
    let fd = descriptor
        .duplicate()
        .map_err(|error| match error.raw_os_error() {
            Some(libc::ESRCH | libc::EBADF | libc::ENOENT) => None,
            _ => Some(error.to_string()),
        })?;
    let look = || {
        let session = Session::identify(fd)?;
        let name = session.name()?;
        Ok((session, name))
    };
    look().map_err(|error: liveupdate::Error| match error {
        // The number has come to mean another file meanwhile.
        liveupdate::Error::NotASession => None,
        error => Some(chain(&error)),
    })
}

/// Says that nobody holds a session of this name.
#[must_use]
pub fn unknown(name: &SessionName) -> Failure {
    Failure::new(
        Status::NotFound,
        format_args!("no process holds a session '{name}' that is to be handed on"),
        "`luoctl list` shows what there is",
    )
}

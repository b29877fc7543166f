// SPDX-License-Identifier: GPL-2.0

//! The sessions that processes of this machine hold.
//!
//! A command on a session needs a descriptor of it. pidfd_getfd(2) gives root another one of any that a process has, so
//! custodians need no socket of their own to be asked by, and the sessions of agents can be looked at as well.

use crate::failure::{chain, Failure, Result, Status};
use crate::proc::{Descriptor, Proc, Process};
use liveupdate::{Session, SessionName};
use rustix::process::{getrlimit, setrlimit, Resource, Rlimit};
use std::collections::hash_map::{Entry, HashMap};

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
#[derive(Debug, PartialEq, Eq)]
pub struct Denied {
    /// The process that has it.
    pub process: Process,
    /// The reason.
    pub why: String,
}

/// What a session is known by: of each kind a name is there once.
type Key = (SessionName, bool);

/// All sessions that are held.
#[derive(Debug, Default)]
pub struct AllHeld {
    /// Those that we have now, too.
    pub sessions: Vec<Held>,
    /// Those that we do not, one for each process and reason.
    pub denied: Vec<Denied>,
    /// Where in `sessions` each is.
    places: HashMap<Key, usize>,
    /// Until they are closed.
    _limit: Option<FileLimit>,
}

impl AllHeld {
    /// Looks for them.
    #[must_use]
    pub fn find(proc: &Proc) -> Self {
        let mut all = Self {
            _limit: FileLimit::raise(),
            ..Self::default()
        };
        for descriptor in proc.sessions() {
            match open(&descriptor) {
                Ok((session, name)) => all.add(session, name, descriptor.process),
                Err(Some(why)) => all.deny(descriptor.process, why),
                Err(None) => {}
            }
        }
        all
    }

    fn add(&mut self, session: Session, name: SessionName, holder: Process) {
        let outgoing = matches!(session, Session::Outgoing(_));
        match self.places.entry((name.clone(), outgoing)) {
            Entry::Occupied(place) => {
                let holders = &mut self.sessions[*place.get()].holders;
                if !holders.contains(&holder) {
                    holders.push(holder);
                }
            }
            Entry::Vacant(place) => {
                place.insert(self.sessions.len());
                self.sessions.push(Held {
                    session,
                    name,
                    holders: vec![holder],
                });
            }
        }
    }

    fn deny(&mut self, process: Process, why: String) {
        let denied = Denied { process, why };
        if self.denied.last() != Some(&denied) {
            self.denied.push(denied);
        }
    }

    /// The session of this name and kind.
    #[must_use]
    pub fn get(&self, name: &SessionName, outgoing: bool) -> Option<&Held> {
        let place = self.places.get(&(name.clone(), outgoing))?;
        self.sessions.get(*place)
    }

    /// Keeps that session, and lets go of all others.
    #[must_use]
    pub fn take(mut self, name: &SessionName, outgoing: bool) -> Option<Held> {
        let place = self.places.remove(&(name.clone(), outgoing))?;
        Some(self.sessions.swap_remove(place))
    }
}

/// The limit on open files as it was, to be so again: a program that we become would have it, too.
#[derive(Debug)]
struct FileLimit(Rlimit);

impl FileLimit {
    /// Each session that we look at is a descriptor of ours, and a machine may have many. If the limit cannot be raised,
    /// those beyond it are told of as denied.
    fn raise() -> Option<Self> {
        let before = getrlimit(Resource::Nofile);
        let raised = Rlimit {
            current: before.maximum,
            ..before
        };
        setrlimit(Resource::Nofile, raised).ok()?;
        Some(Self(before))
    }
}

impl Drop for FileLimit {
    fn drop(&mut self) {
        let _ = setrlimit(Resource::Nofile, self.0);
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

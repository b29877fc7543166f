// SPDX-License-Identifier: GPL-2.0

//! What there is, and what each step makes of it: written after the contract, for one step at a time.

use crate::cases::common::history::Model;
use luo_model::Errno;
use serde::{Deserialize, Serialize};

/// The session that all have; its name is number 0.
pub const SHARED: usize = 0;
/// Names for the others: few, so that they are fought for.
pub const NAMES: usize = 5;
/// Tokens, few for the same reason.
pub const TOKENS: u64 = 5;

/// The name of a number.
pub fn name(number: usize) -> String {
    format!("session-{number}")
}

/// What was asked for, and what was answered.
#[allow(missing_docs)]
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Step {
    Create(usize, Result<(), Errno>),
    Preserve(usize, u64, usize, Result<(), Errno>),
    /// A Preserve that fails, and nobody is told how: its process was killed.
    Attempt(usize, u64, usize),
    /// The end of a Preserve whose handler failed: until then the file is in use, as other sessions may notice.
    LetGo(usize),
    Unpreserve(usize, u64, Result<(), Errno>),
    Prepare(usize, Result<(), Errno>),
    Cancel(usize),
    SetFlags(usize, bool),
    State(usize, u32, u64),
    Fds(usize, Vec<u64>),
    Sessions(Vec<String>),
    /// Closing a session: its last file is unpreserved...
    Pop(usize, u64),
    /// ... and at last it is gone.
    Remove(usize),
}

/// Closing a session with these files, in order.
pub fn closing(name: usize, tokens: &[u64]) -> Vec<Step> {
    let pops = tokens.iter().rev().map(|&token| Step::Pop(name, token));
    pops.chain([Step::Remove(name)]).collect()
}

#[derive(Clone, Eq, Hash, PartialEq)]
struct ModelSession {
    name: usize,
    prepared: bool,
    ordered: bool,
    /// Tokens and numbers of the files.
    files: Vec<(u64, usize)>,
}

/// All sessions, in the order in which they were made.
#[derive(Clone, Eq, Hash, PartialEq)]
pub struct World {
    sessions: Vec<ModelSession>,
    /// Files that handlers are failing to preserve.
    failing: Vec<usize>,
    /// Whether a kexec may be under way at any moment.
    kexec: bool,
}

impl World {
    /// One that has the shared session, with nothing in it.
    pub fn new(kexec: bool) -> Self {
        let mut world = Self {
            sessions: vec![],
            failing: vec![],
            kexec,
        };
        let _ = world.create(SHARED);
        world
    }

    fn session(&mut self, name: usize) -> Option<&mut ModelSession> {
        self.sessions
            .iter_mut()
            .find(|session| session.name == name)
    }

    fn in_use(&self, file: usize) -> bool {
        let mut files = self.sessions.iter().flat_map(|session| &session.files);
        files.any(|(_, used)| *used == file) || self.failing.contains(&file)
    }

    fn create(&mut self, name: usize) -> Result<(), Errno> {
        if self.session(name).is_some() {
            return Err(Errno::EEXIST);
        }
        self.sessions.push(ModelSession {
            name,
            prepared: false,
            ordered: false,
            files: vec![],
        });
        Ok(())
    }

    fn preserve(&mut self, name: usize, token: u64, file: usize) -> Option<Result<(), Errno>> {
        let in_use = self.in_use(file);
        let session = self.session(name)?;
        Some(if session.prepared {
            Err(Errno::EBUSY)
        } else if session.files.iter().any(|(used, _)| *used == token) {
            Err(Errno::EEXIST)
        } else if in_use {
            Err(Errno::EBUSY)
        } else {
            session.files.push((token, file));
            Ok(())
        })
    }

    /// A Preserve whose handler fails, or gives up; false if it does not get so far.
    fn attempt(&mut self, name: usize, token: u64, file: usize) -> Option<bool> {
        let possible = self.clone().preserve(name, token, file)?.is_ok();
        self.failing.push(file);
        Some(possible)
    }

    fn unpreserve(&mut self, name: usize, token: u64) -> Option<Result<(), Errno>> {
        let session = self.session(name)?;
        let place = session.files.iter().position(|(used, _)| *used == token);
        Some(match place {
            _ if session.prepared => Err(Errno::EBUSY),
            None => Err(Errno::ENOENT),
            Some(i) if session.ordered && i + 1 != session.files.len() => Err(Errno::EBUSY),
            Some(i) => {
                session.files.remove(i);
                Ok(())
            }
        })
    }

    /// As [`Model::take`]; `None` if there is no such session, whose descriptor is open nevertheless.
    fn try_take(&mut self, step: &Step) -> Option<bool> {
        Some(match *step {
            Step::Create(name, result) => self.create(name) == result,
            // The recorder is told to fail now and then, and whoever comes first is hit.
            Step::Preserve(name, token, file, Err(Errno::EIO)) => {
                is_recorded(file) && self.attempt(name, token, file)?
            }
            Step::Attempt(name, token, file) => self.attempt(name, token, file)?,
            Step::LetGo(file) => {
                self.failing.retain(|failing| *failing != file);
                true
            }
            Step::Preserve(name, token, file, result) => {
                self.preserve(name, token, file)? == result
            }
            Step::Unpreserve(name, token, result) => self.unpreserve(name, token)? == result,
            Step::Prepare(name, result) => {
                self.session(name)?.prepared = true;
                result.is_ok()
            }
            Step::Cancel(name) => {
                self.session(name)?.prepared = false;
                true
            }
            Step::SetFlags(name, ordered) => {
                self.session(name)?.ordered = ordered;
                true
            }
            Step::State(name, state, files) => {
                let frozen = state == 3 && self.kexec;
                let session = self.session(name)?;
                let right = frozen || state == 1 + u32::from(session.prepared);
                right && files == session.files.len() as u64
            }
            Step::Fds(name, ref tokens) => {
                let files = &self.session(name)?.files;
                files.iter().map(|(token, _)| token).eq(tokens)
            }
            Step::Sessions(ref names) => {
                let sessions = self.sessions.iter().map(|session| name(session.name));
                sessions.eq(names.iter().cloned())
            }
            Step::Pop(name, token) => {
                let last = self.session(name)?.files.pop();
                last.is_some_and(|(last, _)| last == token)
            }
            Step::Remove(name) => {
                let empty = self.session(name)?.files.is_empty();
                self.sessions.retain(|session| session.name != name);
                empty
            }
        })
    }
}

impl Model for World {
    type Step = Step;

    fn take(&mut self, step: &Step) -> bool {
        self.try_take(step) == Some(true)
    }
}

/// How many of the files are memfds, and how many the recorder's.
pub const MEMFDS: usize = 3;
pub const RECORDED: usize = 4;

/// Whether it is one of the recorder's.
fn is_recorded(file: usize) -> bool {
    file >= MEMFDS
}

// SPDX-License-Identifier: GPL-2.0

//! Who does everything in random order: a thread, or a process.

use super::busy::BUSY;
use super::notes::{Notes, Ways};
use super::world::{closing, name, Step, NAMES, SHARED, TOKENS};
use crate::cases::common::luo::{Device, Session};
use crate::cases::common::modules::Recorder;
use crate::cases::common::refused;
use crate::cases::model::call::done;
use anyhow::{ensure, Context, Result};
use fastrand::Rng;
use luo_model::Errno;
use nix::errno::Errno as Raw;
use std::fs::File;

/// What all of them have.
#[derive(Clone, Copy)]
pub struct Shared<'a> {
    pub device: &'a Device,
    pub recorder: &'a Recorder,
    pub files: &'a [File],
    pub session: &'a Session,
}

/// A session that only one worker has.
struct Own {
    name: usize,
    session: Session,
    /// Tokens of its files, in order.
    tokens: Vec<u64>,
}

/// A worker: what it has, and what it noted.
pub struct Worker<'a> {
    shared: Shared<'a>,
    own: Vec<Own>,
    max_own: usize,
    seed: u64,
    /// For the command that is its turn.
    rng: Rng,
    notes: Notes,
}

impl<'a> Worker<'a> {
    /// One that will have so many sessions for itself at most.
    pub fn new(shared: Shared<'a>, max_own: usize, seed: u64, notes: Notes) -> Self {
        Self {
            shared,
            own: Vec::new(),
            max_own,
            seed,
            rng: Rng::with_seed(seed),
            notes,
        }
    }

    /// Does those of its commands that have these numbers. Each has a seed of its own, so that another one can be left out.
    pub fn work(&mut self, numbers: &[usize]) -> Result<()> {
        for &number in numbers {
            self.rng = Rng::with_seed(self.seed.wrapping_add(number as u64));
            match self.rng.u8(0..10) {
                0 if self.own.len() < self.max_own => self.create()?,
                1 if !self.own.is_empty() => {
                    let i = self.rng.usize(0..self.own.len());
                    let own = self.own.swap_remove(i);
                    close(&mut self.notes, own);
                }
                2 if self.max_own > 0 => self.list_sessions()?,
                3 => {
                    let callback = ["preserve", "x.preserve", "y.preserve"];
                    let callback = callback[self.rng.usize(0..callback.len())];
                    self.shared.recorder.fail(callback, 1, Raw::EIO)?;
                }
                _ => self.use_one()?,
            }
        }
        Ok(())
    }

    /// Closes what it has, and gives its notes.
    pub fn end(mut self) -> Notes {
        for own in self.own.drain(..) {
            close(&mut self.notes, own);
        }
        self.notes
    }

    fn create(&mut self) -> Result<()> {
        let number = self.rng.usize(1..NAMES);
        let created = self.notes.note(
            one_way(Step::Create(number, Ok(()))),
            || self.shared.device.create_session(&name(number)),
            |result| vec![Step::Create(number, told(result))],
        );
        if let Ok(session) = created {
            let tokens = Vec::new();
            self.own.push(Own {
                name: number,
                session,
                tokens,
            });
        }
        Ok(())
    }

    fn list_sessions(&mut self) -> Result<()> {
        let list = || self.shared.device.list_sessions(0, 2 * NAMES);
        let listed = self.notes.note(vec![], list, |result| match result {
            Ok((entries, _)) => {
                let names = entries.iter().map(|entry| entry.name());
                // One of those that only the test's frame has.
                vec![Step::Sessions(names.filter(|name| name != BUSY).collect())]
            }
            Err(_) => vec![],
        });
        listed.map(drop).context("LIST_SESSIONS")
    }

    /// Does something with a session.
    fn use_one(&mut self) -> Result<()> {
        let Self {
            shared,
            own,
            rng,
            notes,
            ..
        } = self;
        let own = match own.len() {
            0 => None,
            _ if rng.u8(0..3) == 0 => None,
            count => own.get_mut(rng.usize(0..count)),
        };
        let (number, session, mut tokens) = match own {
            Some(own) => (own.name, &own.session, Some(&mut own.tokens)),
            None => (SHARED, shared.session, None),
        };
        let token = rng.u64(0..TOKENS);
        match rng.u8(0..16) {
            0..=4 => {
                let file = rng.usize(0..shared.files.len());
                let step = |result| Step::Preserve(number, token, file, result);
                let failed = vec![Step::Attempt(number, token, file), Step::LetGo(file)];
                let result = notes.note(
                    vec![vec![step(Ok(()))], failed],
                    || session.preserve(&shared.files[file], token),
                    |result| match told(result) {
                        Err(Errno::EIO) => vec![step(Err(Errno::EIO)), Step::LetGo(file)],
                        result => vec![step(result)],
                    },
                );
                if let (Ok(()), Some(tokens)) = (result, &mut tokens) {
                    tokens.push(token);
                }
            }
            5..=7 => {
                let step = |result| Step::Unpreserve(number, token, result);
                let result = notes.note(
                    one_way(step(Ok(()))),
                    || session.unpreserve(token),
                    |result| vec![step(told(result))],
                );
                if let (Ok(()), Some(tokens)) = (result, &mut tokens) {
                    tokens.retain(|&used| used != token);
                }
            }
            8 => {
                let step = |result| Step::Prepare(number, result);
                let prepare = || session.prepare().map_err(|(errno, _)| errno);
                let _ = notes.note(one_way(step(Ok(()))), prepare, |result| {
                    vec![step(told(result))]
                });
            }
            9 | 10 => {
                let step = Step::Cancel(number);
                let cancel = || session.cancel();
                notes.note(one_way(step.clone()), cancel, |_| vec![step])?;
            }
            11 => {
                let ordered = rng.u8(0..3) == 0;
                let step = Step::SetFlags(number, ordered);
                let set = || session.set_flags(ordered.into());
                notes.note(one_way(step.clone()), set, |_| vec![step])?;
            }
            12 => {
                let told = |result: &Result<(u32, u64, u64), Raw>| match result {
                    Ok((state, files, 0)) => vec![Step::State(number, *state, *files)],
                    _ => vec![],
                };
                let (.., retrieved) = notes.note(vec![], || session.state(), told)?;
                ensure!(retrieved == 0);
            }
            13 => {
                let told = |result: &Result<Vec<u64>, Raw>| match result {
                    Ok(tokens) => vec![Step::Fds(number, tokens.clone())],
                    Err(_) => vec![],
                };
                let list = || {
                    let (entries, _) = session.list_fds(0, 2 * TOKENS as usize)?;
                    Ok(entries.iter().map(|entry| entry.token).collect())
                };
                notes.note(vec![], list, told)?;
            }
            14 => {
                // Closing one of several descriptors means nothing.
                let other = Session(session.0.try_clone()?);
                ensure!(other.name()? == name(number));
            }
            _ => {
                refused("RETRIEVE_FD", session.retrieve(token), Raw::EINVAL)?;
                refused("FINISH", session.finish(), Raw::EINVAL)?;
            }
        }
        Ok(())
    }
}

/// What a command was answered.
fn told<T>(result: &Result<T, Raw>) -> Result<(), Errno> {
    done(result.as_ref().map_err(|errno| *errno))
}

/// Of a command that is done as this step, if it is.
fn one_way(step: Step) -> Ways {
    vec![vec![step]]
}

/// Closes a session, file by file.
fn close(notes: &mut Notes, own: Own) {
    let steps = closing(own.name, &own.tokens);
    // Without an answer it is left open, for who finds these notes.
    notes.note(vec![], || drop(own.session), |()| steps);
}

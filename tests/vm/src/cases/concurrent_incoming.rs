// SPDX-License-Identifier: GPL-2.0

//! Several threads that take what the previous kernel handed over, in random order: one session together, and many at
//! once. As in [`super::concurrent`], a sequential model has to explain all that they are told.

use super::common::history::{explain, Log, Model};
use super::common::luo::{Device, Session};
use super::common::modules::{id_of, Kind, Recorder};
use super::common::{data, memfd, refused};
use crate::ctx::Ctx;
use crate::test::{Config, Test};
use anyhow::{ensure, Context, Result};
use fastrand::Rng;
use nix::errno::Errno;
use std::fs::File;
use std::sync::Barrier;

/// The cases.
pub const TESTS: &[Test] = &[Test::new(
    "everything",
    Config::new().look_for_leaks(),
    &[hand_on, everything_at_once],
)];

const SESSIONS: usize = 12;
/// The one that all threads have.
const SHARED: usize = 0;
const THREADS: usize = 3;
const STEPS: usize = 120;
/// A memfd and a file of each kind of the recorder, then a memfd again.
const FILES: u64 = 4;
const SIZE: u64 = 30_000;

fn name(number: usize) -> String {
    format!("session-{number}")
}

fn is_memfd(token: u64) -> bool {
    token % 3 == 0
}

/// What tells a file from all others.
fn seed(session: usize, token: u64) -> u64 {
    session as u64 * FILES + token
}

fn hand_on(ctx: &mut Ctx) -> Result<()> {
    let recorder = Recorder::new(ctx)?;
    let device = Device::open()?;
    for number in 0..SESSIONS {
        let session = device.create_session(&name(number))?;
        for token in 0..FILES {
            let seed = seed(number, token);
            let file = match token {
                1 => recorder.open(Kind::A, seed)?,
                2 => recorder.open(Kind::B, seed)?,
                _ => {
                    let file = memfd::create(SIZE)?;
                    data::fill(&file, seed, data::whole(SIZE))?;
                    file
                }
            };
            session.preserve(&file, token)?;
        }
        ctx.keep(session);
    }
    ctx.keep(recorder);
    Ok(())
}

/// What was asked for, and what was answered.
#[derive(Debug)]
enum Step {
    Take(usize, Result<(), Errno>),
    Retrieve(usize, u64, Result<(), Errno>),
    Finish(usize),
    SetFlags(usize, bool),
    /// Number of files, and of those that were retrieved.
    State(usize, u64, u64),
    /// Tokens, and whether they were retrieved.
    Fds(usize, Vec<(u64, bool)>),
    Sessions(Vec<String>),
    Close(usize),
}

#[derive(Clone, Eq, Hash, PartialEq)]
struct ModelSession {
    taken: bool,
    gone: bool,
    ordered: bool,
    /// Tokens, and whether they were retrieved.
    files: Vec<(u64, bool)>,
}

impl ModelSession {
    fn retrieve(&mut self, token: u64) -> Result<(), Errno> {
        let first = self.files.iter().find(|(_, retrieved)| !retrieved);
        let first = first.map(|(token, _)| *token);
        let ordered = self.ordered;
        let file = self.files.iter_mut().find(|(known, _)| *known == token);
        let (_, retrieved) = file.ok_or(Errno::ENOENT)?;
        if !*retrieved && ordered && first != Some(token) {
            return Err(Errno::EBUSY);
        }
        *retrieved = true;
        Ok(())
    }
}

#[derive(Clone, Eq, Hash, PartialEq)]
struct World(Vec<ModelSession>);

impl Model for World {
    type Step = Step;

    fn take(&mut self, step: &Step) -> bool {
        match *step {
            Step::Take(number, result) => {
                let session = &mut self.0[number];
                let wanted = match (session.gone, session.taken) {
                    (true, _) => Err(Errno::ENOENT),
                    (_, true) => Err(Errno::EINVAL),
                    _ => Ok(()),
                };
                session.taken |= wanted.is_ok();
                wanted == result
            }
            Step::Retrieve(number, token, result) => self.0[number].retrieve(token) == result,
            Step::Finish(number) => {
                self.0[number].files.clear();
                true
            }
            Step::SetFlags(number, ordered) => {
                self.0[number].ordered = ordered;
                true
            }
            Step::State(number, files, retrieved) => {
                let all = &self.0[number].files;
                let taken = all.iter().filter(|(_, retrieved)| *retrieved).count();
                (all.len() as u64, taken as u64) == (files, retrieved)
            }
            Step::Fds(number, ref files) => self.0[number].files == *files,
            Step::Sessions(ref names) => {
                let there = (0..SESSIONS).filter(|&number| !self.0[number].gone);
                there.map(name).eq(names.iter().cloned())
            }
            Step::Close(number) => {
                self.0[number].gone = true;
                true
            }
        }
    }
}

/// Fails unless it is the file that was handed over.
fn check(file: &File, number: usize, token: u64) -> Result<()> {
    let seed = seed(number, token);
    if is_memfd(token) {
        data::check(file, seed, SIZE, &[data::whole(SIZE)])
    } else {
        // Its position is shared by all who have it: only the first one reads it whole.
        let id = id_of(file).unwrap_or(seed);
        ensure!(id == seed, "file {id} instead of {seed}");
        Ok(())
    }
}

/// A thread, its own sessions and what it noted.
struct Worker<'a> {
    device: &'a Device,
    shared: &'a Session,
    own: Vec<(usize, Session)>,
    rng: Rng,
    log: Log<Step>,
}

impl Worker<'_> {
    fn run(mut self) -> Result<Log<Step>> {
        for _ in 0..STEPS {
            match self.rng.u8(0..12) {
                0 | 1 => self.take(),
                2 if !self.own.is_empty() => {
                    let i = self.rng.usize(0..self.own.len());
                    let (number, session) = self.own.swap_remove(i);
                    self.log
                        .note_one(|| drop(session), |()| Step::Close(number));
                }
                3 => self.list_sessions()?,
                _ => self.use_one()?,
            }
        }
        for (number, session) in self.own.drain(..) {
            self.log
                .note_one(|| drop(session), |()| Step::Close(number));
        }
        Ok(self.log)
    }

    fn take(&mut self) {
        let number = self.rng.usize(0..SESSIONS);
        let take = || self.device.retrieve_session(&name(number));
        let taken = self.log.note_one(take, |result| {
            let result = result.as_ref().map(drop).map_err(|errno| *errno);
            Step::Take(number, result)
        });
        if let Ok(session) = taken {
            self.own.push((number, session));
        }
    }

    fn list_sessions(&mut self) -> Result<()> {
        let list = || self.device.list_sessions(0, SESSIONS + 1);
        let told = |result: &Result<(Vec<_>, u64), Errno>| match result {
            Ok((entries, _)) => {
                let names = entries.iter().map(super::common::ext::SessionEntry::name);
                vec![Step::Sessions(names.collect())]
            }
            Err(_) => vec![],
        };
        self.log.note(list, told).map(drop).context("LIST_SESSIONS")
    }

    /// Does something with a session.
    fn use_one(&mut self) -> Result<()> {
        let Self { own, rng, log, .. } = self;
        let (number, session) = match own.len() {
            0 => (SHARED, self.shared),
            _ if rng.u8(0..3) == 0 => (SHARED, self.shared),
            count => {
                let (number, session) = &own[rng.usize(0..count)];
                (*number, session)
            }
        };
        let token = rng.u64(0..FILES + 1);
        match rng.u8(0..24) {
            0..=9 => {
                let retrieved = log.note_one(
                    || session.retrieve(token),
                    |result| {
                        let result = result.as_ref().map(drop).map_err(|errno| *errno);
                        Step::Retrieve(number, token, result)
                    },
                );
                if let Ok(file) = retrieved {
                    check(&file, number, token)?;
                }
            }
            10 => log.note_one(|| session.finish(), |_| Step::Finish(number))?,
            11..=13 => {
                let ordered = rng.u8(0..3) == 0;
                let set = || session.set_flags(ordered.into());
                log.note_one(set, |_| Step::SetFlags(number, ordered))?;
            }
            14..=16 => {
                let told = |result: &Result<(u32, u64, u64), Errno>| match *result {
                    Ok((4, files, retrieved)) => vec![Step::State(number, files, retrieved)],
                    _ => vec![],
                };
                let (state, ..) = log.note(|| session.state(), told)?;
                ensure!(state == 4, "state {state}");
            }
            17..=19 => {
                let list = || session.list_fds(0, FILES as usize + 1);
                let told = |result: &Result<(Vec<_>, u64), Errno>| match result {
                    Ok((entries, _)) => {
                        let files = entries.iter().map(|entry: &super::common::ext::FdEntry| {
                            (entry.token, entry.state == 1)
                        });
                        vec![Step::Fds(number, files.collect())]
                    }
                    Err(_) => vec![],
                };
                log.note(list, told)?;
            }
            20 | 21 => {
                // Closing one of several descriptors means nothing.
                let other = Session(session.0.try_clone()?);
                ensure!(other.name()? == name(number));
            }
            _ => {
                refused("UNPRESERVE_FD", session.unpreserve(token), Errno::EINVAL)?;
                refused("CANCEL", session.cancel(), Errno::EINVAL)?;
                let file = memfd::create(0)?;
                refused("PRESERVE_FD", session.preserve(&file, 9), Errno::EINVAL)?;
            }
        }
        Ok(())
    }
}

fn everything_at_once(ctx: &mut Ctx) -> Result<()> {
    let recorder = Recorder::new(ctx)?;
    let device = Device::open()?;
    run(&device, ctx.seed()).with_context(|| format!("seed {} (LUO_SEED=)", ctx.seed()))?;
    // The rest goes as well, and with it what all files shared.
    for number in 0..SESSIONS {
        drop(device.retrieve_session(&name(number)));
    }
    ensure!(device.list_sessions(0, 0)?.1 == 0);
    refused("FLB x", recorder.value("incoming"), Errno::ENODATA)?;
    recorder.remove()
}

fn run(device: &Device, seed: u64) -> Result<()> {
    let shared = device.retrieve_session(&name(SHARED))?;
    let start = Barrier::new(THREADS);
    let logs = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..THREADS)
            .map(|thread| {
                let worker = Worker {
                    device,
                    shared: &shared,
                    own: Vec::new(),
                    rng: Rng::with_seed(seed ^ (thread as u64) << 56),
                    log: Log::new(),
                };
                let start = &start;
                scope.spawn(move || {
                    start.wait();
                    worker.run()
                })
            })
            .collect();
        let logs = workers
            .into_iter()
            .map(|worker| worker.join().expect("no panic"));
        logs.collect::<Result<Vec<_>>>()
    })?;
    let session = ModelSession {
        taken: false,
        gone: false,
        ordered: false,
        files: (0..FILES).map(|token| (token, false)).collect(),
    };
    let mut world = World(vec![session; SESSIONS]);
    world.0[SHARED].taken = true;
    explain(world, &logs)
}

// SPDX-License-Identifier: GPL-2.0

//! Several threads that do everything in random order: to one session, to many, and while a kexec fails again and again.
//! All that they are told must be explained by a sequential model, and the end must be what it says.

use super::common::history::{explain, Log, Model};
use super::common::luo::{Device, Session};
use super::common::modules::{Inserted, Kind, Recorder};
use super::common::{memfd, refused};
use crate::ctx::Ctx;
use crate::kexec;
use crate::test::{Config, Test};
use anyhow::{ensure, Context, Result};
use fastrand::Rng;
use nix::errno::Errno;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::Barrier;

/// The cases.
pub const TESTS: &[Test] = &[
    Test::new("one_session", Config::new(), &[one_session]),
    Test::new("many_sessions", Config::new(), &[many_sessions]),
    Test::new("failing_kexec", Config::new(), &[failing_kexec]),
];

/// The session that all threads have; its name is number 0.
const SHARED: usize = 0;
/// Names for the others: few, so that they are fought for.
const NAMES: usize = 5;
/// Tokens, few for the same reason.
const TOKENS: u64 = 5;

fn name(number: usize) -> String {
    format!("session-{number}")
}

/// What was asked for, and what was answered.
#[derive(Debug)]
enum Step {
    Create(usize, Result<(), Errno>),
    Preserve(usize, u64, usize, Result<(), Errno>),
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
struct World {
    sessions: Vec<ModelSession>,
    /// Files that handlers are failing to preserve.
    failing: Vec<usize>,
    /// Whether a kexec may be under way at any moment.
    kexec: bool,
}

impl World {
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
                let possible = self.clone().preserve(name, token, file)?.is_ok();
                self.failing.push(file);
                is_recorded(file) && possible
            }
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

const MEMFDS: usize = 3;
const RECORDED: usize = 4;

/// Whether it is one of the recorder's.
fn is_recorded(file: usize) -> bool {
    file >= MEMFDS
}

fn files(recorder: &Recorder) -> Result<Vec<File>> {
    let mut files = Vec::new();
    for i in 0..MEMFDS {
        files.push(memfd::create(10_000 * i as u64)?);
    }
    for i in 0..RECORDED {
        let kind = if i % 2 == 0 { Kind::A } else { Kind::B };
        files.push(recorder.open(kind, i as u64)?);
    }
    Ok(files)
}

/// What all threads have.
struct Shared<'a> {
    device: &'a Device,
    recorder: &'a Recorder,
    files: Vec<File>,
    session: Session,
}

/// A session that only one thread has.
struct Own {
    name: usize,
    session: Session,
    /// Tokens of its files, in order.
    tokens: Vec<u64>,
}

/// A thread: what it has, and what it noted.
struct Worker<'a> {
    shared: &'a Shared<'a>,
    own: Vec<Own>,
    max_own: usize,
    rng: Rng,
    log: Log<Step>,
}

impl Worker<'_> {
    fn run(mut self, steps: usize) -> Result<Log<Step>> {
        for _ in 0..steps {
            match self.rng.u8(0..10) {
                0 if self.own.len() < self.max_own => self.create()?,
                1 if !self.own.is_empty() => {
                    let i = self.rng.usize(0..self.own.len());
                    let own = self.own.swap_remove(i);
                    close(&mut self.log, own);
                }
                2 if self.max_own > 0 => self.list_sessions()?,
                3 => {
                    let callback = ["preserve", "x.preserve", "y.preserve"];
                    let callback = callback[self.rng.usize(0..callback.len())];
                    self.shared.recorder.fail(callback, 1, Errno::EIO)?;
                }
                _ => self.use_one()?,
            }
        }
        for own in self.own.drain(..) {
            close(&mut self.log, own);
        }
        Ok(self.log)
    }

    fn create(&mut self) -> Result<()> {
        let number = self.rng.usize(1..NAMES);
        let created = self.log.note_one(
            || self.shared.device.create_session(&name(number)),
            |result| Step::Create(number, result.as_ref().map(drop).map_err(|errno| *errno)),
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
        let listed = self.log.note(list, |result| match result {
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
            log,
            ..
        } = self;
        let own = match own.len() {
            0 => None,
            _ if rng.u8(0..3) == 0 => None,
            count => own.get_mut(rng.usize(0..count)),
        };
        let (number, session, mut tokens) = match own {
            Some(own) => (own.name, &own.session, Some(&mut own.tokens)),
            None => (SHARED, &shared.session, None),
        };
        let token = rng.u64(0..TOKENS);
        match rng.u8(0..16) {
            0..=4 => {
                let file = rng.usize(0..shared.files.len());
                let told = |result: &Result<(), Errno>| {
                    let step = Step::Preserve(number, token, file, *result);
                    match result {
                        Err(Errno::EIO) => vec![step, Step::LetGo(file)],
                        _ => vec![step],
                    }
                };
                let result = log.note(|| session.preserve(&shared.files[file], token), told);
                if let (Ok(()), Some(tokens)) = (result, &mut tokens) {
                    tokens.push(token);
                }
            }
            5..=7 => {
                let result = log.note_one(
                    || session.unpreserve(token),
                    |result| Step::Unpreserve(number, token, *result),
                );
                if let (Ok(()), Some(tokens)) = (result, &mut tokens) {
                    tokens.retain(|&used| used != token);
                }
            }
            8 => {
                let prepare = || session.prepare().map_err(|(errno, _)| errno);
                let _ = log.note_one(prepare, |result| Step::Prepare(number, *result));
            }
            9 | 10 => log.note_one(|| session.cancel(), |_| Step::Cancel(number))?,
            11 => {
                let ordered = rng.u8(0..3) == 0;
                let set = || session.set_flags(ordered.into());
                log.note_one(set, |_| Step::SetFlags(number, ordered))?;
            }
            12 => {
                let told = |result: &Result<(u32, u64, u64), Errno>| match result {
                    Ok((state, files, 0)) => vec![Step::State(number, *state, *files)],
                    _ => vec![],
                };
                let (.., retrieved) = log.note(|| session.state(), told)?;
                ensure!(retrieved == 0);
            }
            13 => {
                let told = |result: &Result<Vec<u64>, Errno>| match result {
                    Ok(tokens) => vec![Step::Fds(number, tokens.clone())],
                    Err(_) => vec![],
                };
                let list = || {
                    let (entries, _) = session.list_fds(0, 2 * TOKENS as usize)?;
                    Ok(entries.iter().map(|entry| entry.token).collect())
                };
                log.note(list, told)?;
            }
            14 => {
                // Closing one of several descriptors means nothing.
                let other = Session(session.0.try_clone()?);
                ensure!(other.name()? == name(number));
            }
            _ => {
                refused("RETRIEVE_FD", session.retrieve(token), Errno::EINVAL)?;
                refused("FINISH", session.finish(), Errno::EINVAL)?;
            }
        }
        Ok(())
    }
}

/// Closes a session, file by file.
fn close(log: &mut Log<Step>, own: Own) {
    let Own {
        name,
        session,
        tokens,
    } = own;
    let pops = tokens.into_iter().rev();
    let steps = pops.map(|token| Step::Pop(name, token));
    let steps: Vec<_> = steps.chain([Step::Remove(name)]).collect();
    log.note(|| drop(session), |()| steps);
}

/// What a case is about.
struct Plan {
    threads: usize,
    /// Most sessions that a thread has for itself.
    own: usize,
    rounds: u64,
    steps: usize,
}

/// The name of the session whose file refuses every kexec.
const BUSY: &str = "busy";

fn run(ctx: &mut Ctx, plan: &Plan, with_kexec: bool) -> Result<()> {
    let recorder = Recorder::new(ctx)?;
    let device = Device::open()?;
    for round in 0..plan.rounds {
        let seed = ctx.seed().wrapping_add(round);
        one_round(&device, &recorder, plan, seed, with_kexec)
            .with_context(|| format!("seed {}, round {round} (LUO_SEED=)", ctx.seed()))?;
        recorder.nothing_left()?;
    }
    recorder.remove()
}

fn one_round(
    device: &Device,
    recorder: &Recorder,
    plan: &Plan,
    seed: u64,
    with_kexec: bool,
) -> Result<()> {
    let shared = Shared {
        device,
        recorder,
        files: files(recorder)?,
        session: device.create_session(&name(SHARED))?,
    };
    // Behind the shared one, which is therefore frozen before it.
    let busy = with_kexec.then(|| Busy::new(device)).transpose()?;
    let start = Barrier::new(plan.threads);
    let done = AtomicBool::new(false);
    let (logs, refusals) = std::thread::scope(|scope| {
        let kexec = with_kexec.then(|| scope.spawn(|| refuse_kexec(&done)));
        let workers: Vec<_> = (0..plan.threads)
            .map(|thread| {
                let worker = Worker {
                    shared: &shared,
                    own: Vec::new(),
                    max_own: plan.own,
                    rng: Rng::with_seed(seed ^ (thread as u64) << 56),
                    log: Log::new(),
                };
                let start = &start;
                scope.spawn(move || {
                    start.wait();
                    worker.run(plan.steps)
                })
            })
            .collect();
        let logs: Vec<_> = workers
            .into_iter()
            .map(|worker| worker.join().expect("no panic"))
            .collect();
        done.store(true, Relaxed);
        (logs, kexec.map(|kexec| kexec.join().expect("no panic")))
    });
    let mut logs = logs.into_iter().collect::<Result<Vec<_>>>()?;
    if let Some(refusals) = refusals {
        ensure!(refusals? > 2, "hardly any kexec was tried");
    }
    drop(busy);

    // The end is part of the history.
    let mut end = Log::new();
    let session = &shared.session;
    let prepare = || session.prepare().map_err(|(errno, _)| errno);
    end.note_one(prepare, |result| Step::Prepare(SHARED, *result))?;
    end.note_one(|| session.cancel(), |_| Step::Cancel(SHARED))?;
    let tokens = session.tokens()?;
    end.note_one(|| (), |()| Step::Fds(SHARED, tokens.clone()));
    let (state, files, _) = session.state()?;
    end.note_one(|| (), |()| Step::State(SHARED, state, files));
    let (entries, _) = device.list_sessions(0, 2 * NAMES)?;
    let names = entries.iter().map(|entry| entry.name()).collect();
    end.note_one(|| (), |()| Step::Sessions(names));
    logs.push(end);
    let start = World {
        sessions: vec![ModelSession {
            name: SHARED,
            prepared: false,
            ordered: false,
            files: vec![],
        }],
        failing: vec![],
        kexec: with_kexec,
    };
    explain(start, &logs)?;

    recorder.fail("nothing", 0, Errno::EIO)?;
    recorder.take()?;
    let Shared { files, session, .. } = shared;
    drop(session);
    for file in &files[..MEMFDS] {
        memfd::truncate(file, 1 << 20).context("a memfd that no session has")?;
    }
    Ok(())
}

/// A session of its own with a file that refuses every kexec.
struct Busy {
    _session: Session,
    _file: File,
    _module: Inserted,
}

impl Busy {
    fn new(device: &Device) -> Result<Self> {
        let module = Inserted::again("luo_sample_rust")?;
        let path = "/dev/luo-sample-rust";
        let mut file = OpenOptions::new().read(true).write(true).open(path)?;
        file.write_all(b"busy")?;
        let session = device.create_session(BUSY)?;
        session.preserve(&file, 1)?;
        Ok(Self {
            _session: session,
            _file: file,
            _module: module,
        })
    }
}

/// Tries to leave this kernel until it is told to stop.
fn refuse_kexec(done: &AtomicBool) -> Result<usize> {
    let mut tries = 0;
    while !done.load(Relaxed) {
        let errno = kexec::execute();
        ensure!(errno == Errno::EBUSY, "reboot() says {errno:?}");
        tries += 1;
    }
    Ok(tries)
}

fn one_session(ctx: &mut Ctx) -> Result<()> {
    let plan = Plan {
        threads: 2,
        own: 0,
        rounds: 10,
        steps: 150,
    };
    run(ctx, &plan, false)
}

fn many_sessions(ctx: &mut Ctx) -> Result<()> {
    let plan = Plan {
        threads: 3,
        own: 2,
        rounds: 10,
        steps: 120,
    };
    run(ctx, &plan, false)
}

fn failing_kexec(ctx: &mut Ctx) -> Result<()> {
    ctx.kexec_load()?;
    let plan = Plan {
        threads: 2,
        own: 1,
        rounds: 4,
        steps: 80,
    };
    run(ctx, &plan, true)?;
    kexec::unload()
}

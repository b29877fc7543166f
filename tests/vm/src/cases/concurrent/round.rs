// SPDX-License-Identifier: GPL-2.0

//! One round: a session that all workers have, and what they do at the same time.

use super::busy::{refuse_kexec, Busy};
use super::member::{Done, Member};
use super::notes::Notes;
use super::worker::{Shared, Worker};
use super::world::{name, Step, World, MEMFDS, NAMES, RECORDED, SHARED};
use super::{Plan, Sum};
use crate::cases::common::history::{explain_one, Log};
use crate::cases::common::luo::{Device, Session};
use crate::cases::common::memfd;
use crate::cases::common::modules::{Kind, Recorder};
use anyhow::{ensure, Context, Result};
use fastrand::Rng;
use nix::errno::Errno;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::Barrier;

/// A command: whose, and which of its commands. What it does follows from that, from the round's seed, and from what the
/// worker has by then.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Turn {
    worker: usize,
    number: usize,
}

/// What is done in a round.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Round {
    case: String,
    seed: u64,
    pub(super) turns: Vec<Turn>,
}

impl Round {
    /// All that a case does in one, in about the order in which that will be.
    pub(super) fn whole(plan: &Plan, seed: u64) -> Self {
        let workers = plan.threads + plan.processes;
        let turns = (0..plan.steps)
            .flat_map(|number| (0..workers).map(move |worker| Turn { worker, number }));
        Self {
            case: plan.name.into(),
            seed,
            turns: turns.collect(),
        }
    }

    /// The same round with nothing but these commands.
    pub(super) fn with(&self, turns: Vec<Turn>) -> Self {
        Self {
            turns,
            ..self.clone()
        }
    }

    pub(super) fn is_of(&self, plan: &Plan) -> bool {
        self.case == plan.name
    }

    /// Which of its commands a worker does.
    fn numbers(&self, worker: usize) -> Vec<usize> {
        let own = self.turns.iter().filter(|turn| turn.worker == worker);
        own.map(|turn| turn.number).collect()
    }

    fn seed_of(&self, worker: usize) -> u64 {
        self.seed ^ (worker as u64) << 56
    }
}

/// What there is when no round takes place.
#[derive(Debug, Eq, PartialEq)]
struct Left {
    sessions: u64,
    /// Pages that the recorder's files preserve.
    recorded: usize,
    /// What KHO keeps for the next kernel, where it tells: number, and pages.
    kept: Option<(u64, u64)>,
}

/// Where rounds take place.
pub struct Frame<'a> {
    pub device: &'a Device,
    pub recorder: &'a Recorder,
    pub(super) plan: &'a Plan,
}

impl Frame<'_> {
    /// Fails unless a round can be explained, and leaves nothing behind.
    pub(super) fn run(&self, round: &Round, sum: &mut Sum) -> Result<()> {
        self.recorder.fail("nothing", 0, Errno::EIO)?;
        let before = self.left()?;
        self.act(round, sum)?;
        self.recorder.take()?;
        let after = self.left()?;
        ensure!(before == after, "before it {before:?}, and now {after:?}");
        Ok(())
    }

    /// Whether there is no session that a round may find in its way.
    pub(super) fn is_clear(&self) -> Result<bool> {
        Ok(self.device.list_sessions(0, 0)?.1 == 0)
    }

    fn left(&self) -> Result<Left> {
        Ok(Left {
            sessions: self.device.list_sessions(0, 0)?.1,
            recorded: self.recorder.live()?,
            kept: self.recorder.kept()?,
        })
    }

    fn act(&self, round: &Round, sum: &mut Sum) -> Result<()> {
        let Self {
            device,
            recorder,
            plan,
        } = *self;
        let files = files(recorder)?;
        let members = (plan.threads..plan.threads + plan.processes).map(|worker| {
            let seed = round.seed_of(worker);
            let numbers = round.numbers(worker);
            Member::new(device, recorder, &files, plan, seed, &numbers)
        });
        let members = members.collect::<Result<Vec<_>>>()?;
        let session = device.create_session(&name(SHARED))?;
        let shared = Shared {
            device,
            recorder,
            files: &files,
            session: &session,
        };
        let busy = plan.kexec.then(|| Busy::new(device)).transpose()?;
        let start = Barrier::new(plan.threads + 1);
        let over = AtomicBool::new(false);
        let (notes, done, refusals) = std::thread::scope(|scope| {
            let kexec = plan.kexec.then(|| scope.spawn(|| refuse_kexec(&over)));
            let workers: Vec<_> = (0..plan.threads)
                .map(|thread| {
                    let seed = round.seed_of(thread);
                    let numbers = round.numbers(thread);
                    let mut worker = Worker::new(shared, plan.own, seed, Notes::here());
                    let start = &start;
                    scope.spawn(move || {
                        start.wait();
                        worker.work(&numbers).map(|()| worker.end())
                    })
                })
                .collect();
            start.wait();
            let done = let_work(members, &session, round.seed);
            let notes: Vec<_> = workers
                .into_iter()
                .map(|worker| worker.join().expect("no panic"))
                .collect();
            over.store(true, Relaxed);
            let refusals = kexec.map(|kexec| kexec.join().expect("no panic"));
            (notes, done, refusals)
        });
        let notes = notes.into_iter().collect::<Result<Vec<_>>>()?;
        let done = done?;
        sum.kexecs += refusals.transpose()?.unwrap_or(0);
        drop(busy);

        let mut logs = vec![end(device, &session)?];
        for notes in notes {
            let (log, commands) = notes.into_log();
            logs.push(log);
            sum.commands += commands;
        }
        let mut histories = vec![logs];
        for done in done {
            sum.commands += done.commands;
            sum.kills += u64::from(done.killed);
            sum.amid += u64::from(done.killed && done.amid);
            let with = |history: &Vec<Log<Step>>| {
                let happened = done.happened.iter();
                happened
                    .map(|logs| [&history[..], logs].concat())
                    .collect::<Vec<_>>()
            };
            histories = histories.iter().flat_map(with).collect();
        }
        explain_one(&World::new(plan.kexec), &histories)?;

        drop(session);
        for file in &files[..MEMFDS] {
            memfd::truncate(file, 1 << 20).context("a memfd that no session has")?;
        }
        Ok(())
    }
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

/// Lets the processes work. In every other round, one of them is killed at some moment.
fn let_work(members: Vec<Member>, session: &Session, seed: u64) -> Result<Vec<Done>> {
    for member in &members {
        member.give(session)?;
    }
    let mut rng = Rng::with_seed(!seed);
    let victim = rng.bool().then(|| rng.usize(0..members.len()));
    let (victims, others): (Vec<_>, Vec<_>) = members
        .into_iter()
        .enumerate()
        .partition(|(number, _)| Some(*number) == victim);
    let killed = victims.into_iter().map(|(_, it)| it.kill());
    let ended = others.into_iter().map(|(_, it)| it.end());
    killed.chain(ended).collect()
}

/// The end is part of the history.
fn end(device: &Device, session: &Session) -> Result<Log<Step>> {
    let mut end = Log::new();
    let prepare = || session.prepare().map_err(|(errno, _)| errno);
    end.note_one(prepare, |_| Step::Prepare(SHARED, Ok(())))?;
    end.note_one(|| session.cancel(), |_| Step::Cancel(SHARED))?;
    let tokens = session.tokens()?;
    end.note_one(|| (), |()| Step::Fds(SHARED, tokens));
    let (state, files, _) = session.state()?;
    end.note_one(|| (), |()| Step::State(SHARED, state, files));
    let (entries, _) = device.list_sessions(0, 2 * NAMES)?;
    let names = entries.iter().map(|entry| entry.name()).collect();
    end.note_one(|| (), |()| Step::Sessions(names));
    Ok(end)
}

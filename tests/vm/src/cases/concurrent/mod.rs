// SPDX-License-Identifier: GPL-2.0

//! Several threads and processes that do everything in random order: to one session that all of them have, to many, and
//! while a kexec fails again and again. All that they are told must be explained by a sequential model, and the end must
//! be what it says; so must what a process did that was killed in the midst of it. `make model N=` says how much.

mod member;
mod notes;
mod worker;
mod world;

use super::common::history::{explain_one, Log};
use super::common::luo::{Device, Session};
use super::common::memfd;
use super::common::modules::{Inserted, Kind, Recorder};
use super::model::commands;
use crate::ctx::Ctx;
use crate::kexec;
use crate::test::{Config, Test};
use anyhow::{ensure, Context, Result};
use fastrand::Rng;
use member::{Done, Member};
use nix::errno::Errno;
use notes::Notes;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::Barrier;
use std::time::Duration;
use worker::{Shared, Worker};
use world::{name, Step, World, MEMFDS, NAMES, RECORDED, SHARED};

/// The cases.
pub const TESTS: &[Test] = &[
    Test::new("one_session", CONFIG, &[one_session]),
    Test::new("many_sessions", CONFIG, &[many_sessions]),
    Test::new("failing_kexec", CONFIG, &[failing_kexec]),
];

/// As long as a million commands take.
const CONFIG: Config = Config::new().timeout_s(1200);
/// Longer than a round takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a case is about.
struct Plan {
    threads: usize,
    processes: usize,
    /// Most sessions that a worker has for itself.
    own: usize,
    /// What a worker does in a round.
    steps: usize,
    /// Of so many commands that there are to be in all, one is of this case.
    share: u64,
    /// Whether a kexec fails all the time.
    kexec: bool,
}

/// What was done so far.
#[derive(Default)]
struct Sum {
    rounds: u64,
    commands: u64,
    kills: u64,
    /// In the midst of a command.
    amid: u64,
}

/// The name of the session whose file refuses every kexec.
const BUSY: &str = "busy";

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

fn run(ctx: &mut Ctx, plan: &Plan) -> Result<()> {
    let recorder = Recorder::new(ctx)?;
    let device = Device::open()?;
    let mut sum = Sum::default();
    while sum.commands < commands(ctx) / plan.share {
        let seed = ctx.seed().wrapping_add(sum.rounds);
        one_round(&device, &recorder, plan, seed, &mut sum).with_context(|| {
            let round = sum.rounds;
            format!("round {round}, with which this begins: make model SEED={seed}")
        })?;
        recorder.nothing_left()?;
        sum.rounds += 1;
    }
    ctx.figure(&format!(
        "{} commands of {} threads and {} processes at a time, in {} rounds, with {} kills, {} of them amid a command",
        sum.commands, plan.threads, plan.processes, sum.rounds, sum.kills, sum.amid
    ));
    recorder.remove()
}

fn one_round(
    device: &Device,
    recorder: &Recorder,
    plan: &Plan,
    seed: u64,
    sum: &mut Sum,
) -> Result<()> {
    let files = files(recorder)?;
    let seed_of = |worker: usize| seed ^ (worker as u64) << 56;
    let members = (0..plan.processes).map(|process| {
        let seed = seed_of(plan.threads + process);
        Member::new(device, recorder, &files, plan, seed)
    });
    let members = members.collect::<Result<Vec<_>>>()?;
    let session = device.create_session(&name(SHARED))?;
    let shared = Shared {
        device,
        recorder,
        files: &files,
        session: &session,
    };
    // Behind the shared one, which is therefore frozen before it.
    let busy = plan.kexec.then(|| Busy::new(device)).transpose()?;
    let start = Barrier::new(plan.threads + 1);
    let over = AtomicBool::new(false);
    let (notes, done, refusals) = std::thread::scope(|scope| {
        let kexec = plan.kexec.then(|| scope.spawn(|| refuse_kexec(&over)));
        let workers: Vec<_> = (0..plan.threads)
            .map(|thread| {
                let mut worker = Worker::new(shared, plan.own, seed_of(thread), Notes::here());
                let start = &start;
                scope.spawn(move || {
                    start.wait();
                    worker.work(plan.steps).map(|()| worker.end())
                })
            })
            .collect();
        start.wait();
        let done = let_work(members, &session, seed);
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
    if let Some(refusals) = refusals {
        ensure!(refusals? > 2, "hardly any kexec was tried");
    }
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

    recorder.fail("nothing", 0, Errno::EIO)?;
    recorder.take()?;
    drop(session);
    for file in &files[..MEMFDS] {
        memfd::truncate(file, 1 << 20).context("a memfd that no session has")?;
    }
    Ok(())
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
        processes: 1,
        own: 0,
        steps: 100,
        share: 5,
        kexec: false,
    };
    run(ctx, &plan)
}

fn many_sessions(ctx: &mut Ctx) -> Result<()> {
    let plan = Plan {
        threads: 1,
        processes: 2,
        own: 2,
        steps: 120,
        share: 4,
        kexec: false,
    };
    run(ctx, &plan)
}

fn failing_kexec(ctx: &mut Ctx) -> Result<()> {
    ctx.kexec_load()?;
    let plan = Plan {
        threads: 1,
        processes: 1,
        own: 1,
        steps: 80,
        share: 20,
        kexec: true,
    };
    run(ctx, &plan)?;
    kexec::unload()
}

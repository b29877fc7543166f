// SPDX-License-Identifier: GPL-2.0

//! Threads do what they like to a memfd, at random, under memory pressure: what arrives is exactly what their journal says,
//! and so is what is left while it is being retrieved and finished.

mod thread;

use super::common::journal::{Journaled, Random, PER_PAGE};
use super::common::luo::Device;
use super::common::memfd;
use super::common::pages::PAGE;
use super::common::seen::{self, data_ranges};
use super::common::{only_ours, refused};
use crate::ctx::Ctx;
use crate::kexec;
use crate::pressure::{Pressure, KILLED};
use crate::procfs;
use crate::test::{Config, Test};
use anyhow::{bail, ensure, Context, Result};
use nix::errno::Errno;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::Mutex;
use std::time::{Duration, Instant};
use thread::Thread;

/// The cases.
pub const TESTS: &[Test] = &[
    // Finished late, and then early.
    Test::new("random", CONFIG, &[begin, go_on, end]),
    Test::new("random_in_v2", CONFIG.params("memfd_v2=1"), &[begin, end]),
    Test::new("random_in_folios", CONFIG, &[begin_in_folios, end]),
];

/// Little, but wherever KASLR puts the kernel, KHO must find 320 MiB in one piece beside it for its scratch
/// area, which in 768 MiB it once did not.
const CONFIG: Config = Config::new()
    .memory_mib(832)
    .swap_mib(256)
    .timeout_s(1200)
    .allow_log(&[KILLED]);

const THREADS: usize = 4;
/// Pages of which each thread has some for itself.
const OWN: Range<usize> = 0..12_000;
/// Pages in which each thread has blocks. They are never holes, since none may punch them.
const SHARED: Range<usize> = 12_000..14_000;
/// Pages of the thread that changes the file's size.
const TAIL: Range<usize> = 14_000..16_000;
const PAGES: usize = TAIL.end;
/// How much is done between two events; a tenth of it where that takes [`LONG`], as it does on kernels that look for
/// faults.
const STEPS: u64 = 400;
const LONG: Duration = Duration::from_secs(10);
/// When all wait for memory longer than this, they get some.
const STUCK: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_secs(200);
const TOKENS: [u64; 2] = [7, 8];

/// What the threads may do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Phase {
    /// Everything.
    Free,
    /// Everything; holes are punched in vain, and the size cannot be changed.
    Preserved,
    /// As before, but nothing is written where there may be a hole: what fills one now comes too late for the kexec.
    Paused,
    /// Nothing more.
    Over,
}

const PHASES: [Phase; 4] = [Phase::Free, Phase::Preserved, Phase::Paused, Phase::Over];

/// What a thread has seen that has failed.
const FAILED: usize = usize::MAX;

/// What threads and main thread tell each other.
struct Shared {
    model: Journaled,
    phase: AtomicUsize,
    /// How much each thread has done, and in which phase.
    done: [AtomicU64; THREADS],
    seen: [AtomicUsize; THREADS],
    /// Held while the file has another size.
    resized: Mutex<()>,
    /// How many pages the kernel has reclaimed since the threads began.
    reclaimed: AtomicU64,
    /// Since when the main thread is in a call.
    call: Mutex<Option<Instant>>,
    /// How often the process that takes memory was killed.
    kills: AtomicUsize,
}

impl Shared {
    fn new(model: Journaled) -> Self {
        Self {
            model,
            phase: AtomicUsize::new(0),
            done: Default::default(),
            seen: Default::default(),
            resized: Mutex::new(()),
            reclaimed: AtomicU64::new(0),
            call: Mutex::new(None),
            kills: AtomicUsize::new(0),
        }
    }

    /// Lets the threads go on until each has done so much more.
    fn work(&self, ctx: &Ctx, steps: u64) -> Result<()> {
        let begun = Instant::now();
        let start: Vec<_> = self.done.iter().map(|n| n.load(Ordering::SeqCst)).collect();
        let mut alive = true;
        ctx.wait_for("the threads' work", PATIENCE, || {
            alive = self
                .seen
                .iter()
                .all(|seen| seen.load(Ordering::SeqCst) != FAILED);
            let steps = if begun.elapsed() < LONG {
                steps
            } else {
                steps / 10
            };
            let enough = |(n, start): (&AtomicU64, &u64)| n.load(Ordering::SeqCst) >= start + steps;
            !alive || self.done.iter().zip(&start).all(enough)
        })?;
        ensure!(alive, "a thread has failed");
        Ok(())
    }

    /// How much all threads have done.
    fn total(&self) -> u64 {
        self.done.iter().map(|n| n.load(Ordering::SeqCst)).sum()
    }

    /// Fails unless the threads did something during `call`, too.
    fn beside<T>(&self, what: &str, call: impl FnOnce() -> Result<T>) -> Result<T> {
        let before = self.total();
        *self.call.lock().expect("nobody panics") = Some(Instant::now());
        let done = call();
        *self.call.lock().expect("nobody panics") = None;
        let done = done?;
        let steps = self.total() - before;
        ensure!(steps > 0, "the threads did nothing during {what}");
        Ok(done)
    }

    /// Waits until the kernel has reclaimed memory since it had reclaimed `before` pages.
    fn be_pressed(&self, ctx: &Ctx, what: &str, before: u64) -> Result<()> {
        let reclaimed = || self.reclaimed.load(Ordering::SeqCst) - before;
        ctx.wait_for("reclaim", PATIENCE, || reclaimed() > 0)?;
        ctx.figure(&format!(
            "{what}: {} pages reclaimed, {} times what takes memory was killed",
            reclaimed(),
            self.kills.load(Ordering::SeqCst)
        ));
        Ok(())
    }

    /// Begins a phase, and returns when no thread does anything of the one before.
    fn enter(&self, ctx: &Ctx, phase: Phase) -> Result<()> {
        let number = PHASES
            .iter()
            .position(|&p| p == phase)
            .context("no such phase")?;
        self.phase.store(number, Ordering::SeqCst);
        let mut alive = true;
        ctx.wait_for("the threads' pause", PATIENCE, || {
            let seen = || self.seen.iter().map(|seen| seen.load(Ordering::SeqCst));
            alive = seen().all(|seen| seen != FAILED);
            !alive || seen().all(|seen| seen == number)
        })?;
        ensure!(alive, "a thread has failed");
        Ok(())
    }
}

/// Keeps memory short.
fn press(shared: &Shared, mut pressure: Pressure) -> Result<()> {
    loop {
        // Some at a time, between which the others do some work: the kernel is to reclaim, and not to do nothing else.
        let (start, since) = (shared.total(), Instant::now());
        // The call waits for memory, and it is the others who get it.
        let calls = || {
            let call = shared.call.lock().expect("nobody panics");
            call.is_some_and(|since| since.elapsed() > STUCK)
        };
        let stuck = || since.elapsed() > STUCK || calls();
        while shared.total() < start + 200 && !stuck() {
            if PHASES[shared.phase.load(Ordering::SeqCst)] == Phase::Over {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        match stuck() {
            true => pressure.relieve()?,
            false => pressure.step()?,
        }
        shared
            .reclaimed
            .store(pressure.reclaimed()?, Ordering::SeqCst);
        shared.kills.store(pressure.kills(), Ordering::SeqCst);
    }
}

/// Runs the threads beside `main`.
fn with_threads(
    shared: &Shared,
    (seed, salt): (u64, u64),
    main: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let pressure = Pressure::new()?;
    shared.reclaimed.store(0, Ordering::SeqCst);
    std::thread::scope(|scope| {
        let pressing = scope.spawn(move || press(shared, pressure));
        let threads: Vec<_> = (0..THREADS)
            .map(|number| {
                let random = Random::new(seed ^ salt ^ (number as u64 + 1) << 40);
                let thread = Thread {
                    shared,
                    number,
                    random,
                };
                scope.spawn(move || thread.run().with_context(|| format!("thread {number}")))
            })
            .collect();
        let result = main();
        shared.phase.store(PHASES.len() - 1, Ordering::SeqCst);
        for thread in threads {
            thread.join().expect("threads do not panic")?;
        }
        pressing.join().expect("threads do not panic")?;
        result
    })
    .with_context(|| format!("LUO_SEED={seed}"))
}

/// In folios of 64 KiB, as far as memory is to be had for them.
fn begin_in_folios(ctx: &mut Ctx) -> Result<()> {
    memfd::allow_folios(64, "always")?;
    begin_and(ctx, || {
        let made = memfd::folios_made(64)?;
        ensure!(made > 50, "{made} folios are too few to prove anything");
        Ok(())
    })
}

fn begin(ctx: &mut Ctx) -> Result<()> {
    begin_and(ctx, || Ok(()))
}

/// With a look at how it went, before the kexec.
fn begin_and(ctx: &mut Ctx, look: impl FnOnce() -> Result<()>) -> Result<()> {
    only_ours(ctx, "it fills holes")?;
    let seed = ctx.seed();
    ctx.set("seed", seed);
    // While there is memory for it.
    ctx.kexec_load()?;
    let model = Journaled::create(PAGES, seed)?;
    // What has blocks of several threads is never empty.
    let shared = SHARED.start * PER_PAGE..SHARED.end * PER_PAGE;
    for first in shared.step_by(PER_PAGE) {
        model.write(first..first + PER_PAGE, first % 2 == 0)?;
    }
    let shared = Shared::new(model);
    with_threads(&shared, (seed, 0), || {
        shared.work(ctx, STEPS)?;
        look()?;
        preserve_and_jump(ctx, &shared)
    })
}

/// PRESERVE_FD of the file in use, with its journal; then on until the kexec, and into it.
fn preserve_and_jump(ctx: &mut Ctx, shared: &Shared) -> Result<()> {
    let swapped = || procfs::number_in("/proc/self/smaps_rollup", "Swap:");
    ctx.wait_for("some MiB in swap", PATIENCE, || {
        swapped().is_ok_and(|kib| kib > 1024)
    })?;
    let session = Device::open()?.create_session("model")?;
    session.preserve(&shared.model.journal, TOKENS[1])?;
    let reclaimed = shared.reclaimed.load(Ordering::SeqCst);
    {
        let _whole = shared.resized.lock().expect("nobody panics");
        // The new phase begins when it is done: in it no hole may be punched.
        shared.beside("PRESERVE_FD", || {
            Ok(session.preserve(&shared.model.file, TOKENS[0])?)
        })?;
    }
    shared.enter(ctx, Phase::Preserved)?;
    shared.work(ctx, STEPS)?;
    shared.be_pressed(ctx, "preserved", reclaimed)?;
    shared.beside("PREPARE", || match session.prepare() {
        Ok(()) => Ok(()),
        Err((errno, _)) => bail!("PREPARE: {errno}"),
    })?;
    shared.work(ctx, STEPS / 2)?;
    refused(
        "punching",
        memfd::punch(&shared.model.file, 0, 1),
        Errno::EPERM,
    )?;
    shared.enter(ctx, Phase::Paused)?;
    ctx.jump(|| Err(kexec::execute().into()))
}

/// When FINISH runs while threads use what was retrieved.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Finish {
    /// As soon as they do: nearly all pages are yet to be adopted then.
    Early,
    /// When they have done much.
    Late,
}

/// Takes it back while threads use it.
fn arrive(ctx: &mut Ctx, finish: Finish) -> Result<(Shared, u64)> {
    let seed: u64 = ctx.get("seed")?.parse()?;
    let device = Device::open()?;
    let session = device.retrieve_session("model")?;
    let [file, journal] = TOKENS.map(|token| session.retrieve(token));
    let model = Journaled::open(file?, journal?, PAGES, seed)?;
    model.settle().context("settling")?;
    let shared = Shared::new(model);
    with_threads(&shared, (seed, ctx.stage() as u64), || {
        match finish {
            Finish::Early => ctx.wait_for("a thread's work", PATIENCE, || shared.total() > 0)?,
            Finish::Late => shared.work(ctx, STEPS)?,
        }
        let there = seen::resident(&shared.model.file)?;
        let reclaimed = shared.reclaimed.load(Ordering::SeqCst);
        shared.beside("FINISH", || Ok(session.finish()?))?;
        shared.work(ctx, STEPS)?;
        ctx.figure(&format!(
            "{there} of {PAGES} pages were there before FINISH"
        ));
        shared.be_pressed(ctx, "finished", reclaimed)?;
        shared.enter(ctx, Phase::Over)
    })?;
    shared
        .model
        .check_all()
        .with_context(|| format!("LUO_SEED={seed}, arrived"))?;
    holes_are_right(&shared.model)?;
    Ok((shared, seed))
}

fn end(ctx: &mut Ctx) -> Result<()> {
    arrive(ctx, Finish::Early).map(drop)
}

fn go_on(ctx: &mut Ctx) -> Result<()> {
    let (shared, seed) = arrive(ctx, Finish::Late)?;
    ctx.kexec_load()?;
    shared.phase.store(0, Ordering::SeqCst);
    with_threads(&shared, (seed, 0xff), || preserve_and_jump(ctx, &shared))
}

/// Fails unless there is data wherever something was written, and the file's blocks are for just that.
fn holes_are_right(model: &Journaled) -> Result<()> {
    let ranges = data_ranges(&model.file)?;
    let is_data = |page: usize| {
        let at = (page * PAGE) as u64;
        ranges.iter().any(|range| range.contains(&at))
    };
    let mut pages = 0;
    for page in 0..PAGES {
        let mut blocks = page * PER_PAGE..(page + 1) * PER_PAGE;
        let written = blocks.any(|block| model.versions(block).0 != 0);
        ensure!(
            !written || is_data(page),
            "page {page} is a hole, and was written"
        );
        pages += usize::from(is_data(page));
    }
    let blocks = nix::sys::stat::fstat(&model.file)?.st_blocks as usize;
    ensure!(
        blocks == pages * PER_PAGE,
        "{blocks} blocks for {pages} pages"
    );
    Ok(())
}

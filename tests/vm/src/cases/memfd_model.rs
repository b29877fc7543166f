// SPDX-License-Identifier: GPL-2.0

//! Threads do what they like to a memfd, at random, under memory pressure: what arrives is exactly what their journal says,
//! and so is what is left while it is being retrieved and finished.

use super::common::journal::{Journaled, Random, BLOCK, PER_PAGE};
use super::common::luo::Device;
use super::common::memfd;
use super::common::pages::PAGE;
use super::common::seen::data_ranges;
use super::common::{only_ours, refused};
use crate::ctx::Ctx;
use crate::pressure::{Pressure, KILLED};
use crate::procfs;
use crate::test::{Config, Test};
use anyhow::{bail, ensure, Context, Result};
use nix::errno::Errno;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// The cases.
pub const TESTS: &[Test] = &[
    Test::new("random", CONFIG, &[begin, go_on, end]),
    Test::new("random_in_v2", CONFIG.params("memfd_v2=1"), &[begin, end]),
    Test::new("random_in_folios", CONFIG, &[begin_in_folios, end]),
];

const CONFIG: Config = Config::new()
    .memory_mib(768)
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
const STEPS: u64 = 1000;
const LONG: Duration = Duration::from_secs(40);
/// Until which phase memory is short.
const PRESSED: usize = 1;
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

    /// Waits until the kernel has reclaimed memory, which a test under pressure must have seen.
    fn be_pressed(&self, ctx: &Ctx, what: &str) -> Result<()> {
        let reclaimed = || self.reclaimed.load(Ordering::SeqCst);
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

const FAILED: usize = usize::MAX;

/// One thread.
struct Thread<'a> {
    shared: &'a Shared,
    number: usize,
    random: Random,
}

impl Thread<'_> {
    fn run(mut self) -> Result<()> {
        let shared = self.shared;
        let done = loop {
            let number = shared.phase.load(Ordering::SeqCst);
            shared.seen[self.number].store(number, Ordering::SeqCst);
            if PHASES[number] == Phase::Over {
                break Ok(());
            }
            if let Err(err) = self.step(PHASES[number]) {
                break Err(err);
            }
            shared.done[self.number].fetch_add(1, Ordering::SeqCst);
        };
        if done.is_err() {
            shared.seen[self.number].store(FAILED, Ordering::SeqCst);
        }
        done
    }

    fn step(&mut self, phase: Phase) -> Result<()> {
        let model = &self.shared.model;
        let mapped = self.random.below(2) == 0;
        match self.random.below(16) {
            0..=4 if phase != Phase::Paused => {
                model.write(self.own_blocks(), mapped).context("writing")
            }
            0..=7 => {
                let block = self.shared_block();
                model
                    .write(block..block + 1, mapped)
                    .context("writing to a shared page")
            }
            8..=10 => {
                let blocks = self.own_blocks();
                model.check(blocks.start, mapped)?;
                model.check(blocks.end - 1, !mapped)
            }
            11 => {
                let block = self.shared_block();
                model.check(block, mapped).context("a shared page")
            }
            12 | 13 => self.punch(phase),
            14 => {
                let first = self.random.below(PAGES - 64);
                // It may be beyond the end just now.
                let _ = model.advise(first..first + 64, libc::MADV_PAGEOUT);
                Ok(())
            }
            _ if self.number == 0 => self.resize(phase),
            _ => {
                // Somebody else's, to be there at the same time.
                let mut byte = [0];
                let page = self.random.below(SHARED.end);
                model.file.read_exact_at(&mut byte, (page * PAGE) as u64)?;
                Ok(())
            }
        }
    }

    /// Blocks that follow each other, in pages of this thread: within a page or over a border.
    fn own_blocks(&mut self) -> Range<usize> {
        // Pages are owned by groups of 8.
        let groups = OWN.end / 8 / THREADS;
        let group = self.random.below(groups) * THREADS + self.number;
        let first = self.random.below(8 * PER_PAGE);
        let len = 1 + self.random.below((8 * PER_PAGE - first).min(20));
        let start = group * 8 * PER_PAGE + first;
        start..start + len
    }

    /// A block of this thread in a page in which others have some.
    fn shared_block(&mut self) -> usize {
        let page = SHARED.start + self.random.below(SHARED.len());
        page * PER_PAGE + self.random.below(PER_PAGE / THREADS) * THREADS + self.number
    }

    /// Punches a hole, at any blocks.
    fn punch(&mut self, phase: Phase) -> Result<()> {
        let model = &self.shared.model;
        let blocks = self.own_blocks();
        let (start, len) = (blocks.start * BLOCK, blocks.len() * BLOCK);
        // The phase may end right now: only one that has not begun yet cannot be mistaken.
        let done = model.change(
            blocks,
            |_| 0,
            || match memfd::punch(&model.file, start as u64, len as u64) {
                Ok(()) => Ok(true),
                Err(Errno::EPERM) => Ok(false),
                Err(errno) => Err(errno).context("punching"),
            },
        )?;
        ensure!(
            !done || phase == Phase::Free,
            "a preserved file was punched"
        );
        Ok(())
    }

    /// Changes the size, at any byte, and writes something to the end.
    fn resize(&mut self, phase: Phase) -> Result<()> {
        let model = &self.shared.model;
        let _resized = self.shared.resized.lock().expect("nobody panics");
        let from = TAIL.start * PER_PAGE + self.random.below(TAIL.len() * PER_PAGE);
        let all = TAIL.end * PER_PAGE;
        let done = model.change(
            from..all,
            |_| 0,
            || {
                match memfd::truncate(&model.file, (from * BLOCK) as u64) {
                    Ok(()) => {}
                    Err(Errno::EPERM) => return Ok(false),
                    Err(errno) => return Err(errno).context("truncating"),
                }
                memfd::truncate(&model.file, (all * BLOCK) as u64).context("growing")?;
                Ok(true)
            },
        )?;
        ensure!(
            !done || phase == Phase::Free,
            "a preserved file was truncated"
        );
        if phase == Phase::Paused {
            return Ok(());
        }
        let first = TAIL.start * PER_PAGE + self.random.below(TAIL.len() * PER_PAGE - 40);
        model.write(first..first + 40, self.random.below(2) == 0)
    }
}

/// Keeps memory short.
fn press(shared: &Shared, mut pressure: Pressure) -> Result<()> {
    let work = || -> u64 { shared.done.iter().map(|n| n.load(Ordering::SeqCst)).sum() };
    loop {
        // Some at a time, between which the others do some work: the kernel is to reclaim, and not to do nothing else.
        let start = work();
        while work() < start + 200 {
            if shared.phase.load(Ordering::SeqCst) > PRESSED {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        pressure.step()?;
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
    let swapped = procfs::number_in("/proc/self/smaps_rollup", "Swap:")?;
    ensure!(swapped > 1024, "only {swapped} KiB are swapped out");
    let session = Device::open()?.create_session("model")?;
    session.preserve(&shared.model.journal, TOKENS[1])?;
    {
        let _whole = shared.resized.lock().expect("nobody panics");
        // The new phase begins when it is done: in it no hole may be punched.
        session.preserve(&shared.model.file, TOKENS[0])?;
    }
    shared.enter(ctx, Phase::Preserved)?;
    shared.work(ctx, STEPS)?;
    shared.be_pressed(ctx, "preserved")?;
    if let Err((errno, _)) = session.prepare() {
        bail!("PREPARE: {errno}");
    }
    shared.work(ctx, STEPS / 2)?;
    refused(
        "punching",
        memfd::punch(&shared.model.file, 0, 1),
        Errno::EPERM,
    )?;
    shared.enter(ctx, Phase::Paused)?;
    match ctx.kexec()? {}
}

/// Takes it back while threads use it, and FINISH runs.
fn arrive(ctx: &mut Ctx) -> Result<(Shared, u64)> {
    let seed: u64 = ctx.get("seed")?.parse()?;
    let device = Device::open()?;
    let session = device.retrieve_session("model")?;
    let [file, journal] = TOKENS.map(|token| session.retrieve(token));
    let model = Journaled::open(file?, journal?, PAGES, seed)?;
    model.settle().context("settling")?;
    let shared = Shared::new(model);
    with_threads(&shared, (seed, ctx.stage() as u64), || {
        shared.work(ctx, STEPS)?;
        session.finish()?;
        shared.work(ctx, STEPS)?;
        shared.be_pressed(ctx, "finished")?;
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
    arrive(ctx).map(drop)
}

fn go_on(ctx: &mut Ctx) -> Result<()> {
    let (shared, seed) = arrive(ctx)?;
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

// SPDX-License-Identifier: GPL-2.0

//! A kexec in the midst of everything: threads make and close sessions, preserve and unpreserve files, and are killed,
//! while reboot(KEXEC) is called. What was done before it arrives, and what was under way does entirely or not at all.
//! `make races N=` says how often.

use super::common::ext::text;
use super::common::luo::Device;
use super::common::modules::Recorder;
use super::model::arrival::{arrived, compare};
use super::model::owner::{new_world, process_of, Journal, Owner, Team, Word, OWNERS, PROCESSES};
use crate::ctx::Ctx;
use crate::kexec;
use crate::test::{Config, Test};
use anyhow::{bail, ensure, Context, Result};
use fastrand::Rng;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::os::fd::AsRawFd;
use std::time::Duration;

/// The cases.
pub const TESTS: &[Test] = &[Test::repeated("at_any_moment", Config::new(), &[stage])];

/// So many kexecs, unless it is said otherwise.
const KEXECS: u64 = 4;
/// So many have to meet all of [`WANTED`].
const MANY: u64 = 100;
/// What is to be under way at one kexec at least.
const WANTED: [&str; 5] = [
    "CREATE_SESSION",
    "PRESERVE_FD",
    "UNPRESERVE_FD",
    "close a session",
    KILL,
];
/// What a kill is called that was under way.
const KILL: &str = "kill";
/// How much the owners do before.
const BEFORE: std::ops::Range<u64> = 40..1200;
/// How long after the announcement of the kexec a process may be killed: until the other kernel runs.
const KILL_WITHIN: Duration = Duration::from_millis(40);

/// The journal's session.
const JOURNAL: &str = "journal";

/// What was met so far.
#[derive(Default, Deserialize, Serialize)]
struct Met {
    sessions: u64,
    files: u64,
    steps: u64,
    kills: u64,
    /// How many keys and pages KHO keeps when all is finished.
    base: Option<(u64, u64)>,
    /// What was under way, by name.
    under_way: BTreeMap<String, u64>,
}

fn seed_of(ctx: &Ctx, kernel: u64) -> u64 {
    ctx.seed().wrapping_add(kernel << 32)
}

/// The process that is killed in a kernel, if one is.
fn victim(seed: u64) -> Option<usize> {
    let mut rng = Rng::with_seed(seed);
    rng.bool().then(|| rng.usize(0..PROCESSES))
}

fn stage(ctx: &mut Ctx) -> Result<()> {
    let (kernel, seed) = (ctx.stage(), ctx.seed());
    go_on(ctx).with_context(|| format!("in kernel {kernel}: make races SEED={seed}"))
}

fn go_on(ctx: &mut Ctx) -> Result<()> {
    let recorder = Recorder::new(ctx)?;
    let device = Device::open()?;
    let mut met = Met::default();
    if ctx.stage() > 1 {
        met = postcard::from_bytes(&ctx.baggage()?.context("nothing was given along")?)?;
        arrive(ctx, &device, &mut met)?;
        nothing_else(&recorder, &mut met)?;
    }
    if ctx.stage() as u64 > ctx.amount(KEXECS) {
        drop(device);
        recorder.remove()?;
        met.show(ctx)?;
        return Ok(());
    }
    ctx.set_baggage(postcard::to_allocvec(&met)?);
    leave(ctx, &device)
}

/// Lets the owners work, and jumps at some moment.
fn leave(ctx: &mut Ctx, device: &Device) -> Result<()> {
    let kernel = ctx.stage() as u64;
    let seed = seed_of(ctx, kernel);
    let format = text(&device.info()?.memfd_format);
    let journal = Journal::new()?;
    let session = device.create_session(JOURNAL)?;
    session.preserve(&journal.file, 0)?;
    // That takes its time.
    ctx.kexec_load()?;
    let mut teams = Vec::new();
    for process in 0..PROCESSES {
        let owners = (0..OWNERS).filter(|owner| process_of(*owner) == process);
        let owners = owners.map(|owner| {
            let world = new_world(owner, &format, kernel - 1);
            Owner::new(owner, world, seed)
        });
        let team = Team::start(device.0.as_raw_fd(), &journal, owners.collect(), u64::MAX)?;
        teams.push(Some(team));
    }
    let mut rng = Rng::with_seed(!seed);
    let enough = rng.u64(BEFORE);
    journal.wait(ctx, || {
        let ended = (0..PROCESSES).map(|process| journal.ended(process));
        ended.sum::<u64>() >= enough
    })?;
    let victim = victim(seed).and_then(|process| teams[process].take());
    let delay = KILL_WITHIN.mul_f64(rng.f64());
    std::thread::scope(|scope| {
        let journal = &journal;
        if let Some(team) = victim {
            scope.spawn(move || {
                while journal.load(Word::Reboot) == 0 {
                    std::thread::yield_now();
                }
                std::thread::sleep(delay);
                journal.store(Word::Killed, 1);
                if team.child.kill().is_ok() {
                    journal.store(Word::Killed, 2);
                }
            });
        }
        journal.store(Word::Reboot, 1);
        ctx.jump(|| -> Result<()> { bail!("reboot(KEXEC): {}", kexec::execute()) })
    })
}

/// Compares what arrived with what the journal says.
fn arrive(ctx: &Ctx, device: &Device, met: &mut Met) -> Result<()> {
    let kernel = ctx.stage() as u64 - 1;
    let seed = seed_of(ctx, kernel);
    let format = text(&device.info()?.memfd_format);
    let session = device.retrieve_session(JOURNAL)?;
    let journal = Journal::of(session.retrieve(0)?)?;
    drop(session);
    if let Some(complaint) = journal.complaint()? {
        bail!("before it: {complaint}");
    }
    ensure!(
        journal.load(Word::Reboot) == 1,
        "the journal is not the last one"
    );
    let killed = journal.load(Word::Killed);
    met.kills += killed.min(1);
    if killed == 1 {
        met.count(KILL);
    }
    for number in 0..OWNERS {
        let (begun, ended) = (
            journal.load(Word::Begun(number)),
            journal.load(Word::Ended(number)),
        );
        let world = new_world(number, &format, kernel - 1);
        let mut owner = Owner::new(number, world, seed);
        for _ in 0..ended {
            owner.imagine();
        }
        let mut possible = vec![owner.world.clone()];
        let mut last = "nothing was under way".to_string();
        if begun > ended {
            let step = owner.imagine();
            last = format!("{step} was under way");
            met.count(step.name(&possible[0]));
            possible.push(owner.world);
        }
        possible.iter_mut().for_each(luo_model::World::kexec);
        let possible: Vec<_> = possible.iter().map(luo_model::World::arrived).collect();
        let there = arrived(device, number)?;
        met.steps += ended;
        met.sessions += there.len() as u64;
        met.files += there
            .iter()
            .map(|session| session.files.len() as u64)
            .sum::<u64>();
        let killed = if victim(seed) == Some(process_of(number)) {
            killed
        } else {
            0
        };
        compare(&there, &possible, killed)
            .with_context(|| format!("owner {number}, of whom {last} after {ended} steps"))?;
    }
    let (_, left) = device.list_sessions(0, 0)?;
    ensure!(left == 0, "{left} sessions are left when all is finished");
    Ok(())
}

/// Fails if more than in another kernel came along that no session has: what was preserved by halves.
fn nothing_else(recorder: &Recorder, met: &mut Met) -> Result<()> {
    let left = recorder.unrestored()?;
    let base = *met.base.get_or_insert(left);
    ensure!(
        left == base,
        "KHO keeps {left:?}, keys and pages, when all is finished, instead of {base:?}"
    );
    Ok(())
}

impl Met {
    /// Counts something that was under way.
    fn count(&mut self, what: &str) {
        *self.under_way.entry(what.into()).or_default() += 1;
    }

    /// Shows what came of it all. Fails if none of some kexecs met a command that was under way, or many not all that
    /// they are for.
    fn show(&self, ctx: &Ctx) -> Result<()> {
        ctx.figure(&format!(
            "{} kexecs amid {} commands, with {} kills: {} sessions and {} files arrived",
            ctx.stage() - 1,
            self.steps,
            self.kills,
            self.sessions,
            self.files
        ));
        let under_way = self.under_way.iter();
        let under_way: Vec<_> = under_way
            .map(|(name, count)| format!("{name} {count}"))
            .collect();
        ctx.figure(&format!("under way: {}", under_way.join(", ")));
        ensure!(
            ctx.stage() <= 20 || !under_way.is_empty(),
            "no kexec met a command"
        );
        let missing = WANTED
            .iter()
            .find(|what| !self.under_way.contains_key(**what));
        ensure!(
            ctx.amount(KEXECS) < MANY || missing.is_none(),
            "no kexec met {missing:?}"
        );
        Ok(())
    }
}

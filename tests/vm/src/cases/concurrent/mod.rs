// SPDX-License-Identifier: GPL-2.0

//! Several threads and processes that do everything in random order: to one session that all of them have, to many, and
//! while a kexec fails again and again. All that they are told must be explained by a sequential model, and the end must
//! be what it says; so must what a process did that was killed in the midst of it. `make model N=` says how much, and
//! `make model STEPS=` does those few again that it told when it had failed.

mod busy;
mod member;
mod notes;
mod round;
mod shrink;
mod worker;
mod world;

use super::common::luo::Device;
use super::common::modules::Recorder;
use super::model::commands;
use super::model::trial::Trial;
use crate::ctx::Ctx;
use crate::kexec;
use crate::test::{Config, Test};
use anyhow::{bail, ensure, Result};
use round::Frame;
pub use round::Round;
use std::time::Duration;

/// The cases.
pub const TESTS: &[Test] = &[
    Test::new("one_session", CONFIG, &[|ctx| run(ctx, &ONE_SESSION)]),
    Test::new("many_sessions", CONFIG, &[|ctx| run(ctx, &MANY_SESSIONS)]),
    Test::new("failing_kexec", CONFIG, &[failing_kexec]),
];

/// As long as a million commands take.
const CONFIG: Config = Config::new().timeout_s(1200);
/// Longer than a round takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a case is about.
struct Plan {
    name: &'static str,
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

const ONE_SESSION: Plan = Plan {
    name: "one_session",
    threads: 2,
    processes: 1,
    own: 0,
    steps: 100,
    share: 5,
    kexec: false,
};

const MANY_SESSIONS: Plan = Plan {
    name: "many_sessions",
    threads: 1,
    processes: 2,
    own: 2,
    steps: 120,
    share: 4,
    kexec: false,
};

const FAILING_KEXEC: Plan = Plan {
    name: "failing_kexec",
    threads: 1,
    processes: 1,
    own: 1,
    steps: 80,
    share: 20,
    kexec: true,
};

/// What was done so far.
#[derive(Default)]
struct Sum {
    rounds: u64,
    commands: u64,
    kills: u64,
    /// In the midst of a command.
    amid: u64,
    /// Kexecs that were refused.
    kexecs: u64,
}

fn failing_kexec(ctx: &mut Ctx) -> Result<()> {
    ctx.kexec_load()?;
    run(ctx, &FAILING_KEXEC)?;
    kexec::unload()
}

fn run(ctx: &mut Ctx, plan: &Plan) -> Result<()> {
    let again = match ctx.steps().map(Trial::of_word).transpose()? {
        None => None,
        Some(Trial::Round(round)) if round.is_of(plan) => Some(round),
        Some(_) => return ctx.skip("STEPS= are of another test"),
    };
    let recorder = Recorder::new(ctx)?;
    let frame = Frame {
        device: &Device::open()?,
        recorder: &recorder,
        plan,
    };
    match again {
        Some(round) => ctx.figure(&shrink::again(&frame, &round)?),
        None => all_rounds(ctx, &frame)?,
    }
    recorder.nothing_left()?;
    recorder.remove()
}

fn all_rounds(ctx: &Ctx, frame: &Frame) -> Result<()> {
    let plan = frame.plan;
    let mut sum = Sum::default();
    while sum.commands < commands(ctx) / plan.share {
        let seed = ctx.seed().wrapping_add(sum.rounds);
        let round = Round::whole(plan, seed);
        if let Err(why) = frame.run(&round, &mut sum) {
            let verdict = shrink::shrink(frame, &round, &why)?;
            let number = sum.rounds;
            bail!("{verdict}\nround {number}, with which this begins: make model SEED={seed}");
        }
        sum.rounds += 1;
    }
    ctx.figure(&format!(
        "{} commands of {} threads and {} processes at a time, in {} rounds, with {} kills, {} of them amid a command",
        sum.commands, plan.threads, plan.processes, sum.rounds, sum.kills, sum.amid
    ));
    // On a machine that is busy one round may have few.
    let hardly_any = plan.kexec && sum.kexecs <= 2 * sum.rounds;
    ensure!(!hardly_any, "only {} kexecs were tried", sum.kexecs);
    Ok(())
}

// SPDX-License-Identifier: GPL-2.0

//! One command at a time, by any thread of any process: every answer is to be exactly the model's.

use super::crew::{compare, Crew};
use super::{commands, replay, shrink, Baggage};
use crate::cases::common::ext::text;
use crate::cases::common::luo::Device;
use crate::ctx::Ctx;
use anyhow::{bail, ensure, Context, Result};
use luo_model::{Generator, Layout, World};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A new kernel comes after so many times its number of commands: often at first, then so many.
const PART: u64 = 1_500;
const LONGEST_PART: u64 = 6_000;

/// What one kernel tells the next.
#[derive(Deserialize, Serialize)]
pub struct State {
    world: World,
    answers: Answers,
}

/// How often each command was answered in each way.
type Answers = BTreeMap<String, BTreeMap<String, u64>>;

fn layout() -> Result<Layout> {
    Ok(Layout {
        processes: 3,
        threads: 2,
        slots: 12,
        owner: b's',
        alone: true,
        memfd_format: text(&Device::open()?.info()?.memfd_format),
    })
}

/// One kernel.
pub fn stage(ctx: &mut Ctx) -> Result<()> {
    let replay = replay(ctx);
    go_on(ctx).with_context(|| replay)
}

fn go_on(ctx: &mut Ctx) -> Result<()> {
    match Baggage::open(ctx, true)? {
        Some(Baggage::Sequential(state)) => run(ctx, state),
        Some(Baggage::Shrink(state)) => state.go_on(ctx),
        Some(Baggage::Concurrent(_)) => bail!("this is of another test"),
        None => {
            let world = World::new(layout()?, 0);
            let answers = Answers::new();
            run(ctx, State { world, answers })
        }
    }
}

fn run(ctx: &mut Ctx, state: State) -> Result<()> {
    let State {
        mut world,
        mut answers,
    } = state;
    let done: u64 = answers.values().flat_map(BTreeMap::values).sum();
    let total = commands(ctx) / 8;
    let kernel = ctx.stage() as u64;
    let part = (PART * kernel).min(LONGEST_PART).min(total - done);
    let start = world.clone();
    let mut generator = Generator::new(ctx.seed().wrapping_add(kernel << 32));
    let mut crew = Crew::new(ctx, world.layout())?;
    let mut steps = Vec::new();
    for number in done..done + part {
        let step = generator.step(&world);
        steps.push(step.clone());
        match compare(ctx, &mut crew, &mut world, &step)? {
            Ok(answer) => {
                let answers = answers.entry(step.command.name().into()).or_default();
                *answers.entry(answer).or_default() += 1;
            }
            Err(why) => {
                let why = format!("command {number}, in kernel {kernel}: {why}");
                drop(crew);
                return shrink::begin(ctx, why, &start, &steps);
            }
        }
    }
    if done + part < total {
        world.kexec();
        ctx.keep(crew);
        return Baggage::Sequential(State { world, answers }).hand_on(ctx);
    }
    ensure!(crew.end()?, "sessions are left when all is closed");
    let kinds: usize = answers.values().map(BTreeMap::len).sum();
    ctx.figure(&format!(
        "{total} commands one at a time, in {kernel} kernels, answered in {kinds} ways"
    ));
    // For whoever wants many, which is to know of what.
    for (command, answers) in answers.iter().filter(|_| ctx.amount(0) > 0) {
        let answers = answers
            .iter()
            .map(|(answer, count)| format!(" {answer} {count}"));
        ctx.figure(&format!("  {command}:{}", answers.collect::<String>()));
    }
    Ok(())
}

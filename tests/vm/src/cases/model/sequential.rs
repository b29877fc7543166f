// SPDX-License-Identifier: GPL-2.0

//! One command at a time, by any thread of any process: every answer is to be exactly the model's.

use super::crew::Crew;
use super::{commands, replay};
use crate::cases::common::ext::text;
use crate::cases::common::luo::Device;
use crate::ctx::Ctx;
use anyhow::{bail, ensure, Context, Result};
use luo_model::{Answer, Command, Generator, Layout, Shrinker, Step, World};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// A new kernel comes after so many times its number of commands: often at first, then so many.
const PART: u64 = 1_500;
const LONGEST_PART: u64 = 6_000;
/// After this time a kernel is left, be there more to try or not.
const LONG: Duration = Duration::from_secs(120);

/// What one kernel tells the next.
#[derive(Deserialize, Serialize)]
struct State {
    world: World,
    work: Work,
}

/// How often each command was answered in each way.
type Answers = BTreeMap<String, BTreeMap<String, u64>>;

#[derive(Deserialize, Serialize)]
enum Work {
    /// All commands so far were answered as they should be.
    Run(Answers),
    /// One was not.
    Shrink(Shrink),
}

/// A failure, and how far it has been looked into.
#[derive(Deserialize, Serialize)]
struct Shrink {
    why: String,
    shrinker: Shrinker<Step>,
    /// How many steps of the candidate were done before this kernel.
    at: usize,
    tries: u64,
}

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
    let state = match ctx.baggage()? {
        Some(bytes) => postcard::from_bytes(&bytes)?,
        None => State {
            world: World::new(layout()?, 0),
            work: Work::Run(Answers::new()),
        },
    };
    ensure!(
        ctx.stage() == 1 || ctx.baggage()?.is_some(),
        "a kexec took place that a file was to refuse"
    );
    let State { world, work } = state;
    match work {
        Work::Run(answers) => run(ctx, world, answers),
        Work::Shrink(shrink) => shrink.go_on(ctx, world),
    }
}

impl State {
    /// Goes on in the next kernel.
    fn hand_on(&self, ctx: &mut Ctx) -> Result<()> {
        ctx.set_baggage(postcard::to_allocvec(self)?);
        ctx.go_on();
        Ok(())
    }
}

fn run(ctx: &mut Ctx, mut world: World, mut answers: Answers) -> Result<()> {
    let done: u64 = answers.values().flat_map(BTreeMap::values).sum();
    let total = commands(ctx) / 4;
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
                let shrink = Shrink {
                    why: format!("command {number}, in kernel {kernel}: {why}"),
                    shrinker: Shrinker::new([start.recreate(), steps].concat()),
                    at: 0,
                    tries: 0,
                };
                drop(crew);
                return shrink.in_next_kernel(ctx, world.layout().clone());
            }
        }
    }
    if done + part < total {
        world.kexec();
        ctx.keep(crew);
        let work = Work::Run(answers);
        return State { world, work }.hand_on(ctx);
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

impl Shrink {
    /// Tries one candidate after the other, or the rest of one, in a kernel in which there is nothing but what the world
    /// says.
    fn go_on(mut self, ctx: &mut Ctx, mut world: World) -> Result<()> {
        let begin = Instant::now();
        while let Some(candidate) = self.shrinker.candidate() {
            let mut crew = Crew::new(ctx, world.layout())?;
            let mut failed = None;
            while let Some(step) = candidate.get(self.at) {
                self.at += 1;
                if step.command == Command::Kexec {
                    world.kexec();
                    ctx.keep(crew);
                    let work = Work::Shrink(self);
                    return State { world, work }.hand_on(ctx);
                }
                if compare(ctx, &mut crew, &mut world, step)?.is_err() {
                    failed = Some(self.at);
                    break;
                }
            }
            self.tries += 1;
            self.at = 0;
            self.shrinker.report(failed);
            let live_updates = ctx.stage() as u64 - 1;
            world = World::new(world.layout().clone(), live_updates);
            // What is wrong may be that something stays.
            let clean = crew.end().unwrap_or(false);
            if !clean || begin.elapsed() > LONG {
                return self.in_next_kernel(ctx, world.layout().clone());
            }
        }
        bail!("{}", self.verdict(ctx))
    }

    /// Tries the next candidate in a new kernel, where nothing is handed over to.
    fn in_next_kernel(self, ctx: &mut Ctx, layout: Layout) -> Result<()> {
        let world = World::new(layout, ctx.stage() as u64);
        let work = Work::Shrink(self);
        State { world, work }.hand_on(ctx)
    }

    /// What was found out.
    fn verdict(&self, ctx: &Ctx) -> String {
        let found = match self.shrinker.shortest() {
            Some(steps) => {
                let steps: Vec<_> = steps.iter().map(|step| format!("\n  {step}")).collect();
                format!(
                    "{} of the commands are enough, by {} tries:{}",
                    steps.len(),
                    self.tries,
                    steps.concat()
                )
            }
            None => "it takes more than the sessions of one kernel before it".into(),
        };
        format!("{}\n{found}\nto repeat it: {}", self.why, replay(ctx))
    }
}

/// Does a step, and says how it was answered, or what is wrong with that.
fn compare(
    ctx: &Ctx,
    crew: &mut Crew,
    world: &mut World,
    step: &Step,
) -> Result<Result<String, String>> {
    let answer = crew
        .perform(ctx, step, world)
        .with_context(|| step.to_string())?;
    let wanted: Answer = world.apply(step);
    Ok(match answer == wanted {
        true => Ok(answer.map_or_else(|errno| format!("{errno:?}"), |_| "ok".into())),
        false => Err(format!(
            "{step}\n  answered {answer:?}\n  instead of {wanted:?}"
        )),
    })
}

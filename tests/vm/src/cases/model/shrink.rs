// SPDX-License-Identifier: GPL-2.0

//! From commands of which one was answered wrongly to few that show it. Each try begins in a kernel in which there is
//! nothing, and is one command at a time: first by itself, and if that never fails, while others do what they like.
//! The shortest is told as a word, with which it can be done again.

use super::crew::{compare, Crew};
use super::owner::{Journal, Rivals};
use super::trial::{Steps, Trial};
use super::Baggage;
use crate::ctx::Ctx;
use anyhow::{bail, Result};
use luo_model::{Command, Layout, Shrinker, Step, World};
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};

/// After this time a kernel is left, be there more to try or not.
const LONG: Duration = Duration::from_secs(120);
/// How often what fails now and then is tried, until it is believed not to fail.
const CHANCES: u32 = 5;

/// What one kernel tells the next.
#[derive(Deserialize, Serialize)]
pub struct State {
    world: World,
    shrink: Shrink,
}

/// A failure, and how far it has been looked into.
#[derive(Deserialize, Serialize)]
struct Shrink {
    why: String,
    shrinker: Shrinker<Step>,
    /// How many steps of the candidate were done before this kernel.
    at: usize,
    tries: u64,
    /// Whether others are at work beside it.
    rivals: bool,
    /// How often the candidate did not fail.
    passed: u32,
    /// Whether it is only to be seen if the steps fail.
    again: bool,
}

/// Begins with steps that were taken from `start` on, the last of which was answered wrongly.
pub fn begin(ctx: &mut Ctx, why: String, start: &World, steps: &[Step]) -> Result<()> {
    let shrink = Shrink {
        why,
        shrinker: Shrinker::new([start.recreate(), steps.to_vec()].concat()),
        at: 0,
        tries: 0,
        rivals: false,
        passed: 0,
        again: false,
    };
    shrink.in_next_kernel(ctx, start.layout())
}

/// Does steps again, in this kernel, in which there is nothing.
pub fn again(trial: Steps) -> State {
    let shrink = Shrink {
        why: format!("{} commands of STEPS=", trial.steps.len()),
        shrinker: Shrinker::new(trial.steps),
        at: 0,
        tries: 0,
        rivals: trial.rivals,
        passed: 0,
        again: true,
    };
    let world = World::new(trial.layout, 0);
    State { world, shrink }
}

impl State {
    /// One kernel.
    pub fn go_on(self, ctx: &mut Ctx) -> Result<()> {
        self.shrink.go_on(ctx, self.world)
    }
}

impl Shrink {
    /// Tries one candidate after the other, or the rest of one, in a kernel in which there is nothing but what the world
    /// says.
    fn go_on(mut self, ctx: &mut Ctx, mut world: World) -> Result<()> {
        let begin = Instant::now();
        let live_updates = ctx.stage() as u64 - 1;
        while let Some(candidate) = self.candidate(world.layout()) {
            let mut crew = Crew::new(ctx, world.layout())?;
            let journal = Journal::new()?;
            let start = || {
                let device = crew.device();
                Rivals::start(device, &journal, world.layout(), live_updates, self.tries)
            };
            let rivals = self.rivals.then(start).transpose()?;
            let mut failed = None;
            while let Some(step) = candidate.get(self.at) {
                self.at += 1;
                if step.command == Command::Kexec {
                    world.kexec();
                    drop(rivals);
                    ctx.keep(crew);
                    let shrink = self;
                    return Baggage::Shrink(State { world, shrink }).hand_on(ctx);
                }
                if let Err(why) = compare(ctx, &mut crew, &mut world, step)? {
                    failed = Some(self.at);
                    if self.again {
                        self.why = format!("command {} of STEPS=: {why}", self.at);
                    }
                    break;
                }
            }
            drop(rivals);
            self.report(failed);
            world = World::new(world.layout().clone(), live_updates);
            // What is wrong may be that something stays.
            let clean = crew.end().unwrap_or(false);
            if !clean || begin.elapsed() > LONG {
                return self.in_next_kernel(ctx, world.layout());
            }
        }
        let verdict = self.verdict(world.layout())?;
        if self.again && self.shrinker.shortest().is_none() {
            ctx.figure(&verdict);
            return Ok(());
        }
        bail!("{verdict}")
    }

    /// What to try next, if there is anything more to try.
    fn candidate(&mut self, layout: &Layout) -> Option<Vec<Step>> {
        // It is as short as it gets.
        if self.again && self.shrinker.shortest().is_some() {
            return None;
        }
        let candidate = self.shrinker.candidate();
        // Alone it did not fail: it takes the others.
        if candidate.is_none()
            && !self.again
            && !layout.alone
            && !self.rivals
            && self.shrinker.shortest().is_none()
        {
            self.rivals = true;
            self.shrinker = self.shrinker.again();
            return self.shrinker.candidate();
        }
        candidate
    }

    /// Says how the candidate did: after how many steps it failed, if it did.
    fn report(&mut self, failed: Option<usize>) {
        self.tries += 1;
        self.at = 0;
        self.passed += 1;
        if failed.is_none() && self.rivals && self.passed < CHANCES {
            return;
        }
        self.passed = 0;
        self.shrinker.report(failed);
    }

    /// Tries the next candidate in a new kernel, where nothing is handed over to.
    fn in_next_kernel(self, ctx: &mut Ctx, layout: &Layout) -> Result<()> {
        let world = World::new(layout.clone(), ctx.stage() as u64);
        let shrink = self;
        Baggage::Shrink(State { world, shrink }).hand_on(ctx)
    }

    /// What was found out.
    fn verdict(&self, layout: &Layout) -> Result<String> {
        let (why, tries) = (&self.why, self.tries);
        let beside = if self.rivals {
            " while others are at work"
        } else {
            ""
        };
        let Some(steps) = self.shrinker.shortest() else {
            return Ok(match self.again {
                true => format!("{why}, answered as they should be by {tries} tries{beside}"),
                false => {
                    format!("{why}\nits commands did not fail again, by {tries} tries{beside}")
                }
            });
        };
        let list: String = steps.iter().map(|step| format!("\n  {step}")).collect();
        if self.again {
            return Ok(format!("{why}\nat the end of these{beside}:{list}"));
        }
        let count = steps.len();
        let trial = Steps {
            layout: layout.clone(),
            rivals: self.rivals,
            steps: steps.to_vec(),
        };
        let word = Trial::Steps(trial).to_word()?;
        Ok(format!(
            "{why}\n{count} of the commands are enough{beside}, by {tries} tries:{list}\n\
             to do these again: make model STEPS={word}"
        ))
    }
}

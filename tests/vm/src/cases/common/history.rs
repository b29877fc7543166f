// SPDX-License-Identifier: GPL-2.0

//! What several threads did at the same time, and whether a sequential model can explain it.
//!
//! Each thread notes its steps: what it asked for, what was answered, and between which moments. The history is
//! explained if there is one order of all steps, in which no step comes before one that had ended when it began, and in
//! which the model gives each of these answers.

use anyhow::{ensure, Context, Result};
use nix::time::{clock_gettime, ClockId};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::fmt::Debug;
use std::hash::Hash;
use std::time::Duration;

/// What should happen if one step came after the other.
pub trait Model: Clone + Eq + Hash {
    /// What was asked for, and what was answered.
    type Step: Debug;

    /// Takes a step; false if the answer would have been another one.
    fn take(&mut self, step: &Self::Step) -> bool;
}

/// A moment, by the clock that all processes have.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub struct Moment(Duration);

impl Moment {
    /// Now.
    pub fn now() -> Self {
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC);
        Self(now.expect("a clock that every kernel has").into())
    }
}

/// A step and when it was taken.
#[derive(Clone, Debug)]
struct Timed<S> {
    from: Moment,
    to: Moment,
    step: S,
}

/// The steps of one thread.
#[derive(Clone, Debug)]
pub struct Log<S>(Vec<Timed<S>>);

impl<S> Log<S> {
    /// Nothing yet.
    pub fn new() -> Self {
        Self(Vec::new())
    }

    /// Does something, and notes it as the steps that `told` makes of the answer. Several steps come in that order,
    /// with others of other threads between them.
    pub fn note<R>(&mut self, act: impl FnOnce() -> R, told: impl FnOnce(&R) -> Vec<S>) -> R {
        let from = Moment::now();
        let answer = act();
        let to = Moment::now();
        self.add((from, to), told(&answer));
        answer
    }

    /// Notes steps that were taken between two moments.
    pub fn add(&mut self, (from, to): (Moment, Moment), steps: Vec<S>) {
        let timed = steps.into_iter().map(|step| Timed { from, to, step });
        self.0.extend(timed);
    }

    /// The steps.
    pub fn steps(&self) -> impl Iterator<Item = &S> {
        self.0.iter().map(|timed| &timed.step)
    }

    /// The same for what is one step.
    pub fn note_one<R>(&mut self, act: impl FnOnce() -> R, told: impl FnOnce(&R) -> S) -> R {
        self.note(act, |answer| vec![told(answer)])
    }
}

/// Fails unless the model can explain what the threads noted.
pub fn explain<M: Model>(start: M, threads: &[Log<M::Step>]) -> Result<()> {
    let mut search = Search {
        threads,
        seen: HashSet::new(),
        furthest: vec![0; threads.len()],
    };
    ensure!(search.run(start), "{}", search.complaint());
    Ok(())
}

/// Fails unless the model can explain one of these, where it is not known what the threads did. The error is about the
/// first.
pub fn explain_one<M: Model>(start: &M, histories: &[Vec<Log<M::Step>>]) -> Result<()> {
    let mut explained = histories.iter().map(|it| explain(start.clone(), it));
    let first = explained.next().context("no history")?;
    match first.is_ok() || explained.any(|other| other.is_ok()) {
        true => Ok(()),
        false => first,
    }
}

struct Search<'a, M: Model> {
    threads: &'a [Log<M::Step>],
    /// Where the search has been: how many steps of each thread were taken, and what they led to.
    seen: HashSet<(Vec<usize>, M)>,
    /// The most steps that could be explained.
    furthest: Vec<usize>,
}

impl<M: Model> Search<'_, M> {
    fn run(&mut self, start: M) -> bool {
        let mut open = vec![(vec![0; self.threads.len()], start)];
        while let Some((taken, model)) = open.pop() {
            if taken.iter().sum::<usize>() > self.furthest.iter().sum() {
                self.furthest.clone_from(&taken);
            }
            let next = |thread: usize| self.threads[thread].0.get(taken[thread]);
            let ends = (0..taken.len()).filter_map(|thread| Some(next(thread)?.to));
            let Some(first_end) = ends.min() else {
                return true;
            };
            for thread in 0..taken.len() {
                // It began after another had ended, which then comes first.
                let Some(timed) = next(thread).filter(|timed| timed.from <= first_end) else {
                    continue;
                };
                let mut model = model.clone();
                if model.take(&timed.step) {
                    let mut taken = taken.clone();
                    taken[thread] += 1;
                    let state = (taken, model);
                    if !self.seen.contains(&state) {
                        self.seen.insert(state.clone());
                        open.push(state);
                    }
                }
            }
        }
        false
    }

    /// The steps around the place where no order could be found.
    fn complaint(&self) -> String {
        let mut text = "no order of these steps gives these answers:".to_string();
        for (thread, log) in self.threads.iter().enumerate() {
            let at = self.furthest[thread];
            let from = at.saturating_sub(6);
            let steps = log.0.iter().enumerate().skip(from).take(at - from + 2);
            for (i, timed) in steps {
                let mark = if i == at { "->" } else { "" };
                text += &format!("\n  thread {thread}, {i}: {mark} {:?}", timed.step);
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// A number that is added to and read.
    #[derive(Clone, Eq, Hash, PartialEq)]
    struct Sum(u32);

    #[derive(Debug)]
    enum Step {
        Add(u32),
        Read(u32),
    }

    impl Model for Sum {
        type Step = Step;

        fn take(&mut self, step: &Step) -> bool {
            match step {
                Step::Add(n) => {
                    self.0 += n;
                    true
                }
                Step::Read(n) => self.0 == *n,
            }
        }
    }

    fn log(steps: Vec<(u64, u64, Step)>) -> Log<Step> {
        let at = |ms| Moment(Duration::from_millis(ms));
        Log(steps
            .into_iter()
            .map(|(from, to, step)| Timed {
                from: at(from),
                to: at(to),
                step,
            })
            .collect())
    }

    #[test]
    fn overlapping_steps_may_come_in_either_order() {
        for read in [0, 2] {
            let threads = [
                log(vec![(0, 1000, Step::Add(2))]),
                log(vec![(100, 900, Step::Read(read))]),
            ];
            assert!(explain(Sum(0), &threads).is_ok(), "{read}");
        }
    }

    #[test]
    fn what_had_ended_came_before() {
        let threads = [
            log(vec![(0, 100, Step::Add(2)), (700, 800, Step::Add(1))]),
            log(vec![(500, 600, Step::Read(0))]),
        ];
        assert!(explain(Sum(0), &threads).is_err());
    }

    #[test]
    fn one_thread_never_goes_back() {
        let threads = [
            log(vec![(0, 1000, Step::Add(2))]),
            log(vec![(0, 500, Step::Read(2)), (500, 900, Step::Read(0))]),
        ];
        let error = explain(Sum(0), &threads).unwrap_err().to_string();
        assert!(error.contains("Read(0)"), "{error}");
    }
}

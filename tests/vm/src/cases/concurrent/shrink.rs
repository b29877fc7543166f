// SPDX-License-Identifier: GPL-2.0

//! From a round that failed to few of its commands with which it still does. What threads do at the same time is never
//! the same twice: each candidate is tried some times, until it is believed not to fail.

use super::round::{Frame, Round};
use super::Sum;
use crate::cases::model::trial::Trial;
use anyhow::{bail, Error, Result};
use luo_model::Shrinker;
use std::time::{Duration, Instant};

/// How often a candidate is tried.
const CHANCES: u32 = 10;
/// How often what was found is tried when it is done again.
const MANY: u32 = 500;
/// The shortest after this time has to do.
const LONG: Duration = Duration::from_secs(120);

/// What came of trying.
enum Tried {
    /// It failed.
    Failed(Error),
    /// It did not.
    Passed,
    /// A session is left: no other round can be tried in this kernel.
    Stuck,
}

/// Tries a round until it fails, so often at most. Counts the tries.
fn attempt(frame: &Frame<'_>, round: &Round, chances: u32, tries: &mut u64) -> Result<Tried> {
    for _ in 0..chances {
        if !frame.is_clear()? {
            return Ok(Tried::Stuck);
        }
        *tries += 1;
        if let Err(why) = frame.run(round, &mut Sum::default()) {
            return Ok(Tried::Failed(why));
        }
    }
    Ok(Tried::Passed)
}

/// Finds few commands of a round that failed which still do, and says what to do to have these again.
pub fn shrink(frame: &Frame<'_>, round: &Round, why: &Error) -> Result<String> {
    let begin = Instant::now();
    let mut shrinker = Shrinker::new(round.turns.clone());
    let mut why = format!("{why:#}");
    let mut tries = 0;
    while let Some(turns) = shrinker.candidate().filter(|_| begin.elapsed() < LONG) {
        let count = turns.len();
        let round = round.with(turns);
        match attempt(frame, &round, CHANCES, &mut tries)? {
            Tried::Failed(error) => {
                why = format!("{error:#}");
                shrinker.report(Some(count));
            }
            Tried::Passed => shrinker.report(None),
            Tried::Stuck => {
                why += "\na session is left, beside which nothing more can be tried";
                break;
            }
        }
    }
    let Some(turns) = shrinker.shortest() else {
        return Ok(format!("{why}\nit did not fail again, by {tries} tries"));
    };
    let (count, all) = (turns.len(), round.turns.len());
    let word = Trial::Round(round.with(turns.to_vec())).to_word()?;
    Ok(format!(
        "{why}\n{count} of {all} commands are enough, by {tries} tries\n\
         to do these again: make model STEPS={word}"
    ))
}

/// Does a round again. Says that it did not fail, if it does not.
pub fn again(frame: &Frame<'_>, round: &Round) -> Result<String> {
    let mut tries = 0;
    let count = round.turns.len();
    match attempt(frame, round, MANY, &mut tries)? {
        Tried::Passed => Ok(format!(
            "{count} commands of STEPS=, answered as they should be by {tries} tries"
        )),
        Tried::Failed(why) => bail!("{count} commands of STEPS=, try {tries}: {why:#}"),
        Tried::Stuck => bail!("{count} commands of STEPS=, try {tries}: a session is left"),
    }
}

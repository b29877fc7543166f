// SPDX-License-Identifier: GPL-2.0

//! What a worker notes of its commands. A process writes it to a file, where it is found when the process is gone: killed
//! in the midst of a command, perhaps.

use super::world::{closing, Step};
use crate::cases::common::history::{Log, Moment};
use anyhow::Result;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;

/// Ways in which a command may have been done, each of them some steps.
pub type Ways = Vec<Vec<Step>>;

/// A line of the file.
#[derive(Deserialize, Serialize)]
enum Note {
    /// A command began. If it is not answered, it was done in one of these ways, or not at all.
    Begun(Moment, Ways),
    /// It was answered.
    Ended(Moment, Vec<Step>),
}

/// The notes of one worker.
pub struct Notes {
    log: Log<Step>,
    file: Option<File>,
    commands: u64,
}

impl Notes {
    /// Those of a thread of ours.
    pub fn here() -> Self {
        Self {
            log: Log::new(),
            file: None,
            commands: 0,
        }
    }

    /// Those that others will read.
    pub fn to(file: File) -> Self {
        Self {
            file: Some(file),
            ..Self::here()
        }
    }

    /// Does a command, and notes it as the steps that `told` makes of the answer. `ways` is for the case that none comes.
    pub fn note<R>(
        &mut self,
        ways: Ways,
        act: impl FnOnce() -> R,
        told: impl FnOnce(&R) -> Vec<Step>,
    ) -> R {
        let from = Moment::now();
        self.write(|| Note::Begun(from, ways));
        let answer = act();
        let to = Moment::now();
        let steps = told(&answer);
        self.write(|| Note::Ended(to, steps.clone()));
        self.log.add((from, to), steps);
        self.commands += 1;
        answer
    }

    fn write(&mut self, note: impl FnOnce() -> Note) {
        if let Some(file) = &mut self.file {
            let bytes = postcard::to_allocvec(&note()).expect("a note can be written");
            file.write_all(&bytes).expect("a memfd takes all");
        }
    }

    /// What is noted, and of how many commands.
    pub fn into_log(self) -> (Log<Step>, u64) {
        (self.log, self.commands)
    }
}

/// What is found in the file.
pub struct Found {
    /// What was answered.
    pub log: Log<Step>,
    /// Number of commands.
    pub commands: u64,
    /// What was not: since when, and the ways it may have been done in.
    pub unanswered: Option<(Moment, Ways)>,
}

impl Found {
    /// Reads it.
    pub fn read(file: &File) -> Result<Self> {
        let mut bytes = vec![0; file.metadata()?.len().try_into()?];
        file.read_exact_at(&mut bytes, 0)?;
        Ok(Self::of(&bytes))
    }

    fn of(mut bytes: &[u8]) -> Self {
        let mut found = Self {
            log: Log::new(),
            commands: 0,
            unanswered: None,
        };
        // The last one may be in pieces: then the command it is about had not begun, or its answer was for nobody.
        while let Ok((note, rest)) = postcard::take_from_bytes(bytes) {
            bytes = rest;
            match note {
                Note::Begun(from, ways) => {
                    found.commands += 1;
                    found.unanswered = Some((from, ways));
                }
                Note::Ended(to, steps) => {
                    if let Some((from, _)) = found.unanswered.take() {
                        found.log.add((from, to), steps);
                    }
                }
            }
        }
        found
    }

    /// All that may have happened, where the process was killed between these moments: what was not answered was done, in
    /// any of its ways, or it was not; and then the sessions that it had for itself were closed.
    pub fn of_killed(self, killed: Moment, gone: Moment) -> Vec<Vec<Log<Step>>> {
        let (from, ways) = self.unanswered.unwrap_or((killed, vec![]));
        let happened = [vec![vec![]], ways].concat().into_iter().map(|steps| {
            let mut log = self.log.clone();
            log.add((from, gone), steps);
            let closed = left_open(log.steps()).into_iter().map(|(name, tokens)| {
                let mut log = Log::new();
                log.add((from, gone), closing(name, &tokens));
                log
            });
            let closed: Vec<_> = closed.collect();
            [vec![log], closed].concat()
        });
        happened.collect()
    }
}

/// The sessions that these steps of one worker have made and not closed, with the tokens of their files.
fn left_open<'a>(steps: impl Iterator<Item = &'a Step>) -> BTreeMap<usize, Vec<u64>> {
    let mut open = BTreeMap::<_, Vec<_>>::new();
    for step in steps {
        match *step {
            Step::Create(name, Ok(())) => {
                open.insert(name, Vec::new());
            }
            Step::Preserve(name, token, _, Ok(())) => {
                if let Some(tokens) = open.get_mut(&name) {
                    tokens.push(token);
                }
            }
            Step::Unpreserve(name, token, Ok(())) => {
                if let Some(tokens) = open.get_mut(&name) {
                    tokens.retain(|&used| used != token);
                }
            }
            Step::Remove(name) => {
                open.remove(&name);
            }
            _ => {}
        }
    }
    open
}

#[cfg(test)]
mod tests {
    use super::super::world::{World, SHARED};
    use super::*;
    use crate::cases::common::history::explain_one;

    const OWN: usize = 1;

    fn preserve(session: usize, token: u64) -> Step {
        Step::Preserve(session, token, 0, Ok(()))
    }

    /// Whether it can be that a process did so, was then killed while it waited for an answer, and others saw this at
    /// last.
    fn explained(did: &[Step], ways: Ways, seen: &[Step]) -> bool {
        let start = Moment::now();
        let mut found = Found {
            log: Log::new(),
            commands: 0,
            unanswered: Some((Moment::now(), ways)),
        };
        found.log.add((start, start), did.to_vec());
        let histories = found.of_killed(Moment::now(), Moment::now());
        let mut others = Log::new();
        for step in seen {
            others.note_one(|| (), |()| step.clone());
        }
        let with_others = histories
            .into_iter()
            .map(|logs| [logs, vec![others.clone()]].concat());
        let histories: Vec<_> = with_others.collect();
        explain_one(&World::new(false), &histories).is_ok()
    }

    #[test]
    fn what_was_not_answered_was_done_or_not() {
        let ways = || vec![vec![preserve(SHARED, 7)]];
        let fds = |tokens: &[u64]| Step::Fds(SHARED, tokens.to_vec());
        assert!(explained(&[], ways(), &[fds(&[7])]));
        assert!(explained(&[], ways(), &[fds(&[])]));
        assert!(!explained(&[], ways(), &[fds(&[7]), fds(&[])]));
        assert!(!explained(&[], ways(), &[fds(&[8])]));
        assert!(!explained(&[], vec![], &[fds(&[7])]));
    }

    #[test]
    fn sessions_of_a_killed_process_are_closed() {
        let made = Step::Create(OWN, Ok(()));
        let free = &[Step::Create(OWN, Ok(())), Step::Fds(OWN, vec![])];
        let lists = |own: &[usize]| {
            let all = [&[SHARED], own].concat();
            Step::Sessions(all.into_iter().map(super::super::world::name).collect())
        };
        let did = [made.clone(), preserve(OWN, 7)];
        assert!(explained(&did, vec![], free));
        assert!(explained(&did, vec![vec![preserve(OWN, 8)]], free));
        assert!(explained(&[], vec![vec![made.clone()]], free));
        assert!(!explained(&did, vec![], &[lists(&[OWN])]));
        assert!(!explained(&[], vec![vec![made]], &[lists(&[OWN])]));
    }

    #[test]
    fn a_note_in_pieces_is_none() {
        let begun = Note::Begun(Moment::now(), vec![vec![preserve(OWN, 7)]]);
        let ended = Note::Ended(Moment::now(), vec![preserve(OWN, 7)]);
        let first = postcard::to_allocvec(&begun).unwrap();
        let bytes = [first.clone(), postcard::to_allocvec(&ended).unwrap()].concat();
        for len in 0..=bytes.len() {
            let found = Found::of(&bytes[..len]);
            let wanted = (len >= first.len(), len == bytes.len());
            assert_eq!(found.commands, u64::from(wanted.0), "{len}");
            assert_eq!(found.log.steps().count(), usize::from(wanted.1), "{len}");
            assert_eq!(found.unanswered.is_some(), wanted.0 && !wanted.1, "{len}");
        }
    }
}

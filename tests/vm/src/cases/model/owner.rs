// SPDX-License-Identifier: GPL-2.0

//! Owners: threads that all do what they like at the same time, each with sessions and files of its own. So each knows
//! what it must be answered, whatever the others do.

use super::hands::{Hands, Mailbox};
use crate::cases::common::memfd::{self, Mapping};
use crate::cases::common::pages::PAGE;
use crate::ctx::Ctx;
use crate::process::Child;
use anyhow::{bail, Context, Result};
use luo_model::{Generator, Layout, Step, Told, World};
use std::collections::VecDeque;
use std::fs::File;
use std::os::fd::RawFd;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

/// Processes, and owners in each.
pub const PROCESSES: usize = 2;
pub const OF_EACH: usize = 2;
/// All owners.
pub const OWNERS: usize = PROCESSES * OF_EACH;

/// Longer than any owner works.
const PATIENCE: Duration = Duration::from_secs(200);
/// Room for a world.
const MESSAGE: usize = 1 << 17;
/// So many steps are shown before one that was answered wrongly.
const SHOWN: usize = 12;

/// The process of an owner.
pub fn process_of(owner: usize) -> usize {
    owner / OF_EACH
}

/// What all names of an owner begin with.
pub fn letter(owner: usize) -> u8 {
    b'A' + owner as u8
}

/// An owner's world with nothing in it.
pub fn new_world(owner: usize, memfd_format: &str, live_updates: u64) -> World {
    let layout = Layout {
        processes: 1,
        threads: 1,
        slots: 12,
        owner: letter(owner),
        alone: false,
        memfd_format: memfd_format.into(),
    };
    World::new(layout, live_updates)
}

/// How far the owners have come, in a memfd: whoever has it when everything stops, at a kexec too, can tell.
#[derive(Debug)]
pub struct Journal {
    /// The memfd.
    pub file: File,
    words: Mapping,
}

/// What there is a word for in the journal.
#[derive(Clone, Copy, Debug)]
pub enum Word {
    /// How many steps an owner has begun.
    Begun(usize),
    /// How many of these have ended.
    Ended(usize),
    /// 1 when reboot() is about to be called.
    Reboot,
    /// 1 when a process is about to be killed, and 2 when it is gone.
    Killed,
    /// After how many steps an owner was answered wrongly; 0 if it was not.
    Wrong(usize),
}

impl Word {
    fn index(self) -> usize {
        match self {
            Self::Begun(owner) => 2 * owner,
            Self::Ended(owner) => 2 * owner + 1,
            Self::Reboot => 2 * OWNERS,
            Self::Killed => 2 * OWNERS + 1,
            Self::Wrong(owner) => 2 * OWNERS + 2 + owner,
        }
    }
}

impl Journal {
    /// A new one: a page of numbers, and one for what went wrong.
    pub fn new() -> Result<Self> {
        let file = memfd::create(2 * PAGE as u64)?;
        // A hole could be filled too late for a kexec.
        file.write_all_at(&[0; 2 * PAGE], 0)?;
        Self::of(file)
    }

    /// One that there is.
    pub fn of(file: File) -> Result<Self> {
        let words = Mapping::new(&file, PAGE)?;
        Ok(Self { file, words })
    }

    /// Reads a number.
    pub fn load(&self, word: Word) -> u64 {
        self.words.load(word.index())
    }

    /// Writes one.
    pub fn store(&self, word: Word, number: u64) {
        self.words.store(word.index(), number);
    }

    /// How many steps the owners of a process have done.
    pub fn ended(&self, process: usize) -> u64 {
        let owners = (0..OWNERS).filter(|owner| process_of(*owner) == process);
        owners.map(|owner| self.load(Word::Ended(owner))).sum()
    }

    /// Waits until the owners have come so far; an error if one of them was answered wrongly.
    pub fn wait(&self, ctx: &Ctx, mut done: impl FnMut() -> bool) -> Result<()> {
        let mut complaint = None;
        ctx.wait_for("the owners' work", PATIENCE, || {
            complaint = self.complaint().ok().flatten();
            complaint.is_some() || done()
        })?;
        match complaint {
            Some(complaint) => bail!(complaint),
            None => Ok(()),
        }
    }

    /// Notes what went wrong.
    fn complain(&self, what: &str) {
        let len = what.len().min(PAGE);
        let _ = self.file.write_all_at(&what.as_bytes()[..len], PAGE as u64);
    }

    /// What went wrong, if something did.
    pub fn complaint(&self) -> Result<Option<String>> {
        let mut bytes = vec![0; PAGE];
        self.file.read_exact_at(&mut bytes, PAGE as u64)?;
        let text = String::from_utf8_lossy(&bytes);
        let text = text.trim_end_matches('\0');
        Ok((!text.is_empty()).then(|| text.to_string()))
    }
}

/// An owner: what it has, and what it will do.
#[derive(Clone, Debug)]
pub struct Owner {
    /// Its number.
    pub number: usize,
    /// What it has.
    pub world: World,
    generator: Generator,
}

impl Owner {
    /// One with these things, whose steps follow from the seed.
    pub fn new(number: usize, world: World, seed: u64) -> Self {
        let generator = Generator::new(seed ^ (number as u64 + 1) << 56);
        Self {
            number,
            world,
            generator,
        }
    }

    /// The steps that it takes, from the first one on, if it does not do them.
    pub fn imagine_all(&self, count: u64) -> Vec<Step> {
        let mut this = self.clone();
        (0..count).map(|_| this.imagine()).collect()
    }

    /// Makes its next step in its world alone.
    pub fn imagine(&mut self) -> Step {
        let step = self.generator.step(&self.world);
        let _ = self.world.apply(&step);
        step
    }

    /// Takes so many steps. An error says which one was answered wrongly, and what came before it.
    fn work(&mut self, hands: &Hands<'_>, journal: &Journal, steps: u64) -> Result<(), String> {
        let mut last = VecDeque::new();
        for number in 1..=steps {
            let step = self.generator.step(&self.world);
            journal.store(Word::Begun(self.number), number);
            let answer = hands.perform(&step.command);
            journal.store(Word::Ended(self.number), number);
            let wanted = self.world.apply(&step);
            let frozen =
                journal.load(Word::Reboot) != 0 && answer.as_ref().is_ok_and(Told::is_of_kexec);
            let right = answer == wanted || frozen;
            last.push_back((step, answer));
            if !right {
                journal.store(Word::Wrong(self.number), number);
                let last = last
                    .iter()
                    .map(|(step, answer)| format!("\n  {step}: {answer:?}"));
                return Err(format!(
                    "owner {}, after {number} steps:{}\n  instead of {wanted:?}",
                    self.number,
                    last.collect::<String>()
                ));
            }
            if last.len() == SHOWN {
                last.pop_front();
            }
        }
        Ok(())
    }
}

/// A process with its owners at work.
#[derive(Debug)]
pub struct Team {
    /// The process.
    pub child: Child,
    reports: Vec<UnixDatagram>,
}

impl Team {
    /// Lets owners take so many steps each.
    pub fn start(device: RawFd, journal: &Journal, owners: Vec<Owner>, steps: u64) -> Result<Self> {
        let pairs: std::io::Result<Vec<_>> = owners.iter().map(|_| UnixDatagram::pair()).collect();
        let (reports, theirs): (Vec<_>, Vec<_>) = pairs?.into_iter().unzip();
        for report in &reports {
            report.set_read_timeout(Some(PATIENCE))?;
        }
        let child = Child::spawn(|_| {
            std::thread::scope(|scope| {
                for (owner, line) in owners.into_iter().zip(&theirs) {
                    scope.spawn(move || live(device, journal, owner, steps, line));
                }
            });
        })?;
        Ok(Self { child, reports })
    }

    /// Waits for the owners' worlds at the end of their work.
    pub fn worlds(&self) -> Result<Vec<World>> {
        let mut message = vec![0; MESSAGE];
        let worlds = self.reports.iter().map(|report| {
            let len = report.recv(&mut message).context("an owner's report")?;
            let report: Result<World, String> = postcard::from_bytes(&message[..len])?;
            report.map_err(anyhow::Error::msg)
        });
        worlds.collect()
    }
}

/// All owners but one, who work until this is dropped.
#[derive(Debug)]
pub struct Rivals {
    _teams: Vec<Team>,
}

impl Rivals {
    /// Lets them begin, with nothing.
    pub fn start(
        device: RawFd,
        journal: &Journal,
        layout: &Layout,
        live_updates: u64,
        seed: u64,
    ) -> Result<Self> {
        let of_process = |process| {
            let owners = (0..OWNERS)
                .filter(|&owner| process_of(owner) == process && letter(owner) != layout.owner);
            let owners = owners.map(|owner| {
                let world = new_world(owner, &layout.memfd_format, live_updates);
                Owner::new(owner, world, seed)
            });
            Team::start(device, journal, owners.collect(), u64::MAX)
        };
        Ok(Self {
            _teams: (0..PROCESSES).map(of_process).collect::<Result<_>>()?,
        })
    }
}

/// The life of an owner: work, and then hold what there is until the end.
fn live(device: RawFd, journal: &Journal, mut owner: Owner, steps: u64, line: &UnixDatagram) {
    let Ok(mailbox) = Mailbox::new() else { return };
    let hands = Hands::new(device, &mailbox, owner.world.layout());
    let done = owner.work(&hands, journal, steps);
    if let Err(why) = &done {
        journal.complain(why);
    }
    let report = done.map(|()| owner.world);
    if let Ok(report) = postcard::to_allocvec(&report) {
        let _ = line.send(&report);
    }
    loop {
        nix::unistd::pause();
    }
}

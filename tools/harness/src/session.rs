// SPDX-License-Identifier: GPL-2.0

//! One VM from start to end: its events become results.

use crate::batch::Batch;
use crate::console::{Complaint, Console};
use crate::qemu::{Accel, End, Heard, Machine, Qemu};
use crate::tally::Tally;
use anyhow::Result;
use luo_vm_protocol::{Event, Outcome};
use std::time::{Duration, Instant};

/// How long a kernel may take to boot, unless a test may take longer still.
const BOOT: Duration = Duration::from_secs(240);
/// What the harness waits longer than the VM itself does for a test.
const SLACK: Duration = Duration::from_secs(30);
/// Lines of the console that are shown with a failure.
const TAIL: usize = 25;

/// A run of one batch in one VM.
struct Session<'a> {
    batch: &'a Batch,
    tally: &'a Tally,
    console: Console,
    /// Tests without a result so far.
    left: Vec<String>,
    /// The test that runs, and since when.
    running: Option<(String, Instant)>,
    booted: bool,
    /// Whether the VM could not do what is beside the tests, as the search for leaks is.
    gave_up: bool,
    /// Whether QEMU is the processor.
    emulated: bool,
}

/// What may have been the emulator's doing, so that another try is worth it.
#[derive(Debug)]
pub enum Doubt {
    /// It crashed, by this signal, which is nobody's fault in the VM: it was seen once in some thousand boots.
    Crash(i32),
    /// The test says that a guest within the VM went no further, and how.
    Guest(String),
}

impl std::fmt::Display for Doubt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Crash(signal) => write!(f, "QEMU itself crashed, by signal {signal}"),
            Self::Guest(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for Doubt {}

/// Runs a batch. Gives back the tests that had no turn because the VM ended early, for another VM. Fails with [`Doubt`]
/// if none of its tests has a result, and the emulator may be why.
pub fn run(batch: &Batch, machine: &Machine, tally: &Tally) -> Result<Vec<String>> {
    let mut qemu = Qemu::start(machine)?;
    let console = Console::follow(qemu.console())?;
    let mut session = Session {
        batch,
        tally,
        console,
        left: batch.tests.clone(),
        running: None,
        booted: false,
        gave_up: false,
        emulated: machine.accel != Accel::Kvm,
    };
    let boot = BOOT.max(Duration::from_secs(batch.config.timeout_s.into()));
    let mut patience = boot;
    let end = loop {
        match qemu.next(patience) {
            Heard::Event(Event::Start { test, timeout_s }, _) => {
                patience = Duration::from_secs(timeout_s.into()) + SLACK;
                let since = session
                    .running
                    .take()
                    .map_or_else(Instant::now, |(_, since)| since);
                session.running = Some((test, since));
            }
            Heard::Event(Event::Boot { .. }, _) => session.booted = true,
            Heard::Event(Event::Result { test, outcome, ms }, _) => {
                session.result(&test, outcome, Duration::from_millis(ms))?;
            }
            Heard::Event(Event::Figure { text }, _) => session.tally.figure(&text),
            Heard::Event(Event::Jump { .. }, _) => patience = boot,
            Heard::Event(Event::Note { text }, _) => {
                session.gave_up = true;
                break format!("the VM gave up: {text}");
            }
            Heard::Event(Event::Demo(_) | Event::Bench(_), _) => {}
            Heard::Event(Event::Done, _) => break "the VM ended without running it".to_string(),
            Heard::Silence => break format!("nothing from the VM for {} s", patience.as_secs()),
            Heard::End => break "the VM ended by itself".to_string(),
        }
    };
    let stopped = qemu.stop();
    if let End::Crash(signal) = stopped {
        session.console.read()?;
        if session.left.len() == batch.tests.len() && !session.has_complaints() {
            return Err(Doubt::Crash(signal).into());
        }
    }
    session.end(&end, matches!(stopped, End::PowerOff))
}

impl Session<'_> {
    /// A test, or a case inside one, ended.
    fn result(&mut self, test: &str, outcome: Outcome, took: Duration) -> Result<()> {
        self.console.read_to_end_of(test)?;
        let mut took = took;
        if self.left.iter().any(|left| left == test) {
            self.left.retain(|left| left != test);
            if let Some((_, since)) = self.running.take_if(|(running, _)| running == test) {
                // Of several stages the VM knows the time of the last only.
                if self.batch.stages > 1 {
                    took = since.elapsed();
                }
            }
        }
        let (mine, others) = self.complaints(Some(test));
        let outcome = match (outcome, mine.first()) {
            (Outcome::Passed | Outcome::Skipped(_) | Outcome::Doubtful(_), Some(line)) => {
                Outcome::Failed(format!("the kernel complained: {line}"))
            }
            // The VM is this test's alone, and ends here.
            (Outcome::Doubtful(why), None) if self.emulated && self.batch.stages > 1 => {
                return Err(Doubt::Guest(why).into());
            }
            (outcome, _) => outcome,
        };
        self.print(test, &outcome, took);
        self.blame_vm(&others);
        Ok(())
    }

    /// The VM is gone, for this reason; what has no result fails or gets another chance.
    fn end(mut self, why: &str, powered_off: bool) -> Result<Vec<String>> {
        self.console.read()?;
        let running = self.running.take();
        let (mine, others) = self.complaints(running.as_ref().map(|(test, _)| test.as_str()));
        if let Some((test, since)) = running {
            self.left.retain(|left| *left != test);
            let why = mine
                .first()
                .map_or(why.to_string(), |line| format!("{why}: {line}"));
            self.print(&test, &Outcome::Failed(why), since.elapsed());
            self.blame_vm(&others);
            return Ok(self.left);
        }
        // Nothing ran: another VM would do no better.
        let outcome = Outcome::Failed(if self.booted {
            why.to_string()
        } else {
            format!("no boot: {why}")
        });
        for (index, test) in self.left.iter().enumerate() {
            // The console once is enough.
            let tail = if index == 0 {
                self.console.tail(TAIL)
            } else {
                &[]
            };
            self.tally.add(test, &outcome, Duration::ZERO, tail);
        }
        if self.gave_up && self.left.is_empty() {
            self.blame_vm(&[why.to_string()]);
        }
        self.blame_vm(&[mine, others].concat());
        if !powered_off {
            self.blame_vm(&["it did not power off".to_string()]);
        }
        Ok(Vec::new())
    }

    /// What the kernel complained about during this test, and else; less what the tests expect.
    fn complaints(&mut self, test: Option<&str>) -> (Vec<String>, Vec<String>) {
        let (mine, others): (Vec<Complaint>, Vec<Complaint>) = self
            .console
            .take_complaints()
            .into_iter()
            .filter(|complaint| !self.expects(complaint))
            // A VM of one test is all that test's.
            .partition(|complaint| {
                self.batch.stages > 1 || (test.is_some() && complaint.test.as_deref() == test)
            });
        let lines =
            |list: Vec<Complaint>| list.into_iter().map(|complaint| complaint.line).collect();
        (lines(mine), lines(others))
    }

    /// Whether there is one, of which nobody was told yet.
    fn has_complaints(&self) -> bool {
        let mut complaints = self.console.complaints().iter();
        complaints.any(|complaint| !self.expects(complaint))
    }

    fn expects(&self, complaint: &Complaint) -> bool {
        let mut allowed = self.batch.config.allow_log.iter();
        allowed.any(|piece| complaint.line.contains(piece))
    }

    /// A complaint at boot or power-off counts as a failure of its own.
    fn blame_vm(&self, complaints: &[String]) {
        if let Some(line) = complaints.first() {
            let name = format!("vm::{}", self.batch.name);
            self.print(
                &name,
                &Outcome::Failed(format!("outside of any test: {line}")),
                Duration::ZERO,
            );
        }
    }

    fn print(&self, name: &str, outcome: &Outcome, took: Duration) {
        self.tally.add(name, outcome, took, self.console.tail(TAIL));
    }
}

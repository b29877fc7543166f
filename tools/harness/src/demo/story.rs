// SPDX-License-Identifier: GPL-2.0

//! Tells on the terminal what happens, while it happens.

use super::data::Amount;
use super::record::Kernel;
use super::timeline::{human, Side, Timeline};
use crate::qemu::Accel;
use crate::units::thousands;
use luo_vm_protocol::demo::{DemoEvent, Step};
use std::io::IsTerminal;
use std::path::Path;

/// The teller.
#[derive(Debug)]
pub struct Story {
    colour: bool,
    after: bool,
}

impl Story {
    /// Colours only where there is someone to see them.
    pub fn new() -> Self {
        Self {
            colour: std::io::stdout().is_terminal(),
            after: false,
        }
    }

    /// What is about to be done.
    pub fn title(&self, data: &Path, amount: Amount, memory_mib: u32, accel: Accel) {
        println!();
        println!(
            "{}",
            self.paint("1", "Live update: change the kernel, keep the data")
        );
        println!();
        let (files, size) = (thousands(amount.files), mebibytes(amount.bytes));
        println!("  data      {files} files, {size}: {}", data.display());
        println!("  machine   QEMU ({accel}), 2 CPUs, {memory_mib} MiB of memory");
        println!();
    }

    /// A kernel is up.
    pub fn kernel(&mut self, kernel: &Kernel) {
        let which = if self.after {
            "New kernel"
        } else {
            "Old kernel"
        };
        println!("{}  {}", self.paint("36;1", which), kernel.version);
        println!("    boot id {}", kernel.boot_id);
    }

    /// Something happened.
    pub fn event(&mut self, event: &DemoEvent) {
        match event {
            DemoEvent::Step {
                step: Step::Load, ..
            } => {
                self.say("a service read the data into memory and takes requests");
            }
            DemoEvent::Served { requests } if self.after => {
                self.say(&format!(
                    "{} more requests answered: the service goes on",
                    thousands(*requests)
                ));
            }
            DemoEvent::Served { requests } => {
                self.say(&format!(
                    "{} requests answered, every sum right",
                    thousands(*requests)
                ));
            }
            DemoEvent::Holding {
                files,
                bytes,
                memfds,
                sessions,
            } => {
                let (files, size) = (thousands(*files), mebibytes(*bytes));
                let sessions = if *sessions == 1 {
                    "1 session".into()
                } else {
                    format!("{sessions} sessions")
                };
                self.say(&format!(
                    "preserved: {files} files, {size}, in {memfds} memfds of {sessions}"
                ));
            }
            DemoEvent::Step {
                step: Step::LoadKernel,
                ..
            } => self.say("the next kernel is loaded"),
            DemoEvent::Reboot { .. } => {
                println!();
                println!(
                    "    {}",
                    self.paint("35;1", "reboot(LINUX_REBOOT_CMD_KEXEC) ...")
                );
                println!();
                self.after = true;
            }
            DemoEvent::Step {
                step: Step::Retrieve,
                ..
            } => self.say("the service took its memfds back"),
            DemoEvent::Step {
                step: Step::FirstAnswer,
                ..
            } => self.say("and answers its first request"),
            DemoEvent::Verdict {
                right,
                bytes,
                wrong,
            } => {
                let text = format!(
                    "SHA-256 of every file: {} right ({}), {} wrong",
                    thousands(*right),
                    mebibytes(*bytes),
                    wrong.len()
                );
                let colour = if wrong.is_empty() { "32;1" } else { "31;1" };
                println!("    {}", self.paint(colour, &text));
                for path in wrong.iter().take(10) {
                    println!("      wrong: {path}");
                }
            }
            DemoEvent::Guest { processors, count } => self.say(&format!(
                "a virtual machine with {processors} vCPUs runs beside it, and has counted to {count}"
            )),
            DemoEvent::NoGuest { why } => {
                self.say(&format!("no virtual machine beside it: {why}"));
            }
            DemoEvent::Step {
                step: Step::ResumeGuest,
                ..
            } => self.say("the virtual machine goes on"),
            DemoEvent::GuestVerdict {
                before,
                after,
                gap_ms,
            } => {
                let text = format!(
                    "the virtual machine counted to {before} before, and to {after} by now, without a reboot, \
                     its memory right"
                );
                println!("    {}", self.paint("32;1", &text));
                self.say(&format!("by its own clock it stood still for {gap_ms} ms"));
            }
            DemoEvent::Clock { .. } | DemoEvent::Arrived { .. } | DemoEvent::Step { .. } => {}
        }
    }

    /// The timeline in letters.
    pub fn timeline(&self, timeline: &Timeline) {
        const CELLS: f64 = 44.0;
        println!();
        println!("{}", self.paint("1", "Timeline"));
        let scale = CELLS / timeline.end();
        for phase in &timeline.phases {
            let from = (phase.from * scale) as usize;
            let len = ((phase.took() * scale).round() as usize).max(1);
            let colour = match phase.side {
                Side::Old => "34",
                Side::Between => "90",
                Side::New => "33",
            };
            let bar = self.paint(colour, &"█".repeat(len));
            println!(
                "    {:<14}{:>10}  {}{bar}",
                phase.name,
                human(phase.took()),
                " ".repeat(from)
            );
        }
        let (from, to) = timeline.silent;
        let text = format!(
            "    {:<14}{:>10}  reboot() to the first answer",
            "no service",
            human(to - from)
        );
        println!("{}", self.paint("1", &text));
        if let Some((from, to)) = timeline.paused {
            let text = format!(
                "    {:<14}{:>10}  of the guest, from the last instruction to the next",
                "standstill",
                human(to - from)
            );
            println!("{}", self.paint("1", &text));
        }
        println!();
    }

    /// How it ended.
    pub fn end(&self, failures: &[String], picture: Option<&Path>) {
        for failure in failures {
            println!("{}", self.paint("31;1", &format!("FAILED: {failure}")));
        }
        if failures.is_empty() {
            let text = "Another kernel runs, and every byte is where it was.";
            println!("{}", self.paint("32;1", text));
        }
        if let Some(picture) = picture {
            println!("Picture of the timeline: {}", picture.display());
        }
    }

    fn say(&self, text: &str) {
        println!("    {text}");
    }

    fn paint(&self, colour: &str, text: &str) -> String {
        if self.colour {
            format!("\x1b[{colour}m{text}\x1b[0m")
        } else {
            text.to_string()
        }
    }
}

/// What was kept, in a line.
pub fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

// SPDX-License-Identifier: GPL-2.0

//! The order of events in milliseconds, from the preservation on.

use super::record::Record;
use luo_vm_protocol::demo::Step;

/// Whose time a phase is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Side {
    /// The old kernel, the service at work.
    Old,
    /// Neither: between the two.
    Between,
    /// The new kernel.
    New,
}

/// A bar of the timeline.
#[derive(Clone, Debug)]
pub struct Phase {
    /// What happens.
    pub name: &'static str,
    /// The same in a few more words.
    pub note: &'static str,
    /// Whose time.
    pub side: Side,
    /// Start in ms.
    pub from: f64,
    /// End in ms.
    pub to: f64,
}

impl Phase {
    /// Its length in ms.
    pub fn took(&self) -> f64 {
        self.to - self.from
    }
}

/// All of it.
#[derive(Clone, Debug)]
pub struct Timeline {
    /// The phases, by their start.
    pub phases: Vec<Phase>,
    /// The time without service: from reboot() to the first answer in the new kernel.
    pub silent: (f64, f64),
    /// The time in which the virtual machine stood still, if there was one.
    pub paused: Option<(f64, f64)>,
}

impl Timeline {
    /// Puts the record in order; `None` when something of it is missing.
    ///
    /// `ours` tells that luo.ko was inserted.
    pub fn new(record: &Record, ours: bool) -> Option<Self> {
        let ticks = record.ticks_per_ms()?;
        let (zero, _) = *record.steps.get(&Step::Preserve)?;
        let ms = |tsc: u64| (tsc as f64 - zero as f64) / ticks;
        let reboot = ms(record.reboot?);
        let first_line = ms(record.tsc_at(record.first_line?)?);
        let arrived = ms(record.arrived?);
        let mut phases = Vec::new();
        let mut add = |name, note, side, from, to| {
            phases.push(Phase {
                name,
                note,
                side,
                from,
                to,
            })
        };
        let step = |step| {
            record
                .steps
                .get(&step)
                .map(|&(from, to)| (ms(from), ms(to)))
        };

        let (from, to) = step(Step::Preserve)?;
        add("preserve", "memfds into the session", Side::Old, from, to);
        if let Some((from, to)) = step(Step::PreserveGuest) {
            let note = "guest RAM into a session";
            add("preserve guest", note, Side::Old, from, to);
        }
        let (from, to) = step(Step::LoadKernel)?;
        add("load kernel", "kexec_file_load", Side::Old, from, to);
        if let Some((from, to)) = step(Step::PauseGuest) {
            let note = "vCPUs stop, state written";
            add("pause guest", note, Side::Old, from, to);
        }
        // The C orchestrator does not tell how long it froze.
        let mut jump_from = reboot;
        if let (Some(froze), Some((at, tsc))) = (record.froze, record.log_clock) {
            let to = ms(tsc) + (froze.at - at) * 1e3;
            add(
                "freeze",
                "serialise, inside reboot()",
                Side::Old,
                to - froze.took_us as f64 / 1e3,
                to,
            );
            jump_from = to;
        }
        add(
            "jump",
            "devices down, into the new kernel",
            Side::Between,
            jump_from,
            first_line,
        );
        add(
            "kernel boot",
            "first line to /init",
            Side::New,
            first_line,
            arrived,
        );
        if ours {
            let (from, to) = step(Step::LoadModule)?;
            add("module load", "insmod luo.ko", Side::New, from, to);
        }
        let (from, to) = step(Step::Retrieve)?;
        add("retrieve", "memfds out of the session", Side::New, from, to);
        let (from, finished) = step(Step::Finish)?;
        add("finish", "the session is over", Side::New, from, finished);
        let (_, to) = step(Step::FirstAnswer)?;
        add(
            "first answer",
            "the service reads its index",
            Side::New,
            finished,
            to,
        );
        if let Some((from, to)) = step(Step::LoadKvm) {
            add("load KVM", "insmod kvm.ko", Side::New, from, to);
        }
        let mut paused = None;
        if let (Some((stopped, _)), Some((from, to))) =
            (step(Step::PauseGuest), step(Step::ResumeGuest))
        {
            let note = "VM built around its memory";
            add("resume guest", note, Side::New, from, to);
            paused = Some((stopped, to));
        }
        Some(Self {
            phases,
            silent: (reboot, to),
            paused,
        })
    }

    /// Where it ends.
    pub fn end(&self) -> f64 {
        self.phases
            .iter()
            .map(|phase| phase.to)
            .fold(self.silent.1, f64::max)
    }
}

/// A time as people read it: three digits that mean something.
pub fn human(ms: f64) -> String {
    match ms {
        ms if ms >= 100.0 => format!("{ms:.0} ms"),
        ms if ms >= 10.0 => format!("{ms:.1} ms"),
        ms => format!("{ms:.2} ms"),
    }
}

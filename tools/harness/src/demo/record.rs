// SPDX-License-Identifier: GPL-2.0

//! What was heard from the VM, with the clocks that it takes to put it in order.

use crate::console::split_line;
use luo_vm_protocol::demo::{DemoEvent, Step, MARK_CLOCK};
use std::collections::BTreeMap;
use std::time::Instant;

/// One kernel.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// `uname -v`.
    pub version: String,
    /// Its random identity.
    pub boot_id: String,
}

/// The line of luo.ko about its freeze.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Froze {
    /// Seconds of the kernel log's clock.
    pub at: f64,
    /// Microseconds it took.
    pub took_us: u64,
}

/// Everything heard.
#[derive(Debug, Default)]
pub struct Record {
    /// The kernels, in order.
    pub kernels: Vec<Kernel>,
    /// Counter and kernel clock of the first kernel, at its first and its last sample.
    clock: Option<(Sample, Sample)>,
    /// Counter at start and end of each step.
    pub steps: BTreeMap<Step, (u64, u64)>,
    /// Counter at the call of reboot().
    pub reboot: Option<u64>,
    /// Counter when the new kernel's /init began.
    pub arrived: Option<u64>,
    /// The freeze.
    pub froze: Option<Froze>,
    /// The log's clock and the counter at one moment.
    pub log_clock: Option<(f64, u64)>,
    /// When the host saw the new kernel's first line.
    pub first_line: Option<Instant>,
    /// Pairs of counter and host time: what the VM said, and when it arrived here.
    arrivals: Vec<(u64, Instant)>,
}

#[derive(Clone, Copy, Debug)]
struct Sample {
    tsc: u64,
    monotonic_ns: u64,
}

impl Record {
    /// Takes in an event that arrived at `at`.
    pub fn event(&mut self, event: &DemoEvent, at: Instant) {
        match *event {
            DemoEvent::Clock { tsc, monotonic_ns } => {
                let sample = Sample { tsc, monotonic_ns };
                self.clock = Some((self.clock.map_or(sample, |(first, _)| first), sample));
                self.arrivals.push((tsc, at));
            }
            DemoEvent::Step { step, from, to } => {
                self.steps.insert(step, (from, to));
                self.arrivals.push((to, at));
            }
            DemoEvent::Reboot { tsc } => {
                self.reboot = Some(tsc);
                self.arrivals.push((tsc, at));
            }
            DemoEvent::Arrived { tsc } => self.arrived = Some(tsc),
            DemoEvent::Holding { .. }
            | DemoEvent::Guest { .. }
            | DemoEvent::NoGuest { .. }
            | DemoEvent::GuestVerdict { .. }
            | DemoEvent::Served { .. }
            | DemoEvent::Verdict { .. } => {}
        }
    }

    /// Takes in a line of the console seen at `at`.
    pub fn line(&mut self, line: &str, at: Instant) {
        if self.reboot.is_some() && self.first_line.is_none() && line.contains("Linux version") {
            self.first_line = Some(at);
        }
        let Some((time, text)) = split_line(line) else {
            return;
        };
        if let Some(tsc) = text
            .strip_prefix(MARK_CLOCK)
            .and_then(|tsc| tsc.parse().ok())
        {
            self.log_clock = Some((time, tsc));
        } else if text.starts_with("luo: froze ") {
            self.froze = text
                .rsplit_once(" in ")
                .and_then(|(_, rest)| rest.strip_suffix(" us")?.parse().ok())
                .map(|took_us| Froze { at: time, took_us });
        }
    }

    /// Counts of the counter in a millisecond.
    pub fn ticks_per_ms(&self) -> Option<f64> {
        let (first, last) = self.clock?;
        let ns = last
            .monotonic_ns
            .checked_sub(first.monotonic_ns)
            .filter(|&ns| ns > 0)?;
        Some((last.tsc - first.tsc) as f64 * 1e6 / ns as f64)
    }

    /// The counter at a moment of the host's clock: by the report that was on its way for the shortest time.
    pub fn tsc_at(&self, moment: Instant) -> Option<u64> {
        let ticks = self.ticks_per_ms()?;
        let ticks_since =
            |at: Instant| moment.saturating_duration_since(at).as_secs_f64() * 1e3 * ticks;
        // A report that was late gives too early a value; only those before the moment can be compared with it.
        let before = self.arrivals.iter().filter(|(_, at)| *at <= moment);
        before.map(|&(tsc, at)| tsc + ticks_since(at) as u64).max()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_freeze_line_is_understood() {
        let mut record = Record::default();
        record.line(
            "[   12.345678] luo: froze 2 sessions with 40 files in 180 us",
            Instant::now(),
        );
        assert_eq!(
            record.froze,
            Some(Froze {
                at: 12.345678,
                took_us: 180
            })
        );
    }

    #[test]
    fn the_counter_is_calibrated_and_the_least_delay_counts() {
        let mut record = Record::default();
        let start = Instant::now();
        let ms = std::time::Duration::from_millis(1);
        // 1000 counts a millisecond; the first report took 5 ms, the second none.
        record.event(
            &DemoEvent::Clock {
                tsc: 1000,
                monotonic_ns: 0,
            },
            start + 5 * ms,
        );
        record.event(
            &DemoEvent::Clock {
                tsc: 11_000,
                monotonic_ns: 10_000_000,
            },
            start + 10 * ms,
        );
        assert_eq!(record.ticks_per_ms(), Some(1000.0));
        assert_eq!(record.tsc_at(start + 20 * ms), Some(21_000));
    }
}

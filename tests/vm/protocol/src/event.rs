// SPDX-License-Identifier: GPL-2.0

//! What the VM reports.

use crate::bench::BenchEvent;
use crate::demo::DemoEvent;
use serde::{Deserialize, Serialize};

/// How a test ended.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "outcome", content = "why")]
pub enum Outcome {
    /// All it promises holds.
    Passed,
    /// It does not, for this reason.
    Failed(String),
    /// It could not be tried here, for this reason.
    Skipped(String),
    /// It did not come to its end, for this reason, which on an emulated processor need not be what it tests.
    Doubtful(String),
}

/// One line of the report.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "event")]
pub enum Event {
    /// A kernel is up and `/init` runs.
    Boot {
        /// Which kernel of the chain, from 1.
        stage: usize,
        /// `uname -v`.
        version: String,
        /// The kernel's random identity of this boot.
        boot_id: String,
        /// Milliseconds since the kernel started its clock.
        uptime_ms: u64,
    },
    /// A test, or the next stage of one, begins.
    Start {
        /// `module::test`.
        test: String,
        /// Seconds it may take.
        timeout_s: u32,
    },
    /// A test ended, or one of the cases inside it.
    Result {
        /// `module::test`, or the name of the case.
        test: String,
        /// How.
        #[serde(flatten)]
        outcome: Outcome,
        /// Milliseconds it took in this kernel.
        ms: u64,
    },
    /// The kernel is about to hand over to the next.
    Jump {
        /// Stage of the next kernel.
        stage: usize,
    },
    /// A figure that the running test found.
    Figure {
        /// The figure, and what it is of.
        text: String,
    },
    /// Something to show, belonging to no test.
    Note {
        /// The text.
        text: String,
    },
    /// A line of the demonstration.
    Demo(DemoEvent),
    /// A line of the benchmark.
    Bench(BenchEvent),
    /// Nothing more will come; the VM powers off.
    Done,
}

impl Event {
    /// The event as one line of text, without the line's end.
    pub fn to_line(&self) -> String {
        serde_json::to_string(self).expect("an event is always representable as JSON")
    }

    /// Reads a line; `None` when it is not an event.
    pub fn from_line(line: &str) -> Option<Self> {
        serde_json::from_str(line.trim()).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_survives_the_line() {
        let event = Event::Result {
            test: "device::open".into(),
            outcome: Outcome::Failed("two\nlines and a \"quote\"".into()),
            ms: 12,
        };
        let line = event.to_line();
        assert!(!line.contains('\n'));
        match Event::from_line(&line) {
            Some(Event::Result {
                test,
                outcome: Outcome::Failed(why),
                ms,
            }) => {
                assert_eq!(
                    (test.as_str(), why.as_str(), ms),
                    ("device::open", "two\nlines and a \"quote\"", 12)
                );
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn noise_is_not_an_event() {
        assert!(Event::from_line("[    0.000000] Linux version").is_none());
        assert!(Event::from_line("").is_none());
    }
}

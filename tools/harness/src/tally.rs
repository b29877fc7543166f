// SPDX-License-Identifier: GPL-2.0

//! Prints results as they come and counts them.

use luo_vm_protocol::Outcome;
use std::fmt;
use std::io::IsTerminal;
use std::sync::Mutex;
use std::time::Duration;

/// Counts of what was printed. Shared by all that produce results.
#[derive(Debug, Default)]
pub struct Tally(Mutex<Counts>);

/// How many of each.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Counts {
    /// Passed.
    pub passed: usize,
    /// Failed.
    pub failed: usize,
    /// Skipped.
    pub skipped: usize,
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            passed,
            failed,
            skipped,
        } = self;
        write!(f, "{passed} passed, {failed} failed, {skipped} skipped")
    }
}

impl Tally {
    /// Prints a result, and on failure what may explain it.
    pub fn add(&self, name: &str, outcome: &Outcome, took: Duration, context: &[String]) {
        // Held while printing, so that lines of two workers do not mix.
        let mut counts = self.0.lock().expect("no one panics while printing");
        let seconds = took.as_secs_f64();
        match outcome {
            Outcome::Passed => {
                counts.passed += 1;
                println!("{} {name} ({seconds:.2} s)", paint("32", "ok"));
            }
            Outcome::Skipped(why) => {
                counts.skipped += 1;
                println!("{} {name}: {why}", paint("33", "skip"));
            }
            Outcome::Failed(why) | Outcome::Doubtful(why) => {
                counts.failed += 1;
                println!("{} {name}: {why}", paint("31;1", "FAIL"));
                for line in context {
                    println!("     | {line}");
                }
            }
        }
    }

    /// Prints a figure that a test found.
    pub fn figure(&self, text: &str) {
        // As in `add`.
        let _counts = self.0.lock().expect("no one panics while printing");
        println!("   {text}");
    }

    /// The counts so far.
    pub fn counts(&self) -> Counts {
        *self.0.lock().expect("no one panics while printing")
    }
}

/// Colours a word, where there is someone to see it.
fn paint(colour: &str, word: &str) -> String {
    if std::io::stdout().is_terminal() {
        format!("\x1b[{colour}m{word}\x1b[0m")
    } else {
        word.to_string()
    }
}

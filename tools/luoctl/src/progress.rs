// SPDX-License-Identifier: GPL-2.0

//! Shows that something goes on, on a terminal only, and leaves no trace of it when it is done.

use indicatif::{ProgressBar, ProgressStyle};
use std::time::Duration;

/// How often it moves.
const TICK: Duration = Duration::from_millis(120);

/// A line that moves until it is dropped.
#[derive(Debug)]
pub struct Progress(ProgressBar);

impl Progress {
    /// Something of which it is not known how long it takes.
    #[must_use]
    pub fn spinner(what: &str) -> Self {
        Self::start(
            ProgressBar::new_spinner(),
            "{spinner} {msg} {elapsed}",
            what,
        )
    }

    /// So many steps.
    #[must_use]
    pub fn steps(count: u64, what: &str) -> Self {
        let template = "{spinner} {msg} {wide_bar} {pos}/{len} {elapsed}";
        Self::start(ProgressBar::new(count), template, what)
    }

    /// So many bytes.
    #[must_use]
    pub fn bytes(count: u64, what: &str) -> Self {
        let template =
            "{spinner} {msg} {wide_bar} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta}";
        Self::start(ProgressBar::new(count), template, what)
    }

    fn start(bar: ProgressBar, template: &str, what: &str) -> Self {
        // A template that is not understood is a mistake here, and no reason to fail an update.
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_message(what.to_string());
        bar.enable_steady_tick(TICK);
        Self(bar)
    }

    /// So many steps or bytes more are done.
    pub fn advance(&self, by: u64) {
        self.0.inc(by);
    }

    /// Says what is done now.
    pub fn say(&self, what: impl Into<String>) {
        self.0.set_message(what.into());
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_templates_are_understood() {
        for progress in [
            Progress::spinner("x"),
            Progress::steps(2, "x"),
            Progress::bytes(2, "x"),
        ] {
            progress.advance(1);
            assert_eq!(progress.0.message(), "x");
        }
        for template in [
            "{spinner} {msg} {elapsed}",
            "{binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta}",
        ] {
            assert!(ProgressStyle::with_template(template).is_ok());
        }
    }
}

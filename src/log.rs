// SPDX-License-Identifier: GPL-2.0

//! Lines for operators that a program cannot flood the log with.

use kernel::{
    sync::{
        atomic::{Atomic, Relaxed},
        SetOnce,
    },
    time::{Instant, Monotonic},
};

/// How many warnings of one kind may be written in a row.
pub(crate) const WARNINGS: u32 = 10;
/// How many errors: they are about what the previous kernel left, once, and an operator needs all of
/// them, as far as a serial console can bear it.
pub(crate) const ERRORS: u32 = 200;
/// How long it takes until that many may be written again, in milliseconds.
const INTERVAL_MS: i64 = 5_000;

/// When the first line was written: a clock for intervals starts somewhere.
static EPOCH: SetOnce<Instant<Monotonic>> = SetOnce::new();

/// Limits how often one kind of line is written. A race may let some more pass.
pub(crate) struct Limit {
    /// How many may be written in an interval.
    burst: u32,
    /// When the interval began, in milliseconds since [`EPOCH`].
    begin: Atomic<i64>,
    /// Lines in this interval.
    lines: Atomic<u32>,
}

impl Limit {
    /// A limit that nothing has used up yet.
    pub(crate) const fn new(burst: u32) -> Self {
        Self {
            burst,
            begin: Atomic::new(0),
            lines: Atomic::new(0),
        }
    }

    /// Whether a line may be written now.
    pub(crate) fn permits(&self) -> bool {
        EPOCH.populate(Instant::now());
        let now = EPOCH
            .as_ref()
            .map_or(0, |epoch| epoch.elapsed().as_millis());
        if now - self.begin.load(Relaxed) > INTERVAL_MS {
            self.begin.store(now, Relaxed);
            self.lines.store(0, Relaxed);
        }
        self.lines.fetch_add(1, Relaxed) < self.burst
    }
}

/// Writes a line by this macro to the log, unless this place has written too many of late.
macro_rules! limited {
    ($print:ident, $burst:expr, $($arg:tt)*) => {{
        static LIMIT: $crate::log::Limit = $crate::log::Limit::new($burst);
        if LIMIT.permits() {
            ::kernel::prelude::$print!($($arg)*);
        }
    }};
}
pub(crate) use limited;

/// A warning, [limited].
macro_rules! warn_limited {
    ($($arg:tt)*) => { $crate::log::limited!(pr_warn, $crate::log::WARNINGS, $($arg)*) };
}
pub(crate) use warn_limited;

/// An error, [limited].
macro_rules! err_limited {
    ($($arg:tt)*) => { $crate::log::limited!(pr_err, $crate::log::ERRORS, $($arg)*) };
}
pub(crate) use err_limited;

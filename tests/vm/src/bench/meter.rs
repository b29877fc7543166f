// SPDX-License-Identifier: GPL-2.0

//! Measures operations and reports what they took.

use super::profile::Profile;
use super::report;
use crate::tsc;
use anyhow::{ensure, Result};
use luo_vm_protocol::bench::{BenchEvent, Figure};
use nix::time::{clock_gettime, ClockId};

/// By how many parts in a thousand the counter and the kernel's clock may differ.
const TOLERANCE: u64 = 10;
/// And by how many nanoseconds: one is read after the other, with a page fault or an interrupt between them.
const SLACK_NS: u64 = 20_000;

/// The clock, and whether to find out where the time goes, too.
pub struct Meter {
    profile: bool,
    start: (u64, u64),
}

impl Meter {
    /// Starts the clock.
    pub fn new(profile: bool) -> Result<Self> {
        let start = both_clocks()?;
        Ok(Self { profile, start })
    }

    /// Does `work`, which consists of `count` operations, and reports the time it took.
    pub fn time<T>(
        &self,
        figure: Figure,
        count: u64,
        work: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        let profile = self.profile.then(Profile::start).transpose()?;
        let from = tsc::now();
        let result = work();
        let took = tsc::now() - from;
        let profile = profile.map(Profile::stop).transpose()?;
        let result = result?;
        self.figure(figure, took as i64, count);
        if let Some(profile) = profile {
            profile.report(figure)?;
        }
        Ok(result)
    }

    /// Reports a figure that was found otherwise.
    pub fn figure(&self, figure: Figure, total: i64, count: u64) {
        report(BenchEvent::Figure {
            figure,
            total,
            count,
        });
    }

    /// Fails unless the counter counts nanoseconds of the kernel's clock: else it does not count instructions either.
    pub fn check_clock(&self) -> Result<()> {
        let (tsc, ns) = both_clocks()?;
        let (counts, ns) = (tsc - self.start.0, ns - self.start.1);
        ensure!(
            counts.abs_diff(ns) <= ns * TOLERANCE / 1000 + SLACK_NS,
            "the time stamp counter went on by {counts} while CLOCK_MONOTONIC_RAW says {ns} ns"
        );
        Ok(())
    }
}

/// The counter, and the kernel's clock in nanoseconds.
fn both_clocks() -> Result<(u64, u64)> {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC_RAW)?;
    let ns = time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64;
    Ok((tsc::now(), ns))
}

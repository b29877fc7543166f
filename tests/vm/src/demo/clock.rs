// SPDX-License-Identifier: GPL-2.0

//! The demonstration's times, by the clock that goes on through a kexec.

pub use crate::tsc::now;
use luo_vm_protocol::demo::{DemoEvent, Step};

/// The counter and the kernel's clock at one moment.
pub fn sample() -> anyhow::Result<DemoEvent> {
    let tsc = now();
    let time = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC)?;
    let monotonic_ns = time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64;
    Ok(DemoEvent::Clock { tsc, monotonic_ns })
}

/// Reports a step that began at `from` and ends now.
pub fn report_step(step: Step, from: u64) {
    super::report(DemoEvent::Step {
        step,
        from,
        to: now(),
    });
}

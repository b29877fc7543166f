// SPDX-License-Identifier: GPL-2.0

//! One clock over both kernels: the processor's time stamp counter, which a kexec leaves alone.

use luo_vm_protocol::demo::{DemoEvent, Step};

/// The counter now.
pub fn now() -> u64 {
    // SAFETY: every x86-64 processor has the instruction, and Linux lets user space use it.
    unsafe { std::arch::x86_64::_rdtsc() }
}

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

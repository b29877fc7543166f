// SPDX-License-Identifier: GPL-2.0

//! Tells the VMs' kernels how fast their clock runs, so that none has to find out.
//!
//! A kernel measures its time stamp counter against the PIT in the first milliseconds of its boot. Where the emulator
//! does not get the processor just then, the result is anything: on a busy machine one boot in six had a clock that ran
//! 3 to 40 times too fast. Its timeouts were over before anything could happen. ACPI's was, for one: the disks had no
//! interrupt then, and the VM hung.

use crate::qemu::Accel;

/// Words for the kernel command line, perhaps none.
pub fn words(accel: Accel) -> String {
    // KVM tells its guests by itself.
    match tsc_khz().filter(|_| accel == Accel::Tcg) {
        Some(khz) => format!("tsc_early_khz={khz}"),
        None => String::new(),
    }
}

/// How fast this machine's time stamp counter runs: QEMU's translator shows it to the VM as it is.
#[cfg(target_arch = "x86_64")]
fn tsc_khz() -> Option<u64> {
    use std::sync::OnceLock;
    use std::time::Duration;

    /// Long, beside the microsecond that a reading may be off.
    const SPAN: Duration = Duration::from_millis(50);
    static KHZ: OnceLock<u64> = OnceLock::new();

    Some(*KHZ.get_or_init(|| {
        let from = moment();
        std::thread::sleep(SPAN);
        let to = moment();
        let ticks = u128::from(to.1.saturating_sub(from.1));
        let khz = ticks * 1_000_000 / (to.0 - from.0).as_nanos();
        u64::try_from(khz).unwrap_or(u64::MAX)
    }))
}

/// Elsewhere the VM's counter is another.
#[cfg(not(target_arch = "x86_64"))]
fn tsc_khz() -> Option<u64> {
    None
}

/// One moment by both clocks: of some readings the one that was least disturbed.
#[cfg(target_arch = "x86_64")]
fn moment() -> (std::time::Instant, u64) {
    use std::time::Instant;

    let reading = || {
        let before = Instant::now();
        // SAFETY: every x86-64 processor has this counter, and Linux lets programs read it.
        let ticks = unsafe { std::arch::x86_64::_rdtsc() };
        (before.elapsed(), before, ticks)
    };
    let (_, at, ticks) = (0..100)
        .map(|_| reading())
        .min_by_key(|(took, ..)| *took)
        .expect("there are a hundred");
    (at, ticks)
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    #[test]
    fn only_the_translator_needs_it() {
        assert_eq!(words(Accel::Kvm), "");
        assert!(words(Accel::Tcg).starts_with("tsc_early_khz="));
    }

    /// Against a span of another length, as far as a busy machine lets one compare.
    #[test]
    fn the_counter_keeps_its_pace() {
        let khz = tsc_khz().unwrap() as f64;
        let (from, first) = moment();
        while from.elapsed() < Duration::from_millis(120) {
            std::hint::spin_loop();
        }
        let (to, last) = moment();
        let expected = khz * to.duration_since(from).as_secs_f64() * 1000.0;
        let ratio = (last - first) as f64 / expected;
        assert!((ratio - 1.0).abs() < 0.02, "{ratio}");
        assert!(to < Instant::now());
    }
}

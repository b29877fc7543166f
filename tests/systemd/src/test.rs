// SPDX-License-Identifier: GPL-2.0

//! The tests by name, the kernel that each belongs to, and how one is run.

use anyhow::{Context, Result};
use luo_vm::{kmsg, report};
use luo_vm_protocol::{Event, Outcome, MARK_END, MARK_START};
use std::time::Instant;

/// Word on the kernel command line that tells which kernel of the chain this is; the number follows.
pub const STAGE: &str = "luo_systemd.stage=";

/// Seconds that a test may take: that of the packages makes an initramfs, which is work for an emulated machine.
const TIMEOUT_S: u32 = 420;

/// Every test, and the kernel that it runs in.
pub const TESTS: &[(usize, &str)] = &[
    (1, "systemd::store_is_filled"),
    (1, "initramfs_tools::inserted_before_systemd"),
    (1, "package::tools_work"),
    (1, "package::module_is_built"),
    (2, "systemd::memfd_is_back"),
    (2, "systemd::session_is_back"),
    (2, "dracut::inserted_before_systemd"),
    (3, "systemd::memfd_is_back_again"),
    (3, "systemd::session_is_new"),
    (3, "initramfs_tools::inserted_before_systemd_again"),
    (3, "package::purge_leaves_nothing"),
    (4, "package::nothing_at_boot"),
];

/// Prints their names as JSON.
pub fn list() -> Result<()> {
    let names: Vec<_> = TESTS.iter().map(|(_, name)| name).collect();
    println!("{}", serde_json::to_string(&names)?);
    Ok(())
}

/// Which kernel of the chain this is, from 1.
pub fn stage() -> Result<usize> {
    let cmdline = std::fs::read_to_string("/proc/cmdline")?;
    let stage = cmdline
        .split_whitespace()
        .filter_map(|word| word.strip_prefix(STAGE))
        // Each kernel adds one to the words of the one before.
        .next_back();
    stage
        .with_context(|| format!("no {STAGE} on the kernel command line"))?
        .parse()
        .with_context(|| STAGE.to_string())
}

/// Runs the test of that name, and reports.
pub fn run(name: &str, test: impl FnOnce() -> Result<()>) {
    run_or_skip(name, || test().map(|()| Outcome::Passed));
}

/// The same with a test that finds out whether it can be tried here.
pub fn run_or_skip(name: &str, test: impl FnOnce() -> Result<Outcome>) {
    debug_assert!(TESTS.iter().any(|(_, known)| *known == name), "{name}");
    report::send(&Event::Start {
        test: name.into(),
        timeout_s: TIMEOUT_S,
    });
    kmsg::write(&format!("{MARK_START}{name}"));
    let began = Instant::now();
    let outcome = test().unwrap_or_else(|err| Outcome::Failed(format!("{err:#}")));
    kmsg::write(&format!("{MARK_END}{name}"));
    report::send(&Event::Result {
        test: name.into(),
        outcome,
        ms: began.elapsed().as_millis() as u64,
    });
}

// SPDX-License-Identifier: GPL-2.0

//! `harness systemd`: a Debian system with our packages, whose systemd keeps what services gave it over live updates.
//!
//! `tests/systemd` holds what is special about it: how the image of its disk is made, and the program that tests.

use crate::batch::{cmdline, Batch};
use crate::clock;
use crate::guest;
use crate::inputs::Inputs;
use crate::lock;
use crate::qemu::{Accel, Machine};
use crate::session;
use crate::tally::{Counts, Tally};
use anyhow::{ensure, Context, Result};
use luo_vm_protocol::{Orchestrator, VmConfig};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Names the folder of logs, and the VM.
const NAME: &str = "systemd";

/// What the kernels are started with beside the usual: all that systemd says is in the kernel log, from the start.
const WORDS: &str =
    "root=LABEL=luo-root rw printk.devkmsg=on systemd.log_target=kmsg systemd.show_status=no systemd.getty_auto=no \
                     luo_systemd.stage=1";

/// What was asked for.
#[derive(Debug)]
pub struct Options {
    /// The system as it comes, a tar archive.
    pub root: PathBuf,
    /// Folder with the packages to install in it.
    pub packages: PathBuf,
    /// The orchestrator that systemd finds.
    pub orchestrator: Orchestrator,
    /// What executes the VM.
    pub accel: Accel,
}

/// Makes the image, runs the tests and gives the sum.
pub fn systemd(inputs: &Inputs, options: &Options) -> Result<Counts> {
    let logs = inputs.repo.join("build/check").join(NAME);
    std::fs::create_dir_all(&logs).with_context(|| logs.display().to_string())?;
    let _lock = lock::take(&logs)?;
    let program = guest::build_static(&inputs.repo, "luo-systemd", "--bin", "luo-systemd")?;
    let luoctl = guest::build_static(&inputs.repo, "luoctl", "--bin", "luoctl")?;
    println!("installing our packages into the system, and making its initramfs images");
    image(inputs, options, &[&program, &luoctl], &logs)?;

    let words = format!("{} {WORDS}", clock::words(options.accel));
    let cmdline = cmdline(options.orchestrator, words.trim());
    let (root, initramfs) = (logs.join("root.ext4"), logs.join("initrd.img"));
    let batch = batch(&program)?;
    let machine = Machine {
        accel: options.accel,
        memory_mib: batch.config.memory_mib,
        cpus: batch.config.cpus,
        kernel: &inputs.bzimage,
        initramfs: &initramfs,
        data: None,
        root: Some(&root),
        cmdline: &cmdline,
        logs: &logs,
    };
    let tally = Tally::default();
    println!("booting it; the kernel is replaced three times");
    session::run(&batch, &machine, &tally)?;
    std::fs::remove_file(&root)?;
    Ok(tally.counts())
}

/// Makes the disk image, and what it boots with, in this folder.
fn image(inputs: &Inputs, options: &Options, programs: &[&Path], folder: &Path) -> Result<()> {
    let (Some(source), Some(build)) = (&inputs.linux_src, &inputs.linux_build) else {
        anyhow::bail!("set LINUX_SRC and LINUX_BUILD; `make check-systemd` does");
    };
    let status = Command::new(inputs.repo.join("tests/systemd/image"))
        .arg(&options.root)
        .arg(&options.packages)
        .arg(folder)
        .args(programs)
        .env("LINUX_SRC", source)
        .env("LINUX_BUILD", build)
        .env("BZIMAGE", &inputs.bzimage)
        .envs(inputs.luo_ko.iter().map(|module| ("LUO_KO", module)))
        .status()
        .context("tests/systemd/image")?;
    ensure!(status.success(), "there is no system to test");
    Ok(())
}

/// The tests that the program knows, as those of one VM.
fn batch(program: &Path) -> Result<Batch> {
    let output = Command::new(program).arg("list").output();
    let output = output.context("luo-systemd list")?;
    ensure!(
        output.status.success(),
        "luo-systemd list: {}",
        output.status
    );
    Ok(Batch {
        name: NAME.into(),
        tests: serde_json::from_slice(&output.stdout).context("luo-systemd list")?,
        stages: 4,
        config: VmConfig {
            memory_mib: 2048,
            cpus: 2,
            cmdline: String::new(),
            zram_mib: 0,
            orchestrators: Vec::new(),
            recorder: false,
            params: String::new(),
            nested: false,
            leaks: false,
            faults: false,
            debug_kernel: false,
            // A whole system ends and another one starts, on a machine that may be busy.
            timeout_s: 600,
            allow_log: Vec::new(),
        },
    })
}

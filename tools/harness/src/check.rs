// SPDX-License-Identifier: GPL-2.0

//! `harness check`: all tests, in VMs and on the host.

use crate::batch::{self, Batch};
use crate::guest::{self, Guest};
use crate::image;
use crate::inputs::Inputs;
use crate::lock;
use crate::modules;
use crate::qemu::{Accel, Machine};
use crate::selftests;
use crate::session;
use crate::tally::{Counts, Tally};
use anyhow::{Context, Result};
use luo_vm_protocol::{Orchestrator, Outcome, Plan, TestInfo};
use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Mutex, RwLock};
use std::time::Duration;

/// What was asked for.
#[derive(Debug)]
pub struct Options {
    /// Only tests whose name contains one of these, if there are any.
    pub filters: Vec<String>,
    /// No tests whose name contains one of these.
    pub skip: Vec<String>,
    /// Only tests of several kernels.
    pub kexec: bool,
    /// Whether the kernel has the recorder built in.
    pub recorder: bool,
    /// Whether the kernel and luo.ko can let steps fail.
    pub faults: bool,
    /// Whether the kernel looks for faults of its own.
    pub debug_kernel: bool,
    /// So many VMs at a time.
    pub jobs: usize,
    /// The orchestrator that tests run against unless they say otherwise.
    pub orchestrator: Orchestrator,
    /// More words for the command line of every kernel. A test's own have the last say.
    pub cmdline: String,
    /// Memory of each VM beyond what its tests ask for, in MiB.
    pub more_memory_mib: u32,
    /// How many times as long as it says each test may take.
    pub time_factor: u32,
    /// Folder of the logs, and of what is built for the tests.
    pub output: PathBuf,
    /// Where what is random in the tests begins.
    pub seed: u64,
    /// How much the tests do that can do more or less of it.
    pub amount: Option<u64>,
    /// What a test is to do, and nothing else.
    pub steps: Option<String>,
    /// What executes the VMs.
    pub accel: Accel,
}

/// So many VMs for one batch, as long as the emulator may be why there is no result.
const TRIES: usize = 3;

/// Everything that the VMs share.
struct Run<'a> {
    inputs: &'a Inputs,
    options: &'a Options,
    /// Folder of the logs.
    logs: PathBuf,
    /// The common part of all initramfs images.
    base: Vec<u8>,
    /// What those have beside it that run virtual machines.
    nested: Vec<u8>,
    tally: &'a Tally,
    queue: Mutex<VecDeque<Batch>>,
    /// Held for writing by a VM that is to be the only one, by all others for reading.
    only_one: RwLock<()>,
}

/// Runs the tests and gives the sum.
pub fn check(inputs: &Inputs, guest: &Guest, options: &Options) -> Result<Counts> {
    let tally = Tally::default();
    let (tests, left_out) = selected(guest.tests()?, options);
    if !left_out.is_empty() {
        tally.figure(&format!("left out by --skip: {}", left_out.join(", ")));
    }
    let logs = options.output.clone();
    std::fs::create_dir_all(&logs).with_context(|| logs.display().to_string())?;
    // The VMs of every run have the same folders.
    let _lock = lock::take(&logs)?;
    let extras = image::Extras {
        selftests: selftests::build(inputs, &logs.join("selftests"))?,
        modules: modules::build(inputs, &logs.join("modules"))?,
        programs: vec![
            guest::build_static(&inputs.repo, "luoctl", "--bin", "luoctl")?,
            guest::build_static(&inputs.repo, "liveupdate", "--example", "counter")?,
        ],
    };
    let run = Run {
        inputs,
        options,
        logs,
        base: image::base(guest, inputs, &extras)?,
        nested: image::nested(guest, inputs)?,
        tally: &tally,
        queue: Mutex::new(batch::batches(&tests).into()),
        only_one: RwLock::new(()),
    };
    std::thread::scope(|scope| {
        for _ in 0..options.jobs.max(1) {
            scope.spawn(|| run.work());
        }
    });
    // A test that the kernel ends, or that does not answer any more, cannot tell it.
    if tally.counts().failed != 0 {
        tally.figure(&format!(
            "what is random in these tests is the same again with LUO_SEED={}",
            options.seed
        ));
    }
    Ok(tally.counts())
}

/// The tests to run, and the names of those that only `options.skip` leaves out.
fn selected(tests: Vec<TestInfo>, options: &Options) -> (Vec<TestInfo>, Vec<String>) {
    let named =
        |test: &TestInfo, parts: &[String]| parts.iter().any(|part| test.name.contains(part));
    let wanted = |test: &TestInfo| {
        let can = match options.orchestrator {
            // There is no other in that kernel, and no module to insert.
            Orchestrator::BuiltIn => {
                let mut wishes = test.config.orchestrators.iter();
                wishes.all(|wish| *wish == Orchestrator::Default)
            }
            _ => true,
        };
        can && (options.filters.is_empty() || named(test, &options.filters))
            && (!options.kexec || test.stages > 1)
            && (!test.config.recorder || options.recorder)
            && (!test.config.faults || options.faults)
            && (!test.config.debug_kernel || options.debug_kernel)
    };
    let told = |mut test: TestInfo| {
        test.config.memory_mib += options.more_memory_mib;
        test.config.timeout_s = test.config.timeout_s.saturating_mul(options.time_factor);
        test.config.cmdline = format!("{} {}", options.cmdline, test.config.cmdline);
        test
    };
    let (left_out, tests): (Vec<_>, Vec<_>) = tests
        .into_iter()
        .filter(wanted)
        .partition(|test| named(test, &options.skip));
    let left_out = left_out.into_iter().map(|test| test.name).collect();
    (tests.into_iter().map(told).collect(), left_out)
}

impl Run<'_> {
    /// A worker: one VM after the other until none is left.
    fn work(&self) {
        // The lock is not held while a VM runs.
        let next = || {
            self.queue
                .lock()
                .expect("no one panics with the lock")
                .pop_front()
        };
        while let Some(batch) = next() {
            match self.run(&batch) {
                Ok(left) if left.is_empty() => {}
                Ok(tests) => {
                    let again = Batch {
                        name: format!("{}+", batch.name),
                        tests,
                        ..batch
                    };
                    self.queue
                        .lock()
                        .expect("no one panics with the lock")
                        .push_back(again);
                }
                Err(err) => self.all(&batch, &Outcome::Failed(format!("{err:#}"))),
            }
        }
    }

    /// Runs one VM. Gives back the tests that had no turn.
    fn run(&self, batch: &Batch) -> Result<Vec<String>> {
        if self.inputs.luo_ko.is_none() && batch.needs_module(self.options.orchestrator) {
            self.all(
                batch,
                &Outcome::Skipped("needs luo.ko, and LUO_KO is not set".into()),
            );
            return Ok(Vec::new());
        }
        let logs = self.logs.join(&batch.name);
        std::fs::create_dir_all(&logs)?;
        let plan = Plan {
            amount: self.options.amount,
            steps: self.options.steps.clone(),
            time_factor: self.options.time_factor,
            ..batch.plan(
                self.options.orchestrator,
                self.options.seed,
                self.options.accel,
            )
        };
        let initramfs = logs.join("initramfs.cpio");
        let more = if batch.config.nested {
            &self.nested[..]
        } else {
            &[]
        };
        image::write(&initramfs, &[&self.base, more], &plan)?;
        let machine = Machine {
            accel: self.options.accel,
            memory_mib: batch.config.memory_mib,
            cpus: batch.config.cpus,
            kernel: &self.inputs.bzimage,
            initramfs: &initramfs,
            data: None,
            root: None,
            cmdline: &plan.stages[0].cmdline,
            logs: &logs,
        };
        let left = {
            // The guest of an emulated machine that has to share its processors was seen to reset itself now and then,
            // or to hang, at any time after it was started, whatever the test had done to it or not.
            let (_alone, _beside);
            if batch.config.nested {
                _alone = self.only_one.write();
            } else {
                _beside = self.only_one.read();
            }
            let mut tries = 1..TRIES;
            loop {
                match session::run(batch, &machine, self.tally) {
                    Err(err) if err.is::<session::Doubt>() && tries.next().is_some() => {
                        self.tally
                            .figure(&format!("{}: {err}: once more", batch.name));
                    }
                    done => break done,
                }
            }
        };
        // Megabytes that tell nothing once the VM is gone.
        std::fs::remove_file(&initramfs)?;
        left
    }

    /// The same result for a whole batch.
    fn all(&self, batch: &Batch, outcome: &Outcome) {
        for test in &batch.tests {
            self.tally.add(test, outcome, Duration::ZERO, &[]);
        }
    }
}

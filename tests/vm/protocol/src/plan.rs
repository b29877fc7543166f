// SPDX-License-Identifier: GPL-2.0

//! What a VM shall do, and in what environment.

use crate::bench::Job;
use serde::{Deserialize, Serialize};

/// Which orchestrator serves `/dev/liveupdate` in one kernel.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Orchestrator {
    /// Whichever the whole run is about: `--orchestrator` of the harness.
    Default,
    /// The kernel's own, in C: `liveupdate=on` on the command line.
    C,
    /// Ours: `luo.ko` is inserted before the tests start.
    Rust,
    /// Ours, built into the kernel.
    BuiltIn,
    /// None: the test inserts the module itself, or wants it absent.
    None,
}

/// The machine that a test wants. Tests with equal wishes share one VM.
#[derive(Clone, Debug, Eq, Hash, PartialEq, Serialize, Deserialize)]
pub struct VmConfig {
    /// Memory in MiB.
    pub memory_mib: u32,
    /// Number of virtual CPUs.
    pub cpus: u32,
    /// Words added to the kernel command line, of every stage.
    pub cmdline: String,
    /// Size of a swap device in compressed memory, in MiB; 0 for none.
    pub zram_mib: u32,
    /// The orchestrator of each stage; the last one repeats.
    pub orchestrators: Vec<Orchestrator>,
    /// Whether the kernel must have the tests' recorder built in, for the orchestrator in C.
    pub recorder: bool,
    /// Whether the kernel and `luo.ko` must be able to let steps fail.
    pub faults: bool,
    /// Whether the kernel must be one that looks for faults of its own.
    pub debug_kernel: bool,
    /// Parameters of `luo.ko`.
    pub params: String,
    /// Whether it is to have what it takes to run virtual machines in it: KVM's modules, the sample VMM and its guest.
    pub nested: bool,
    /// Whether each kernel is looked through for leaks, where there is kmemleak, although the test goes through kexec.
    pub leaks: bool,
    /// Seconds that a stage of the test may take.
    pub timeout_s: u32,
    /// Pieces of console lines that may look like a kernel bug and are wanted here.
    pub allow_log: Vec<String>,
}

/// A test as the program in the VM lists it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TestInfo {
    /// `module::test`.
    pub name: String,
    /// How many kernels it runs in: 1, or more with a kexec between them. If it does not know before, 2 is enough to
    /// say.
    pub stages: usize,
    /// The machine it wants.
    pub config: VmConfig,
}

/// What the program in the VM is started for.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Work {
    /// Run these tests, each `module::test`.
    Tests(Vec<String>),
    /// Only say that the kernel booted.
    Probe,
    /// The demonstration.
    Demo,
    /// A part of the benchmark.
    Bench {
        /// What to measure.
        job: Job,
        /// Whether to find out where the time goes, too.
        profile: bool,
    },
}

/// One kernel of the chain.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Stage {
    /// Its command line, complete but for `luo.stage=` and `luo.carry=`.
    pub cmdline: String,
    /// Its orchestrator, never [`Orchestrator::Default`].
    pub orchestrator: Orchestrator,
}

/// Everything the program in the VM has to know.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// What to do.
    pub work: Work,
    /// The kernels, in order; the last one repeats. See [`Plan::stage`].
    pub stages: Vec<Stage>,
    /// Parameters of `luo.ko`.
    pub params: String,
    /// Size of the swap device in MiB; 0 for none.
    pub zram_mib: u32,
    /// Where what is random in the tests begins.
    pub seed: u64,
    /// How much a test is to do that can do more or less of it: what that counts is the test's own.
    pub amount: Option<u64>,
    /// What a test is to do, and nothing else: as it told it when it had failed.
    pub steps: Option<String>,
    /// How many times as long as it says each test may take.
    pub time_factor: u32,
}

impl Plan {
    /// The kernel of this number, from 1; `None` only if the plan has none at all.
    pub fn stage(&self, number: usize) -> Option<&Stage> {
        self.stages.get(number - 1).or(self.stages.last())
    }
}

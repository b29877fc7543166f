// SPDX-License-Identifier: GPL-2.0

//! What a test case is, and the machine it wants.

use crate::ctx::Ctx;
use anyhow::Result;
pub use luo_vm_protocol::Orchestrator;
use luo_vm_protocol::{Outcome, TestInfo, VmConfig};

/// One stage of a test: what it does in one kernel.
pub type StageFn = fn(&mut Ctx) -> Result<()>;

/// A test case.
pub struct Test {
    /// Its name within the module; the report calls it `module::name`.
    pub name: &'static str,
    /// The machine it wants.
    pub config: Config,
    /// What it does: stage k runs in the k-th kernel, with a kexec after each but the last.
    pub stages: &'static [StageFn],
    /// Whether the last stage is run in kernel after kernel, as long as it calls [`Ctx::go_on`].
    pub repeats: bool,
}

impl Test {
    /// A test that needs one kernel.
    pub const fn new(name: &'static str, config: Config, stages: &'static [StageFn]) -> Self {
        Self {
            name,
            config,
            stages,
            repeats: false,
        }
    }

    /// A test whose one stage says itself whether another kernel is to follow, in which it runs again: [`Ctx::go_on`].
    pub const fn repeated(
        name: &'static str,
        config: Config,
        stages: &'static [StageFn; 1],
    ) -> Self {
        Self {
            repeats: true,
            ..Self::new(name, config, stages)
        }
    }

    /// What it does in this kernel, from 1.
    pub(crate) fn stage(&self, number: usize) -> Option<StageFn> {
        let stage = self.stages.get(number - 1);
        stage
            .or(self.stages.last().filter(|_| self.repeats))
            .copied()
    }

    /// The test as the harness wants to know it.
    pub fn info(&self, module: &str) -> TestInfo {
        TestInfo {
            name: format!("{module}::{}", self.name),
            stages: self.stages.len() + usize::from(self.repeats),
            config: self.config.to_protocol(),
        }
    }
}

/// The machine that a test wants: start with [`Config::new`] and change what matters.
#[derive(Clone, Copy)]
pub struct Config {
    memory_mib: u32,
    cpus: u32,
    cmdline: &'static str,
    zram_mib: u32,
    orchestrators: &'static [Orchestrator],
    recorder: bool,
    faults: bool,
    debug_kernel: bool,
    params: &'static str,
    nested: bool,
    leaks: bool,
    timeout_s: u32,
    allow_log: &'static [&'static str],
}

impl Default for Config {
    fn default() -> Self {
        Self::new()
    }
}

impl Config {
    /// 1 GiB, 2 CPUs, the orchestrator that the run is about, four minutes.
    pub const fn new() -> Self {
        Self {
            memory_mib: 1024,
            cpus: 2,
            cmdline: "",
            zram_mib: 0,
            orchestrators: &[Orchestrator::Default],
            recorder: false,
            faults: false,
            debug_kernel: false,
            params: "",
            nested: false,
            leaks: false,
            // A kernel takes seconds, but not on a busy machine that emulates it.
            timeout_s: 240,
            allow_log: &[],
        }
    }

    /// So much memory.
    pub const fn memory_mib(self, memory_mib: u32) -> Self {
        Self { memory_mib, ..self }
    }

    /// So many virtual CPUs.
    pub const fn cpus(self, cpus: u32) -> Self {
        Self { cpus, ..self }
    }

    /// Words added to the end of the kernel command line, e.g. `kho=off`.
    pub const fn cmdline(self, cmdline: &'static str) -> Self {
        Self { cmdline, ..self }
    }

    /// kmemleak in every kernel of a test that goes through kexec, where there is one: each boot takes long then.
    pub const fn look_for_leaks(self) -> Self {
        Self {
            leaks: true,
            ..self
        }
    }

    /// A swap device of this size, in compressed memory.
    pub const fn swap_mib(self, zram_mib: u32) -> Self {
        Self { zram_mib, ..self }
    }

    /// This orchestrator in each stage; the last one repeats.
    pub const fn orchestrators(self, orchestrators: &'static [Orchestrator]) -> Self {
        Self {
            orchestrators,
            ..self
        }
    }

    /// A kernel that has the recorder built in, which the orchestrator in C can use: only `make check-intree` has one.
    pub const fn with_recorder(self) -> Self {
        Self {
            recorder: true,
            ..self
        }
    }

    /// A kernel and a `luo.ko` in which each step can be made to fail, and that know who holds what they gave out: only
    /// `make check-faults` has them. The kernel and what it starts with are large, and KHO must find room for its scratch
    /// area in one piece, wherever KASLR puts them: in 1 GiB it once did not.
    pub const fn with_faults(self) -> Self {
        Self {
            faults: true,
            memory_mib: 1536,
            ..self
        }
    }

    /// A kernel that looks for faults of its own: only `make check-debug` and `make check-kcsan` have one.
    pub const fn on_debug_kernel(self) -> Self {
        Self {
            debug_kernel: true,
            ..self
        }
    }

    /// Parameters for `luo.ko`, e.g. `memfd_v2=1`.
    pub const fn params(self, params: &'static str) -> Self {
        Self { params, ..self }
    }

    /// With what it takes to run virtual machines in it: KVM's modules, the sample VMM and its guest.
    pub const fn nested(self) -> Self {
        Self {
            nested: true,
            ..self
        }
    }

    /// Seconds that each stage may take.
    pub const fn timeout_s(self, timeout_s: u32) -> Self {
        Self { timeout_s, ..self }
    }

    /// Pieces of console lines that look like a kernel bug and are wanted here.
    pub const fn allow_log(self, allow_log: &'static [&'static str]) -> Self {
        Self { allow_log, ..self }
    }

    /// Seconds that each stage may take.
    pub const fn timeout(&self) -> u32 {
        self.timeout_s
    }

    fn to_protocol(self) -> VmConfig {
        VmConfig {
            memory_mib: self.memory_mib,
            cpus: self.cpus,
            cmdline: match self.faults {
                true => format!("slab_debug=U,kmalloc-* {}", self.cmdline),
                false => self.cmdline.into(),
            },
            zram_mib: self.zram_mib,
            orchestrators: self.orchestrators.to_vec(),
            recorder: self.recorder,
            faults: self.faults,
            debug_kernel: self.debug_kernel,
            params: self.params.into(),
            nested: self.nested,
            leaks: self.leaks,
            timeout_s: self.timeout_s,
            allow_log: self.allow_log.iter().map(|&s| s.into()).collect(),
        }
    }
}

/// A test that ends with this error has this outcome, instead of a failure.
#[derive(Debug)]
pub struct Ended(pub Outcome);

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

impl std::error::Error for Ended {}

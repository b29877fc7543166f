// SPDX-License-Identifier: GPL-2.0

//! Which tests share a VM, and what its kernels are started with.

use crate::clock;
use crate::qemu::Accel;
use luo_vm_protocol::{Orchestrator, Plan, Stage, TestInfo, VmConfig, Work};
use std::collections::BTreeMap;

/// Tests for one VM.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Names its folder of logs.
    pub name: String,
    /// The machine.
    pub config: VmConfig,
    /// How many kernels.
    pub stages: usize,
    /// `module::test` of each.
    pub tests: Vec<String>,
}

/// Puts tests of one kernel and equal wishes together; a test that goes through kexec has a VM for itself.
///
/// The long ones come first, so that no worker is left with one at the end.
pub fn batches(tests: &[TestInfo]) -> Vec<Batch> {
    let (single, several): (Vec<_>, Vec<_>) = tests.iter().partition(|test| test.stages == 1);
    let mut all: Vec<Batch> = several
        .iter()
        .map(|test| Batch {
            name: test.name.replace("::", "-"),
            config: test.config.clone(),
            stages: test.stages,
            tests: vec![test.name.clone()],
        })
        .collect();
    // Keyed by text, which gives the VMs the same order and names in every run.
    let mut shared: BTreeMap<String, (VmConfig, Vec<String>)> = BTreeMap::new();
    for test in single {
        // The timeout is each test's own and no reason for a VM of its own.
        let config = VmConfig {
            timeout_s: 0,
            ..test.config.clone()
        };
        let entry = shared
            .entry(format!("{config:?}"))
            .or_insert((config, Vec::new()));
        entry.1.push(test.name.clone());
    }
    for (index, (config, tests)) in shared.into_values().enumerate() {
        all.push(Batch {
            name: format!("shared-{}", index + 1),
            config,
            stages: 1,
            tests,
        });
    }
    all
}

impl Batch {
    /// What the VM is told.
    pub fn plan(&self, default: Orchestrator, seed: u64, accel: Accel) -> Plan {
        let clock = clock::words(accel);
        let leaks = if self.stages == 1 || self.config.leaks {
            ""
        } else {
            NO_KMEMLEAK
        };
        let stages = (0..self.stages).map(|index| {
            let orchestrator = self.orchestrator(index, default);
            Stage {
                // The test's own words have the last say.
                cmdline: cmdline(
                    orchestrator,
                    format!("{clock} {leaks} {}", words(orchestrator, &self.config)).trim(),
                ),
                orchestrator,
            }
        });
        Plan {
            work: Work::Tests(self.tests.clone()),
            stages: stages.collect(),
            params: self.config.params.clone(),
            zram_mib: self.config.zram_mib,
            seed,
            amount: None,
            steps: None,
            time_factor: 1,
        }
    }

    /// Whether our module has a part in it.
    pub fn needs_module(&self, default: Orchestrator) -> bool {
        (0..self.stages).any(|i| {
            matches!(
                self.orchestrator(i, default),
                Orchestrator::Rust | Orchestrator::None
            )
        })
    }

    fn orchestrator(&self, stage: usize, default: Orchestrator) -> Orchestrator {
        let wished = &self.config.orchestrators;
        match wished.get(stage).or(wished.last()).copied() {
            None | Some(Orchestrator::Default) => default,
            Some(wish) => wish,
        }
    }
}

/// What every kernel is started with.
///
/// `tsc=nowatchdog`: twice a second Linux 7.3's clocksource watchdog waits, with interrupts off, for another CPU to
/// answer. Before the first "Switched to clocksource" its patience is measured in jiffies, which stand still meanwhile.
/// If the other CPU has interrupts off too, because both are on their way into that switch's stop_machine(), neither
/// ever goes on. On an idle machine the switch is over before the watchdog first waits, at 1.0 s; on a busy one, whose
/// emulated kernels boot more slowly, one in some hundreds hung there.
const ALWAYS: &str = "console=ttyS0 panic=-1 no_timer_check tsc=nowatchdog kho=on";

/// On a kernel with kmemleak, which makes its boot take four times as long: not for each kernel of a test that goes
/// through kexec. One that wants it says `look_for_leaks()`.
const NO_KMEMLEAK: &str = "kmemleak=off";

/// A kernel command line.
pub fn cmdline(orchestrator: Orchestrator, extra: &str) -> String {
    let mut line = ALWAYS.to_string();
    if orchestrator == Orchestrator::C {
        line.push_str(" liveupdate=on");
    }
    if !extra.is_empty() {
        line.push(' ');
        line.push_str(extra);
    }
    line
}

/// The words that the tests want on it: what is built in has its parameters from there, too.
fn words(orchestrator: Orchestrator, config: &VmConfig) -> String {
    let mut words = config.cmdline.clone();
    if orchestrator == Orchestrator::BuiltIn {
        for param in config.params.split_whitespace() {
            words.push_str(" luo.");
            words.push_str(param);
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn test(name: &str, stages: usize, cmdline: &str, timeout_s: u32) -> TestInfo {
        let config = VmConfig {
            memory_mib: 512,
            cpus: 1,
            cmdline: cmdline.into(),
            zram_mib: 0,
            orchestrators: vec![Orchestrator::C, Orchestrator::Default],
            recorder: false,
            faults: false,
            debug_kernel: false,
            params: String::new(),
            nested: false,
            leaks: false,
            timeout_s,
            allow_log: vec![],
        };
        TestInfo {
            name: name.into(),
            stages,
            config,
        }
    }

    #[test]
    fn equal_wishes_share_a_vm_and_kexec_is_alone() {
        let tests = [
            test("a::1", 1, "", 5),
            test("a::2", 2, "", 5),
            test("b::3", 1, "", 9),
        ];
        let batches = batches(&tests);
        let tests: Vec<_> = batches.iter().map(|batch| batch.tests.join(" ")).collect();
        assert_eq!(tests, ["a::2", "a::1 b::3"]);
    }

    #[test]
    fn each_stage_gets_its_orchestrator() {
        let batch = &batches(&[test("a::1", 3, "kho=off", 5)])[0];
        let plan = batch.plan(Orchestrator::Rust, 0, Accel::Kvm);
        let lines: Vec<_> = plan
            .stages
            .iter()
            .map(|stage| stage.cmdline.as_str())
            .collect();
        assert_eq!(
            lines[0],
            "console=ttyS0 panic=-1 no_timer_check tsc=nowatchdog kho=on liveupdate=on kmemleak=off kho=off"
        );
        assert_eq!(
            lines[1..],
            ["console=ttyS0 panic=-1 no_timer_check tsc=nowatchdog kho=on kmemleak=off kho=off"; 2]
        );
        assert!(batch.needs_module(Orchestrator::Rust));
        assert!(!batch.needs_module(Orchestrator::C));
    }

    #[test]
    fn kmemleak_is_not_switched_off_for_who_wants_it() {
        let mut wants_it = test("a::1", 2, "", 5);
        wants_it.config.leaks = true;
        for test in [wants_it, test("a::2", 1, "", 5)] {
            let plan = batches(&[test])[0].plan(Orchestrator::Rust, 0, Accel::Kvm);
            let with_it = |stage: &Stage| !stage.cmdline.contains(NO_KMEMLEAK);
            assert!(plan.stages.iter().all(with_it), "{plan:?}");
        }
    }

    #[test]
    fn what_is_built_in_has_its_parameters_from_the_command_line() {
        let mut config = test("a::1", 1, "quiet", 5).config;
        config.params = "memfd_v2=1 x=2".into();
        let built_in = words(Orchestrator::BuiltIn, &config);
        assert_eq!(built_in, "quiet luo.memfd_v2=1 luo.x=2");
        assert_eq!(words(Orchestrator::Rust, &config), "quiet");
    }
}

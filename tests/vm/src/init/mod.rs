// SPDX-License-Identifier: GPL-2.0

//! Process 1 of the VM: prepares the machine, does what the plan says, powers off.

pub mod leaks;
mod mounts;
pub mod orchestrator;
mod runner;
pub mod swap;

use crate::cmdline::Words;
use crate::{bench, demo, kmsg, report, tsc};
use anyhow::{Context, Result};
use luo_vm_protocol::demo::{DemoEvent, Step};
use luo_vm_protocol::{Event, Outcome, Plan, Work, PLAN_PATH};
use nix::sys::reboot::{reboot, RebootMode};
use std::time::Instant;

/// Does all of it; the machine is off when this is through.
pub fn main() -> ! {
    if let Err(err) = run() {
        // Without a report the harness fails what was to be run; the console tells it why.
        kmsg::write(&format!("luo-vm: init: {err:#}"));
        report::send(&Event::Note {
            text: format!("init: {err:#}"),
        });
    }
    power_off()
}

fn power_off() -> ! {
    nix::unistd::sync();
    let _ = reboot(RebootMode::RB_POWER_OFF);
    panic!("the machine does not power off");
}

fn run() -> Result<()> {
    let arrived = tsc::now();
    mounts::mount_all().context("mounting")?;
    // Else the kernel swallows our marks when many come in a short time.
    std::fs::write("/proc/sys/kernel/printk_devkmsg", "on\n").context("printk_devkmsg")?;
    report::prepare().context("second serial port")?;
    let plan = std::fs::read_to_string(PLAN_PATH).context(PLAN_PATH)?;
    let plan: Plan = serde_json::from_str(&plan).context(PLAN_PATH)?;
    let words = Words::of_this_kernel()?;
    report::boot(words.stage)?;

    if plan.zram_mib > 0 {
        swap::zram(plan.zram_mib).context("swap on zram")?;
    }
    let stage = plan
        .stage(words.stage)
        .context("the plan knows no such stage")?;
    let module_from = tsc::now();
    let ready = orchestrator::prepare(stage.orchestrator, &plan.params);
    let insmod = tsc::now() - module_from;
    match &plan.work {
        Work::Probe => {}
        Work::Demo => {
            demo::clock::report_step(Step::LoadModule, module_from);
            demo::report(DemoEvent::Arrived { tsc: arrived });
            ready?;
            demo::run(&words, &plan)?;
        }
        Work::Bench { job, profile } => {
            ready?;
            let arrival = bench::Arrival {
                tsc: arrived,
                insmod,
            };
            bench::run(job, *profile, &words, &plan, arrival)?;
        }
        Work::Tests(names) => match ready {
            Ok(()) => {
                runner::run_all(names, &words, &plan)?;
                if !leaks::is_off()? {
                    leaks::report()?;
                }
            }
            Err(err) => fail_all(names, &format!("{err:#}")),
        },
    }
    report::send(&Event::Done);
    Ok(())
}

fn fail_all(names: &[String], why: &str) {
    for name in names {
        runner::finish(name, Outcome::Failed(why.into()), Instant::now());
    }
}

// SPDX-License-Identifier: GPL-2.0

//! The benchmark: what the operations cost, measured inside the VM.
//!
//! It runs in the frame of a VM whose clock counts instructions, one a nanosecond, so that the same run gives the same
//! figures. A job is two kernels: the first preserves, the second takes back, and looks whether all is as it was: a fast
//! wrong answer must not count.

mod fragment;
mod idle;
mod many;
mod memfd;
mod memory;
mod meter;
mod pieces;
mod profile;
mod ram;

use crate::cmdline::Words;
use crate::{kexec, kmsg, report, tsc};
use anyhow::{bail, Context, Result};
use luo_vm_protocol::bench::{BenchEvent, Figure, Job, MARK_REBOOT};
use luo_vm_protocol::{Event, Orchestrator, Plan};
use meter::Meter;
use nix::sys::resource::{setrlimit, Resource};
use std::convert::Infallible;

/// Descriptors that a process may have: more than files and sessions are asked for.
const MAX_FDS: u64 = 1 << 17;

/// When this kernel's `/init` began, and how long it took to insert the module.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// Time stamp counter at the start of `/init`.
    pub tsc: u64,
    /// Counts that insmod took; of no meaning when no module is inserted.
    pub insmod: u64,
}

/// The part of this kernel in the job.
pub fn run(job: &Job, profile: bool, words: &Words, plan: &Plan, arrival: Arrival) -> Result<()> {
    setrlimit(Resource::RLIMIT_NOFILE, MAX_FDS, MAX_FDS).context("RLIMIT_NOFILE")?;
    let meter = Meter::new(profile)?;
    if words.stage == 1 {
        // What it returns is to be kept open until the end of this kernel.
        let _kept = match job {
            Job::Idle => idle::before(&meter)?,
            Job::Memfd(memfd) => memfd::before(&meter, memfd)?,
            Job::Sessions(count) => many::sessions_before(&meter, *count)?,
            Job::Files(count) => many::files_before(&meter, *count)?,
        };
        meter.check_clock()?;
        match jump(words, plan)? {}
    }
    report(BenchEvent::Arrived { tsc: arrival.tsc });
    if plan.stages[words.stage - 1].orchestrator == Orchestrator::Rust {
        meter.figure(Figure::Insmod, arrival.insmod as i64, 1);
    }
    match job {
        Job::Idle => {}
        Job::Memfd(memfd) => memfd::after(&meter, memfd)?,
        Job::Sessions(count) => many::sessions_after(&meter, *count)?,
        Job::Files(count) => many::files_after(&meter, *count)?,
    }
    meter.figure(Figure::FreeAtEnd, memory::free_bytes()?, 1);
    meter.check_clock()
}

/// Something to keep until the kexec, whatever it is.
type Kept = Box<dyn std::any::Any>;

/// Sends a line of the benchmark.
fn report(event: BenchEvent) {
    report::send(&Event::Bench(event));
}

/// Into the next kernel.
fn jump(words: &Words, plan: &Plan) -> Result<Infallible> {
    let stage = words.stage + 1;
    let next = Words {
        stage,
        carry: words.carry.clone(),
    };
    let cmdline = &plan.stages[stage - 1].cmdline;
    kexec::load(&format!("{cmdline} {}", next.to_cmdline()), &[])?;
    report::send(&Event::Jump { stage });
    // The last that is done, so that from here to the next kernel there is nothing but the kexec.
    kmsg::notice(&format!("{MARK_REBOOT}{}", tsc::now()));
    bail!("reboot(LINUX_REBOOT_CMD_KEXEC): {}", kexec::execute())
}

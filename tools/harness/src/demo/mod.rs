// SPDX-License-Identifier: GPL-2.0

//! `harness demo`: a service in a VM keeps real data, and a virtual machine in the VM runs on, while the kernel under
//! them is replaced.

mod data;
mod picture;
mod record;
mod story;
mod timeline;

use crate::batch::cmdline;
use crate::clock;
use crate::console::Console;
use crate::guest::Guest;
use crate::image;
use crate::inputs::Inputs;
use crate::qemu::{Accel, Heard, Machine, Qemu};
use anyhow::{Context, Result};
use data::Amount;
use luo_vm_protocol::demo::DemoEvent;
use luo_vm_protocol::{Event, Orchestrator, Plan, Stage, Work};
use record::{Kernel, Record};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use story::Story;
use timeline::Timeline;

/// How long the whole may take.
const TIMEOUT: Duration = Duration::from_secs(600);

/// What was asked for.
#[derive(Debug)]
pub struct Options {
    /// File or folder to keep; by default the kernel's documentation.
    pub data: Option<PathBuf>,
    /// Ours, or for comparison the kernel's own.
    pub orchestrator: Orchestrator,
    /// What executes the VM.
    pub accel: Accel,
}

/// Shows it. True when all went well.
pub fn demo(inputs: &Inputs, guest: &Guest, options: &Options) -> Result<bool> {
    let wished = options
        .data
        .as_ref()
        .filter(|data| !data.as_os_str().is_empty());
    let data = match (wished, &inputs.linux_src) {
        (Some(data), _) => data.clone(),
        (None, Some(source)) => source.join("Documentation"),
        (None, None) => {
            anyhow::bail!("set DATA to a file or folder, or LINUX_SRC to a kernel tree")
        }
    };
    let folder = inputs.repo.join("build/demo");
    std::fs::create_dir_all(&folder)?;
    let archive = folder.join("data.tar");
    let amount = data::pack(&data, &archive).context("packing the data")?;
    let plan = plan(options.orchestrator, options.accel);
    let initramfs = folder.join("initramfs.cpio");
    let archives = [
        image::base(guest, inputs, &image::Extras::default())?,
        image::nested(guest, inputs)?,
    ];
    image::write(&initramfs, &archives.each_ref().map(Vec::as_slice), &plan)?;
    let machine = Machine {
        accel: options.accel,
        memory_mib: memory_for(amount),
        cpus: 2,
        kernel: &inputs.bzimage,
        initramfs: &initramfs,
        data: Some(&archive),
        root: None,
        cmdline: &plan.stages[0].cmdline,
        logs: &folder,
    };
    let mut story = Story::new();
    story.title(&data, amount, machine.memory_mib, machine.accel);
    let (record, mut failures) = watch(&machine, &mut story)?;
    std::fs::remove_file(&archive)?;
    std::fs::remove_file(&initramfs)?;

    let timeline = Timeline::new(&record, options.orchestrator == Orchestrator::Rust);
    let path = folder.join("timeline.svg");
    match &timeline {
        Some(timeline) => {
            story.timeline(timeline);
            let kept = format!(
                "{} files, {}{}, kept in memory through the kexec. QEMU ({}), 2 CPUs.",
                amount.files,
                story::mebibytes(amount.bytes),
                timeline.paused.map_or("", |_| ", and a virtual machine"),
                machine.accel
            );
            svg::save(&path, &picture::draw(timeline, &kept))?;
        }
        None if failures.is_empty() => failures.push("the timeline has gaps".into()),
        None => {}
    }
    story.end(&failures, timeline.map(|_| path.as_path()));
    Ok(failures.is_empty())
}

/// Two kernels; the second shows its first line at once, not only when it has a console.
fn plan(orchestrator: Orchestrator, accel: Accel) -> Plan {
    let words = clock::words(accel);
    let stage = |extra| Stage {
        cmdline: cmdline(orchestrator, format!("{words} {extra}").trim()),
        orchestrator,
    };
    Plan {
        work: Work::Demo,
        stages: vec![stage(""), stage("earlyprintk=serial,ttyS0")],
        params: String::new(),
        zram_mib: 0,
        seed: 0,
        amount: None,
        steps: None,
        time_factor: 1,
    }
}

/// The data, as much again for what the VM does with it, and room for a system with a virtual machine in it.
fn memory_for(amount: Amount) -> u32 {
    let data = u32::try_from(amount.bytes >> 20).unwrap_or(u32::MAX / 4);
    (1280 + 2 * data).next_multiple_of(256)
}

/// Runs the VM and tells what it hears. Gives that, and what went wrong.
fn watch(machine: &Machine, story: &mut Story) -> Result<(Record, Vec<String>)> {
    let mut qemu = Qemu::start(machine)?;
    let mut console = Console::follow(qemu.console())?;
    let mut record = Record::default();
    let mut failures = Vec::new();
    let (mut sums_right, mut done) = (false, false);
    let (mut guest_before, mut guest_after) = (false, false);
    let deadline = Instant::now() + TIMEOUT;
    while !done {
        // Short, for the console's lines are timed by when they are seen here.
        let heard = qemu.next(Duration::from_millis(1));
        for line in console.read_lines()? {
            record.line(line, Instant::now());
        }
        match heard {
            Heard::Event(
                Event::Boot {
                    version, boot_id, ..
                },
                _,
            ) => {
                let kernel = Kernel { version, boot_id };
                story.kernel(&kernel);
                record.kernels.push(kernel);
            }
            Heard::Event(Event::Demo(event), at) => {
                record.event(&event, at);
                story.event(&event);
                match &event {
                    DemoEvent::Verdict { wrong, .. } => sums_right = wrong.is_empty(),
                    DemoEvent::Guest { .. } => guest_before = true,
                    DemoEvent::GuestVerdict { .. } => guest_after = true,
                    _ => {}
                }
            }
            Heard::Event(Event::Note { text }, _) => failures.push(text),
            Heard::Event(Event::Done, _) => done = true,
            Heard::Event(_, _) => {}
            Heard::End => break,
            Heard::Silence if Instant::now() > deadline => {
                failures.push(format!("not done within {} s", TIMEOUT.as_secs()));
                break;
            }
            Heard::Silence => {}
        }
    }
    qemu.stop();
    console.read()?;
    failures.extend(
        console
            .take_complaints()
            .into_iter()
            .map(|complaint| complaint.line),
    );
    if !done && failures.is_empty() {
        failures.push("the VM ended early".into());
    }
    if done && !sums_right {
        failures.push("not every sum is right".into());
    }
    if done && guest_before && !guest_after {
        failures.push("the virtual machine did not go on".into());
    }
    let ids: Vec<_> = record
        .kernels
        .iter()
        .map(|kernel| &kernel.boot_id)
        .collect();
    if done && (ids.len() != 2 || ids[0] == ids[1]) {
        failures.push("there were not two kernels".into());
    }
    if !failures.is_empty() {
        for line in console.tail(30) {
            println!("     | {line}");
        }
    }
    Ok((record, failures))
}

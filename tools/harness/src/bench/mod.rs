// SPDX-License-Identifier: GPL-2.0

//! `harness bench`: both orchestrators in the same VM, by a clock that counts instructions.
//!
//! A job is measured in a VM of its own for each of the two, since memory that was used is not what it was. What a kexec
//! costs is told by the difference to one with nothing preserved, in the same VM.

mod grow;
mod jobs;
mod metric;
mod page;
mod picture;
mod ratio;
mod reach;
mod report;
mod results;
mod table;
mod vm;

use crate::batch::cmdline;
use crate::guest::Guest;
use crate::image;
use crate::inputs::Inputs;
use crate::qemu::{Accel, Machine};
use anyhow::{ensure, Context, Result};
use jobs::Measurement;
use luo_vm_protocol::{Orchestrator, Plan, Stage, Work};
use results::{Cell, Outcome, Results, Setting, Side};
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::Instant;
use vm::Record;

/// Words for the kernels, that all runs be alike: addresses that are not random, a clock that needs no trial (without which
/// timers are as coarse as the tick, and profiles too), and a console that is not busy.
const CMDLINE: &str = "nokaslr tsc=reliable loglevel=6";

/// What was asked for.
#[derive(Debug)]
pub struct Options {
    /// Only jobs whose name contains this.
    pub filter: String,
    /// Fewer jobs.
    pub quick: bool,
    /// Find out where the time goes, too.
    pub profile: bool,
    /// So many VMs at a time.
    pub jobs: usize,
    /// Measure nothing, and show once more what the last run measured.
    pub again: bool,
}

/// A VM that has not run yet: which cell, and which side of it.
type Task = (usize, Side);

/// Everything that the VMs share.
struct Run<'a> {
    inputs: &'a Inputs,
    options: &'a Options,
    folder: PathBuf,
    /// The common part of all initramfs images.
    base: Vec<u8>,
    measurements: Vec<Measurement>,
    queue: Mutex<VecDeque<Task>>,
    done: Mutex<Vec<(Task, Outcome)>>,
}

/// Measures. True when everything could be.
pub fn bench(inputs: &Inputs, guest: &Guest, options: &Options) -> Result<bool> {
    let folder = inputs.repo.join("build/bench");
    std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    if options.again {
        report::write(&report::read(&folder)?, &folder, &inputs.repo)?;
        return Ok(true);
    }
    ensure!(inputs.luo_ko.is_some(), "set LUO_KO; `make bench` does");
    let measurements = jobs::select(options.quick, &options.filter);
    ensure!(
        !measurements.is_empty(),
        "nothing has {:?} in its name",
        options.filter
    );
    let run = Run {
        inputs,
        options,
        base: image::base(guest, inputs, &image::Extras::default())?,
        queue: Mutex::new(in_order(&measurements).into()),
        done: Mutex::new(Vec::new()),
        folder,
        measurements,
    };
    std::thread::scope(|scope| {
        for _ in 0..options.jobs.max(1) {
            scope.spawn(|| run.work());
        }
    });
    let results = run.results()?;
    report::write(&results, &inputs.repo.join("build/bench"), &inputs.repo)?;
    let good = |cell: &Cell| cell.c.is_ok() && cell.rust.is_ok();
    Ok(results.cells.iter().all(good))
}

/// All VMs, the large ones first, so that no worker is left with one at the end.
fn in_order(measurements: &[Measurement]) -> Vec<Task> {
    let sides = |index| [(index, Side::C), (index, Side::Rust)];
    let mut tasks: Vec<_> = (0..measurements.len()).flat_map(sides).collect();
    tasks.sort_by_key(|&(index, _)| std::cmp::Reverse(measurements[index].weight()));
    tasks
}

impl Run<'_> {
    /// A worker: one VM after the other until none is left.
    fn work(&self) {
        let lock = || self.queue.lock().expect("no one panics with the lock");
        loop {
            // In a statement of its own, that the lock be given back.
            let task = lock().pop_front();
            let Some((index, side)) = task else { return };
            let measurement = &self.measurements[index];
            let begin = Instant::now();
            let outcome = self.measure(measurement, side);
            let outcome = outcome.map_err(|err| format!("{err:#}"));
            let mut done = self.done.lock().expect("no one panics with the lock");
            done.push(((index, side), outcome.clone()));
            let (count, of) = (done.len(), 2 * self.measurements.len());
            let took = begin.elapsed().as_secs();
            let failed = outcome
                .err()
                .map_or(String::new(), |why| format!(" FAILED: {why}"));
            println!(
                "[{count}/{of}] {} {side:?} ({took} s){failed}",
                measurement.name
            );
        }
    }

    fn measure(&self, measurement: &Measurement, side: Side) -> Result<Record> {
        let logs = self
            .folder
            .join(format!("{}-{side:?}", measurement.name).to_lowercase());
        std::fs::create_dir_all(&logs)?;
        let orchestrator = match side {
            Side::C => Orchestrator::C,
            Side::Rust => Orchestrator::Rust,
        };
        let stage = || Stage {
            cmdline: cmdline(orchestrator, CMDLINE),
            orchestrator,
        };
        let plan = Plan {
            work: Work::Bench {
                job: measurement.job.clone(),
                profile: self.options.profile,
            },
            stages: vec![stage(), stage()],
            params: String::new(),
            zram_mib: 0,
            seed: 0,
            amount: None,
            steps: None,
            time_factor: 1,
        };
        let initramfs = logs.join("initramfs.cpio");
        image::write_with_next(&initramfs, &self.base, &plan, &self.inputs.bzimage)?;
        let record = vm::run(&Machine {
            accel: Accel::Icount,
            memory_mib: measurement.memory_mib,
            cpus: 1,
            kernel: &self.inputs.bzimage,
            initramfs: &initramfs,
            data: None,
            root: None,
            cmdline: &plan.stages[0].cmdline,
            logs: &logs,
        });
        std::fs::remove_file(&initramfs)?;
        record
    }

    /// Puts together what all VMs gave.
    fn results(self) -> Result<Results> {
        let mut done = self.done.into_inner().expect("no one panics with the lock");
        let mut take = |task: Task| {
            let index = done.iter().position(|(found, _)| *found == task);
            let index = index.context("a VM did not run")?;
            anyhow::Ok(done.swap_remove(index).1)
        };
        let mut cells = Vec::new();
        for (index, measurement) in self.measurements.into_iter().enumerate() {
            cells.push(Cell {
                measurement,
                c: take((index, Side::C))?,
                rust: take((index, Side::Rust))?,
            });
        }
        let setting = setting(&self.inputs.repo, &cells)?;
        Ok(Results { setting, cells })
    }
}

/// With what the cells were measured.
fn setting(repo: &Path, cells: &[Cell]) -> Result<Setting> {
    let records = cells.iter().flat_map(|cell| [&cell.c, &cell.rust]);
    let kernel = records
        .flatten()
        .map(|record| record.release.clone())
        .next();
    let git = [
        "describe",
        "--always",
        "--dirty",
        "--abbrev=12",
        "--exclude=*",
    ];
    let qemu = output(Command::new("qemu-system-x86_64").arg("--version"))?;
    let version = qemu.split_whitespace().nth(3).unwrap_or(&qemu);
    Ok(Setting {
        kernel: kernel.unwrap_or_default(),
        commit: output(Command::new("git").arg("-C").arg(repo).args(git)).unwrap_or_default(),
        date: output(Command::new("date").args(["-u", "+%Y-%m-%d %H:%M UTC"]))?,
        qemu: version.into(),
    })
}

fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", output.status);
    Ok(String::from_utf8_lossy(&output.stdout).trim().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_of_everything_run_and_the_large_ones_first() {
        let measurements = jobs::select(false, "");
        let tasks = in_order(&measurements);
        assert_eq!(tasks.len(), 2 * measurements.len());
        let weights: Vec<_> = tasks
            .iter()
            .map(|&(index, _)| measurements[index].weight())
            .collect();
        assert!(weights.is_sorted_by(|a, b| a >= b));
    }
}

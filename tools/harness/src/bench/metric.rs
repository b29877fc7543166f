// SPDX-License-Identifier: GPL-2.0

//! What is told of a job: figures that the VM took, and those that follow from them.

use super::vm::Record;
use crate::units::Unit;
use luo_vm_protocol::bench::{Figure, Job};

/// Something that is told of a job.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Metric {
    /// A figure, over the number of its operations.
    Mean(Figure),
    /// How much longer reboot() takes up to where nothing can refuse the kexec any more.
    Freeze,
    /// How much longer it takes from there until the new kernel's orchestrator is there.
    Boot,
    /// All time that a workload which is paused loses: freeze, boot and RETRIEVE_FD.
    Blackout,
    /// All work of the new kernel on a memfd, whenever it is done: RETRIEVE_FD, FINISH and the first access to each page.
    Work,
    /// Memory that is not there any more at the end of all.
    Left,
}

use Metric::{Blackout, Boot, Freeze, Left, Mean, Work};

/// What is told of a memfd.
pub const OF_MEMFD: &[Metric] = &[
    Mean(Figure::Preserve),
    Mean(Figure::Unpreserve),
    Freeze,
    Boot,
    Mean(Figure::Retrieve),
    Blackout,
    Mean(Figure::Finish),
    Mean(Figure::Touch),
    Work,
    Mean(Figure::PreserveMemory),
    Left,
];
/// What is told of sessions.
pub const OF_SESSIONS: &[Metric] = &[
    Mean(Figure::CreateSession),
    Mean(Figure::CloseSession),
    Freeze,
    Boot,
    Mean(Figure::RetrieveSession),
    Mean(Figure::FinishSession),
];
/// What is told of files.
pub const OF_FILES: &[Metric] = &[
    Mean(Figure::Preserve),
    Mean(Figure::Unpreserve),
    Freeze,
    Boot,
    Mean(Figure::Retrieve),
    Mean(Figure::Finish),
    Mean(Figure::Touch),
    Mean(Figure::PreserveMemory),
];
/// What is told of a kexec with nothing preserved.
pub const OF_IDLE: &[Metric] = &[Mean(Figure::GetName), Mean(Figure::Insmod)];

/// What is told of a job.
pub fn of(job: &Job) -> &'static [Metric] {
    match job {
        Job::Idle => OF_IDLE,
        Job::Memfd(_) => OF_MEMFD,
        Job::Sessions(_) => OF_SESSIONS,
        Job::Files(_) => OF_FILES,
    }
}

impl Metric {
    /// Its value, where everything that it takes was measured. `idle` is the same VM with nothing preserved.
    pub fn value(self, record: &Record, idle: Option<&Record>) -> Option<f64> {
        let total = |record: &Record, figure| Some(record.figures.get(&figure)?.total as f64);
        let boot = |record: &Record| {
            // The kernel's own orchestrator is not inserted.
            let insmod = total(record, Figure::Insmod).unwrap_or(0.0);
            (record.jump_ns - record.leave_ns) as f64 + insmod
        };
        match self {
            Mean(figure) => {
                let sum = record.figures.get(&figure)?;
                (sum.count > 0).then(|| sum.total as f64 / sum.count as f64)
            }
            Freeze => Some((record.leave_ns - idle?.leave_ns) as f64),
            Boot => Some(boot(record) - boot(idle?)),
            Blackout => {
                let retrieve = total(record, Figure::Retrieve)?;
                Some(Freeze.value(record, idle)? + Boot.value(record, idle)? + retrieve)
            }
            Work => {
                let figures = [Figure::Retrieve, Figure::Finish, Figure::Touch];
                figures.iter().map(|&figure| total(record, figure)).sum()
            }
            Left => {
                let free = |record| total(record, Figure::FreeAtEnd);
                Some(free(idle?)? - free(record)?)
            }
        }
    }

    /// How it is called, for one of many operations, or for one.
    pub fn label(self, job: &Job) -> &'static str {
        let many = matches!(job, Job::Files(_));
        match self {
            Mean(Figure::CreateSession) => "CREATE_SESSION",
            Mean(Figure::CloseSession) => "close of a session",
            Mean(Figure::Preserve) => "PRESERVE_FD",
            Mean(Figure::Unpreserve) if many => "close of the session, a file",
            Mean(Figure::Unpreserve) => "close of the session",
            Mean(Figure::GetName) => "GET_NAME",
            Mean(Figure::Insmod) => "insmod",
            Mean(Figure::RetrieveSession) => "RETRIEVE_SESSION",
            Mean(Figure::Retrieve) => "RETRIEVE_FD",
            Mean(Figure::Finish) if many => "FINISH, a file",
            Mean(Figure::Finish | Figure::FinishSession) => "FINISH",
            Mean(Figure::Touch) if many => "first read, a file",
            Mean(Figure::Touch) => match job {
                Job::Memfd(memfd) if memfd.early => "first access before FINISH, a page",
                _ => "first access, a page",
            },
            Mean(Figure::PreserveMemory) if many => "memory that a file takes",
            Mean(Figure::PreserveMemory) => "memory that PRESERVE_FD takes",
            Mean(Figure::UnpreserveLeft) => "memory left after the close",
            Mean(Figure::FreeAtEnd) => "memory free at the end",
            Mean(Figure::Moved) => "pages moved",
            Mean(Figure::Pages) => "pages",
            Mean(Figure::Pieces) => "pieces of memory",
            Mean(Figure::LeastKeys) => "keys for these",
            Mean(Figure::HugeBytes) => "in folios of 2 MiB",
            Freeze => "freeze",
            Boot => "boot, added",
            Blackout => "blackout, added",
            Work => "RETRIEVE_FD, FINISH, all accesses",
            Left => "memory left over at the end",
        }
    }

    /// What it counts.
    pub fn unit(self) -> Unit {
        match self {
            Left | Mean(Figure::PreserveMemory | Figure::UnpreserveLeft | Figure::FreeAtEnd) => {
                Unit::Memory
            }
            _ => Unit::Time,
        }
    }

    /// Less than this cannot be told from nothing: figures that are differences, of runs that are not quite alike.
    pub fn resolution(self) -> f64 {
        match self {
            Freeze => 10e3,
            Boot | Blackout => 300e3,
            // Caches of the kernel that grow meanwhile.
            Left => 1024.0 * 1024.0,
            Mean(Figure::PreserveMemory) => 32.0 * 1024.0,
            Mean(_) | Work => 0.0,
        }
    }
}

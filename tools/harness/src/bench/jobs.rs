// SPDX-License-Identifier: GPL-2.0

//! What there is to measure.

use crate::units::{self, size, thousands};
use luo_vm_protocol::bench::{Job, Layout, Memfd};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
/// Bytes of a GiB.
pub const GIB: u64 = 1 << 30;

/// Numbers of sessions and of files.
pub const COUNTS: [u32; 4] = [250, 1000, 4000, 16_000];
/// Sizes that are measured with every kind of memory.
const SIZES: [u64; 5] = [64 * MIB, 256 * MIB, 512 * MIB, GIB, 2 * GIB];
/// Fragmented memory: of what is free no two pages need be neighbours.
pub const CRUMBS: Layout = Layout::Fragmented { crumb: 1 };
/// The size that is measured with holes.
const SPARSE: u64 = 512 * MIB;

/// A job, by name.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Measurement {
    /// Names it, for `FILTER=` and for the files.
    pub name: String,
    /// What the VM does.
    pub job: Job,
    /// Memory of the VM in MiB.
    pub memory_mib: u32,
}

impl Measurement {
    /// A job in the VM that it takes.
    pub fn new(job: Job) -> Self {
        let memory_mib = match &job {
            // Room for it beside the next kernel's; a part may come to lie there all the same, and has to be moved. What
            // fragments memory keeps half of all.
            Job::Memfd(memfd) if memfd.size > GIB => 8192,
            Job::Memfd(memfd) if memfd.size == GIB => 6144,
            _ => 4096,
        };
        Self {
            name: name(&job),
            job,
            memory_mib,
        }
    }

    /// What it takes to run it, in no unit: enough to know which take long.
    pub fn weight(&self) -> u64 {
        match &self.job {
            Job::Idle => 0,
            Job::Sessions(count) => u64::from(*count) << 17,
            Job::Files(count) => u64::from(*count) << 15,
            Job::Memfd(memfd) => {
                let crumbs = matches!(memfd.layout, Layout::Fragmented { .. });
                memfd.size
                    + if crumbs {
                        u64::from(self.memory_mib) << 20
                    } else {
                        0
                    }
            }
        }
    }

    /// The one in which nothing is preserved, in a VM of the same size.
    pub fn baseline(memory_mib: u32) -> Self {
        Self {
            name: format!("idle-{}g", memory_mib / 1024),
            job: Job::Idle,
            memory_mib,
        }
    }
}

/// The name of a job: `memfd-1g-4k-random`, `memfd-512m-4k-in-order-50%`, `sessions-250`.
pub fn name(job: &Job) -> String {
    match job {
        Job::Idle => "idle".into(),
        Job::Sessions(count) => format!("sessions-{count}"),
        Job::Files(count) => format!("files-{count}"),
        Job::Memfd(memfd) => {
            let layout = match memfd.layout {
                Layout::InOrder => "in-order".into(),
                Layout::Random => "random".into(),
                Layout::Fragmented { crumb } => {
                    format!("crumbs-{}", short(u64::from(crumb) * 4 * KIB))
                }
            };
            let folio = if memfd.huge { "2m" } else { "4k" };
            let percent = match memfd.percent {
                100 => String::new(),
                percent => format!("-{percent}%"),
            };
            let early = if memfd.early { "-early" } else { "" };
            let size = short(memfd.size);
            format!("memfd-{size}-{folio}-{layout}{percent}{early}")
        }
    }
}

/// What a job is about, for people.
pub fn describe(job: &Job) -> String {
    match job {
        Job::Idle => "nothing preserved".into(),
        Job::Sessions(count) => format!(
            "{} sessions without a file, each",
            thousands((*count).into())
        ),
        Job::Files(count) => format!(
            "{} memfds of a page in a session, each",
            thousands((*count).into())
        ),
        Job::Memfd(memfd) => {
            let size = size(memfd.size);
            if memfd.size == 0 {
                return "memfd without a page".into();
            }
            let folio = if memfd.huge { "2 MiB" } else { "4 KiB" };
            let layout = match memfd.layout {
                Layout::InOrder => "in order".into(),
                Layout::Random => "in random order".into(),
                Layout::Fragmented { crumb } => {
                    format!("from crumbs of {}", units::size(u64::from(crumb) * 4 * KIB))
                }
            };
            let early = if memfd.early {
                ", in use before FINISH"
            } else {
                ""
            };
            match memfd.percent {
                0 => format!("memfd of {size}, all hole ({folio} folios)"),
                100 => format!("memfd of {size}, {folio} folios, populated {layout}{early}"),
                percent => {
                    format!("memfd of {size}, {folio} folios, {percent} % populated {layout}")
                }
            }
        }
    }
}

/// A size as a word: `4k`, `512m`, `1g`.
fn short(size: u64) -> String {
    match size {
        size if size >= GIB => format!("{}g", size / GIB),
        size if size >= MIB => format!("{}m", size / MIB),
        size if size >= KIB => format!("{}k", size / KIB),
        size => size.to_string(),
    }
}

fn memfd(size: u64, percent: u8, layout: Layout, huge: bool) -> Job {
    Job::Memfd(Memfd {
        size,
        percent,
        layout,
        huge,
        early: false,
    })
}

/// The same whose pages are accessed before FINISH.
fn early(job: Job) -> Job {
    match job {
        Job::Memfd(memfd) => Job::Memfd(Memfd {
            early: true,
            ..memfd
        }),
        other => other,
    }
}

/// Everything, or with `quick` what shows the most in a few minutes; of that what the filter chooses by a part of its
/// name; and what these are compared with.
pub fn select(quick: bool, filter: &str) -> Vec<Measurement> {
    let jobs = if quick { quick_jobs() } else { all_jobs() };
    let chosen = jobs.into_iter().map(Measurement::new);
    let chosen: Vec<_> = chosen
        .filter(|measurement| measurement.name.contains(filter))
        .collect();
    let memories: BTreeSet<_> = chosen.iter().map(|chosen| chosen.memory_mib).collect();
    let mut baselines: Vec<_> = memories.into_iter().map(Measurement::baseline).collect();
    // The command that does nothing is measured there.
    if baselines.is_empty() && "idle-4g".contains(filter) {
        baselines.push(Measurement::baseline(4096));
    }
    [baselines, chosen].concat()
}

/// What the reach table asks for.
fn quick_jobs() -> Vec<Job> {
    let mut jobs = vec![
        memfd(SPARSE, 0, Layout::InOrder, false),
        memfd(GIB, 100, Layout::InOrder, false),
        memfd(GIB, 100, CRUMBS, false),
        memfd(GIB, 100, Layout::InOrder, true),
    ];
    for count in [COUNTS[0], COUNTS[3]] {
        jobs.extend([Job::Sessions(count), Job::Files(count)]);
    }
    jobs
}

fn all_jobs() -> Vec<Job> {
    let mut jobs = Vec::new();
    for size in [0, 4 * KIB] {
        jobs.push(memfd(size, 100, Layout::InOrder, false));
    }
    for huge in [false, true] {
        for layout in [Layout::InOrder, Layout::Random, CRUMBS] {
            jobs.extend(SIZES.map(|size| memfd(size, 100, layout, huge)));
        }
        jobs.extend([0, 1, 50].map(|percent| memfd(SPARSE, percent, Layout::InOrder, huge)));
    }
    for layout in [Layout::InOrder, CRUMBS] {
        jobs.push(early(memfd(GIB, 100, layout, false)));
    }
    jobs.extend(COUNTS.map(Job::Sessions));
    jobs.extend(COUNTS.map(Job::Files));
    jobs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_chosen_has_what_it_is_compared_with() {
        let names = |quick, filter| -> Vec<_> {
            let chosen = select(quick, filter);
            chosen.into_iter().map(|chosen| chosen.name).collect()
        };
        assert_eq!(
            names(false, "512m-4k-in-order"),
            [
                "idle-4g",
                "memfd-512m-4k-in-order",
                "memfd-512m-4k-in-order-0%",
                "memfd-512m-4k-in-order-1%",
                "memfd-512m-4k-in-order-50%"
            ]
        );
        assert_eq!(names(true, "sessions-250"), ["idle-4g", "sessions-250"]);
        assert_eq!(
            names(false, "1g-4k-crumbs-4k"),
            [
                "idle-6g",
                "memfd-1g-4k-crumbs-4k",
                "memfd-1g-4k-crumbs-4k-early"
            ]
        );
        assert_eq!(names(false, "idle"), ["idle-4g"]);
        assert!(names(false, "nothing like it").is_empty());
    }

    #[test]
    fn names_tell_jobs_apart() {
        let all = select(false, "");
        let names: BTreeSet<_> = all.iter().map(|one| &one.name).collect();
        assert_eq!(names.len(), all.len());
    }

    #[test]
    fn the_quick_ones_are_among_all() {
        let all = select(false, "");
        assert!(select(true, "").iter().all(|quick| all.contains(quick)));
    }
}

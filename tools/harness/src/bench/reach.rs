// SPDX-License-Identifier: GPL-2.0

//! What is to be reached, and whether it is.

use super::jobs::COUNTS;
use super::metric::Metric;
use super::ratio::Ratio;
use super::results::{Cell, Results, Side};
use crate::units::{three_digits, Unit};
use luo_vm_protocol::bench::{Figure, Job};

/// A line of the table of what is to be reached.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Goal {
    /// What.
    pub what: String,
    /// What is asked for, as it is asked for.
    pub at_most: &'static str,
    /// What was measured; nothing if it was not.
    pub measured: Option<String>,
    /// Whether that is enough.
    pub met: Option<bool>,
}

impl Goal {
    fn ratio(what: impl Into<String>, at_most: (&'static str, f64), ratio: Option<Ratio>) -> Self {
        let at_least = matches!(ratio, Some(Ratio::AtLeast(_)));
        Self {
            what: what.into(),
            at_most: at_most.0,
            measured: ratio.map(|ratio| ratio.to_string()),
            met: ratio.map(|ratio| !at_least && ratio.number() <= at_most.1),
        }
    }
}

const FRESH: &str = "memfd-1g-4k-in-order";
const CRUMBS: &str = "memfd-1g-4k-crumbs-4k";
const HOLE: &str = "memfd-512m-4k-in-order-0%";
/// Of the hole.
const MIB: f64 = 1024.0 * 1024.0;

const PRESERVE: Metric = Metric::Mean(Figure::Preserve);
const RETRIEVE: Metric = Metric::Mean(Figure::Retrieve);
const MEMORY: Metric = Metric::Mean(Figure::PreserveMemory);

/// Memfds of 1 GiB of 4 KiB pages, and how they are described.
const MEMFDS: [(&str, &str); 2] = [(FRESH, "fresh VM"), (CRUMBS, "fragmented memory")];

/// All of them.
pub fn goals(results: &Results) -> Vec<Goal> {
    let ratio = |name: &str, metric| {
        let cell = results.cell(name)?;
        results.row(cell, metric).ratio()
    };
    let mut goals = vec![
        Goal::ratio(
            "PRESERVE_FD of a 512 MiB hole",
            ("1/100", 0.01),
            ratio(HOLE, PRESERVE),
        ),
        hole_memory(results),
    ];
    for (name, memfd) in MEMFDS {
        let at_most = if name == FRESH {
            ("1/20", 0.05)
        } else {
            ("1/3", 1.0 / 3.0)
        };
        let what = format!("blackout added by 1 GiB of 4 KiB pages, {memfd}");
        goals.push(Goal::ratio(what, at_most, ratio(name, Metric::Blackout)));
    }
    for (name, memfd) in MEMFDS {
        let what = format!("RETRIEVE_FD alone, {memfd}");
        goals.push(Goal::ratio(what, ("1/10", 0.1), ratio(name, RETRIEVE)));
    }
    for (name, memfd) in MEMFDS {
        let what = format!("PRESERVE_FD, populated, 4 KiB pages, {memfd}");
        goals.push(Goal::ratio(what, ("1/2", 0.5), ratio(name, PRESERVE)));
    }
    goals.push(huge(results));
    let what = "metadata kept for 1 GiB of 4 KiB pages, fresh VM";
    goals.push(Goal::ratio(what, ("1/50", 0.02), ratio(FRESH, MEMORY)));
    goals.push(flat(
        results,
        "CREATE_SESSION",
        Job::Sessions,
        Metric::Mean(Figure::CreateSession),
    ));
    goals.push(flat(
        results,
        "PRESERVE_FD of one page",
        Job::Files,
        PRESERVE,
    ));
    let idle = Metric::Mean(Figure::GetName);
    goals.push(Goal::ratio(
        "GET_NAME, which does nothing",
        ("1.1", 1.1),
        ratio("idle-4g", idle),
    ));
    goals
}

/// One line: which of those that were measured are not met.
pub fn missed(goals: &[Goal]) -> String {
    let measured = goals.iter().filter(|goal| goal.met.is_some()).count();
    let missed: Vec<_> = goals
        .iter()
        .filter(|goal| goal.met == Some(false))
        .map(|goal| goal.what.as_str())
        .collect();
    match missed.len() {
        0 => format!("goals missed: none of the {measured} measured"),
        count => format!("goals missed: {count} of {measured}: {}", missed.join("; ")),
    }
}

fn hole_memory(results: &Results) -> Goal {
    let cell = results.cell(HOLE);
    let memory = cell.and_then(|cell| results.value(cell, Side::Rust, MEMORY));
    Goal {
        what: "memory taken for it, instead of 512 MiB".into(),
        at_most: "1 MiB",
        measured: memory.map(|memory| Unit::Memory.show(memory)),
        met: memory.map(|memory| memory <= MIB),
    }
}

/// Everything with 2 MiB folios: what compares worst.
fn huge(results: &Results) -> Goal {
    let is_huge = |cell: &&Cell| matches!(&cell.measurement.job, Job::Memfd(memfd) if memfd.huge);
    let mut worst: Option<(Ratio, String)> = None;
    for cell in results.cells.iter().filter(is_huge) {
        for row in results.rows(cell) {
            let Some(ratio) = row.ratio() else { continue };
            if worst
                .as_ref()
                .is_none_or(|(most, _)| ratio.number() > most.number())
            {
                let name = &cell.measurement.name;
                let label = row.metric.label(&cell.measurement.job);
                worst = Some((ratio, format!("{ratio}: {label}, {name}")));
            }
        }
    }
    let (ratio, text) = worst.unzip();
    Goal {
        measured: text,
        ..Goal::ratio("everything with 2 MiB folios", ("1", 1.0), ratio)
    }
}

/// The mean at the highest count over that at the lowest, ours alone.
fn flat(results: &Results, what: &str, job: fn(u32) -> Job, metric: Metric) -> Goal {
    let mean = |count| {
        let cell = results.cell(&super::jobs::name(&job(count)))?;
        results.value(cell, Side::Rust, metric)
    };
    let growth = || Some(mean(COUNTS[COUNTS.len() - 1])? / mean(COUNTS[0])?);
    let growth = growth();
    Goal {
        what: format!("{what}: mean at 16,000 over mean at 250"),
        at_most: "1.2",
        measured: growth.map(three_digits),
        met: growth.map(|growth| growth <= 1.2),
    }
}

#[cfg(test)]
mod tests {
    use super::super::jobs::Measurement;
    use super::super::results::tests::{record, results};
    use super::*;
    use luo_vm_protocol::bench::{Layout, Memfd};

    fn goal(results: &Results, what: &str) -> (Option<String>, Option<bool>) {
        let goals = goals(results);
        let goal = goals.iter().find(|goal| goal.what.contains(what)).unwrap();
        (goal.measured.clone(), goal.met)
    }

    #[test]
    fn what_is_met_and_what_not() {
        let mean = |ns| record(0, 0, &[(Figure::Preserve, ns), (Figure::GetName, ns)]);
        let results = results(vec![
            (Measurement::baseline(4096), mean(100), mean(111)),
            (Measurement::new(Job::Files(250)), mean(1), mean(100)),
            (Measurement::new(Job::Files(16_000)), mean(1), mean(120)),
        ]);
        assert_eq!(
            goal(&results, "GET_NAME"),
            (Some("1.11".into()), Some(false))
        );
        assert_eq!(
            goal(&results, "PRESERVE_FD of one page"),
            (Some("1.20".into()), Some(true))
        );
        assert_eq!(goal(&results, "CREATE_SESSION"), (None, None));
        assert_eq!(goal(&results, "RETRIEVE_FD alone"), (None, None));
        let mut goals = goals(&results);
        assert_eq!(
            missed(&goals),
            "goals missed: 1 of 2: GET_NAME, which does nothing"
        );
        goals.retain(|goal| goal.met != Some(false));
        assert_eq!(missed(&goals), "goals missed: none of the 1 measured");
    }

    #[test]
    fn the_worst_of_the_huge_ones_counts() {
        let memfd = |size| {
            Measurement::new(Job::Memfd(Memfd {
                size,
                percent: 100,
                layout: Layout::InOrder,
                huge: true,
                early: false,
            }))
        };
        let times = |preserve, retrieve| {
            record(
                0,
                0,
                &[(Figure::Preserve, preserve), (Figure::Retrieve, retrieve)],
            )
        };
        let results = results(vec![
            (memfd(64 << 20), times(100, 100), times(50, 40)),
            (memfd(256 << 20), times(100, 100), times(50, 130)),
        ]);
        let (measured, met) = goal(&results, "2 MiB folios");
        assert_eq!(
            measured.unwrap(),
            "1.30: RETRIEVE_FD, memfd-256m-2m-in-order"
        );
        assert_eq!(met, Some(false));
    }
}

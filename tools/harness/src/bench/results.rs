// SPDX-License-Identifier: GPL-2.0

//! What was measured, of all VMs.

use super::jobs::Measurement;
use super::metric::{self, Metric};
use super::ratio::Ratio;
use super::vm::Record;
use serde::{Deserialize, Serialize};

/// Which orchestrator.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Side {
    /// The kernel's own.
    C,
    /// Ours.
    Rust,
}

/// What one VM gave, or why it gave nothing.
pub type Outcome = Result<Record, String>;

/// A job, measured for both orchestrators.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Cell {
    /// The job.
    #[serde(flatten)]
    pub measurement: Measurement,
    /// The kernel's own.
    pub c: Outcome,
    /// Ours.
    pub rust: Outcome,
}

impl Cell {
    /// What that side's VM gave.
    pub fn outcome(&self, side: Side) -> &Outcome {
        match side {
            Side::C => &self.c,
            Side::Rust => &self.rust,
        }
    }
}

/// What was measured, when and with what.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Setting {
    /// `uname -rv` of the kernel, as far as it is known.
    pub kernel: String,
    /// Commit of this repository.
    pub commit: String,
    /// When, in UTC.
    pub date: String,
    /// QEMU's version.
    pub qemu: String,
}

/// A whole run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Results {
    /// With what.
    pub setting: Setting,
    /// The jobs, in order.
    pub cells: Vec<Cell>,
}

/// A line of the table.
#[derive(Clone, Debug)]
pub struct Row {
    /// What.
    pub metric: Metric,
    /// Its value for the kernel's own orchestrator.
    pub c: Option<f64>,
    /// Its value for ours.
    pub rust: Option<f64>,
}

impl Row {
    /// Ours over the other, where both are there.
    pub fn ratio(&self) -> Option<Ratio> {
        Some(Ratio::new(self.rust?, self.c?, self.metric.resolution()))
    }
}

impl Results {
    /// The cell of this name.
    pub fn cell(&self, name: &str) -> Option<&Cell> {
        self.cells.iter().find(|cell| cell.measurement.name == name)
    }

    /// What is told of a cell.
    pub fn rows(&self, cell: &Cell) -> Vec<Row> {
        let metrics = metric::of(&cell.measurement.job).iter();
        metrics.map(|&metric| self.row(cell, metric)).collect()
    }

    /// One metric of a cell.
    pub fn row(&self, cell: &Cell, metric: Metric) -> Row {
        Row {
            metric,
            c: self.value(cell, Side::C, metric),
            rust: self.value(cell, Side::Rust, metric),
        }
    }

    /// One metric of one side of a cell.
    pub fn value(&self, cell: &Cell, side: Side, metric: Metric) -> Option<f64> {
        let record = cell.outcome(side).as_ref().ok()?;
        let idle = Measurement::baseline(cell.measurement.memory_mib);
        let idle = self
            .cell(&idle.name)
            .and_then(|idle| idle.outcome(side).as_ref().ok());
        metric.value(record, idle)
    }
}

#[cfg(test)]
pub mod tests {
    use super::super::vm::Sum;
    use super::*;
    use luo_vm_protocol::bench::{Figure, Job};

    /// A record with these figures, of one operation each.
    pub fn record(leave_ns: i64, jump_ns: i64, figures: &[(Figure, i64)]) -> Record {
        let sum = |&(figure, total)| (figure, Sum { total, count: 1 });
        Record {
            leave_ns,
            jump_ns,
            figures: figures.iter().map(sum).collect(),
            ..Record::default()
        }
    }

    /// Results with these cells, in which each side's record is given.
    pub fn results(cells: Vec<(Measurement, Record, Record)>) -> Results {
        let cell = |(measurement, c, rust)| Cell {
            measurement,
            c: Ok(c),
            rust: Ok(rust),
        };
        let word = || "test".to_string();
        Results {
            setting: Setting {
                kernel: word(),
                commit: word(),
                date: word(),
                qemu: word(),
            },
            cells: cells.into_iter().map(cell).collect(),
        }
    }

    #[test]
    fn what_is_added_is_a_difference_to_the_idle_vm_of_that_side() {
        let idle = |leave, jump, insmod| record(leave, jump, &[(Figure::Insmod, insmod)]);
        let busy = |leave, jump, insmod, retrieve| {
            record(
                leave,
                jump,
                &[(Figure::Insmod, insmod), (Figure::Retrieve, retrieve)],
            )
        };
        let job = Measurement::new(Job::Files(250));
        let name = job.name.clone();
        let results = results(vec![
            (
                Measurement::baseline(4096),
                idle(100, 1000, 0),
                idle(110, 1010, 50),
            ),
            (job, busy(130, 1430, 0, 7), busy(120, 1040, 60, 5)),
        ]);
        let cell = results.cell(&name).unwrap();
        let row = |metric| {
            let Row { c, rust, .. } = results.row(cell, metric);
            (c.unwrap(), rust.unwrap())
        };
        assert_eq!(row(Metric::Freeze), (30.0, 10.0));
        // 1300 - 900, and 920 + 60 - 900 - 50.
        assert_eq!(row(Metric::Boot), (400.0, 30.0));
        assert_eq!(row(Metric::Blackout), (437.0, 45.0));
    }

    #[test]
    fn what_failed_has_no_value() {
        let mut results = results(vec![(
            Measurement::new(Job::Sessions(250)),
            record(1, 2, &[(Figure::CreateSession, 9)]),
            record(1, 2, &[(Figure::CreateSession, 9)]),
        )]);
        results.cells[0].rust = Err("it panicked".into());
        let row = results.row(&results.cells[0], Metric::Mean(Figure::CreateSession));
        assert_eq!((row.c, row.rust), (Some(9.0), None));
        assert!(row.ratio().is_none());
        // Nothing to compare it with.
        assert_eq!(results.row(&results.cells[0], Metric::Boot).c, None);
    }
}

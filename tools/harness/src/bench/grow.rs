// SPDX-License-Identifier: GPL-2.0

//! How the figures grow with the size of a memfd, and what that makes of a large host.

use super::jobs::{self, GIB};
use super::metric::Metric;
use super::page::{heading, rst_table};
use super::results::{Results, Side};
use luo_vm_protocol::bench::{Figure, Job, Layout, Memfd};
use std::fmt::Write;

/// GiB of the host whose figures are worked out.
const HOST: f64 = 1024.0;

/// What is worked out.
const METRICS: [Metric; 6] = [
    Metric::Mean(Figure::Preserve),
    Metric::Freeze,
    Metric::Boot,
    Metric::Mean(Figure::Retrieve),
    Metric::Blackout,
    Metric::Mean(Figure::PreserveMemory),
];

/// The chapter about it; nothing if the two sizes that it takes were not measured.
pub fn text(results: &Results) -> String {
    let mut text = String::new();
    for (huge, folio) in [(false, "4 KiB pages"), (true, "folios of 2 MiB")] {
        let rows: Vec<_> = METRICS
            .iter()
            .filter_map(|&metric| row(results, huge, metric))
            .collect();
        if rows.is_empty() {
            continue;
        }
        let _ = writeln!(text, "{folio}, populated in order, fresh VM:\n");
        let head = [
            "what",
            "C, a GiB more",
            "Rust, a GiB more",
            "C, 1 TiB",
            "Rust, 1 TiB",
        ];
        text += &rst_table(head, rows);
    }
    if text.is_empty() {
        return text;
    }
    let mut chapter = String::new();
    heading(&mut chapter, "A host of 1 TiB", '-');
    chapter +=
        "The cost of one more GiB is that of a memfd of 2 GiB less that of one of 1 GiB; that of\n\
                1 TiB is that of 2 GiB and of 1022 GiB more:\n\n";
    chapter + &text
}

fn row(results: &Results, huge: bool, metric: Metric) -> Option<[String; 5]> {
    let of = |side| {
        let value = |size| {
            let job = Job::Memfd(Memfd {
                size,
                percent: 100,
                layout: Layout::InOrder,
                huge,
                early: false,
            });
            results.value(results.cell(&jobs::name(&job))?, side, metric)
        };
        Some(Growth::new(value(GIB)?, value(2 * GIB)?))
    };
    let (c, rust) = (of(Side::C)?, of(Side::Rust)?);
    // Of two differences each is off by what cannot be told from nothing.
    let resolution = metric.resolution() * 2.0;
    let show = |value: f64, resolution: f64| match value < resolution {
        true => format!("< {}", metric.unit().show(resolution)),
        false => metric.unit().show(value),
    };
    let label = metric.label(&Job::Memfd(Memfd {
        size: GIB,
        percent: 100,
        layout: Layout::InOrder,
        huge,
        early: false,
    }));
    Some([
        label.into(),
        show(c.slope, resolution),
        show(rust.slope, resolution),
        show(c.host(), resolution * HOST),
        show(rust.host(), resolution * HOST),
    ])
}

/// A cost that grows by the same for each GiB.
#[derive(Clone, Copy, Debug)]
struct Growth {
    /// Of one more GiB.
    slope: f64,
    /// Of 2 GiB.
    two: f64,
}

impl Growth {
    fn new(one: f64, two: f64) -> Self {
        Self {
            slope: two - one,
            two,
        }
    }

    fn host(self) -> f64 {
        self.two + (HOST - 2.0) * self.slope
    }
}

#[cfg(test)]
mod tests {
    use super::super::jobs::Measurement;
    use super::super::results::tests::{record, results};
    use super::*;

    #[test]
    fn a_straight_line_goes_on() {
        let memfd = |size| {
            Measurement::new(Job::Memfd(Memfd {
                size,
                percent: 100,
                layout: Layout::InOrder,
                huge: false,
                early: false,
            }))
        };
        let retrieve = |ms: i64| record(0, 0, &[(Figure::Retrieve, ms * 1_000_000)]);
        let both = results(vec![
            (memfd(GIB), retrieve(400), retrieve(3)),
            (memfd(2 * GIB), retrieve(800), retrieve(5)),
        ]);
        let text = text(&both);
        let row = text
            .lines()
            .find(|line| line.starts_with("RETRIEVE_FD"))
            .unwrap();
        let fields: Vec<_> = row
            .split("  ")
            .map(str::trim)
            .filter(|field| !field.is_empty())
            .collect();
        // 800 ms and 1022 times 400 ms; 5 ms and 1022 times 2 ms.
        assert_eq!(
            fields,
            ["RETRIEVE_FD", "400 ms", "2.00 ms", "410 s", "2.05 s"]
        );
        assert!(!text.contains("freeze"));
        assert_eq!(super::text(&results(vec![])), "");
    }
}

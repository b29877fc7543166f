// SPDX-License-Identifier: GPL-2.0

//! The results as pictures.

mod axis;
mod panel;

use super::metric::Metric;
use super::results::{Cell, Results, Side};
use crate::paint::{rect, text, FAINT, FONT, INK};
use crate::units::{size, thousands};
use axis::Axis;
use luo_vm_protocol::bench::{Figure, Job, Layout, Memfd};
use panel::{Panel, Points, C, RUST};
use svg::node::element::Circle;
use svg::Document;

/// Panels side by side.
const COLUMNS: usize = 2;
const MARGIN: f64 = 20.0;
const HEAD: f64 = 92.0;
const FOOT: f64 = 34.0;

/// The blackout over the size of a memfd; nothing if no two sizes were measured.
pub fn blackout(results: &Results) -> Option<Document> {
    let kinds = [
        ("4 KiB pages, populated in order", Layout::InOrder, false),
        (
            "4 KiB pages, populated in random order",
            Layout::Random,
            false,
        ),
        (
            "4 KiB pages, from crumbs of 4 KiB",
            super::jobs::CRUMBS,
            false,
        ),
        ("2 MiB folios", Layout::InOrder, true),
    ];
    let panels = kinds.iter().filter_map(|&(title, layout, huge)| {
        let bytes = |cell: &Cell| match &cell.measurement.job {
            Job::Memfd(memfd) if is_of(memfd, layout, huge) => Some(memfd.size as f64),
            _ => None,
        };
        let (c, rust) = curves(results, Metric::Blackout, bytes);
        let end = c.iter().chain(&rust).map(|&(x, _)| x).fold(0.0, f64::max);
        let marks = (1..=4).map(|quarter| end * f64::from(quarter) / 4.0);
        let mark = |bytes: f64| (bytes, size(bytes as u64));
        Some(Panel {
            title: title.into(),
            x_name: "size of the memfd",
            x: Axis::Linear { end },
            x_marks: [0.0].into_iter().chain(marks).map(mark).collect(),
            unit: Metric::Blackout.unit(),
            c,
            rust,
        })
        .filter(is_worth_it)
    });
    let subtitle =
        "What a memfd adds to a kexec while its user is paused: freeze, boot of the new kernel, RETRIEVE_FD";
    draw("Blackout over size", subtitle, &panels.collect::<Vec<_>>())
}

fn is_of(memfd: &Memfd, layout: Layout, huge: bool) -> bool {
    let kind = (memfd.layout, memfd.huge, memfd.percent, memfd.early);
    kind == (layout, huge, 100, false)
}

/// The cost of an operation over the number of sessions or files; nothing if no two numbers were measured.
pub fn operations(results: &Results) -> Option<Document> {
    let sessions = |job: &Job| match *job {
        Job::Sessions(count) => Some(count),
        _ => None,
    };
    let files = |job: &Job| match *job {
        Job::Files(count) => Some(count),
        _ => None,
    };
    type CountOf = fn(&Job) -> Option<u32>;
    let kinds: [(&str, &'static str, CountOf, Figure); 8] = [
        (
            "CREATE_SESSION",
            "sessions",
            sessions,
            Figure::CreateSession,
        ),
        (
            "PRESERVE_FD of a one-page memfd",
            "files in the session",
            files,
            Figure::Preserve,
        ),
        (
            "RETRIEVE_SESSION",
            "sessions",
            sessions,
            Figure::RetrieveSession,
        ),
        (
            "RETRIEVE_FD of a one-page memfd",
            "files in the session",
            files,
            Figure::Retrieve,
        ),
        (
            "close of a session",
            "sessions",
            sessions,
            Figure::CloseSession,
        ),
        (
            "close of the session, a file",
            "files in the session",
            files,
            Figure::Unpreserve,
        ),
        (
            "FINISH of a session",
            "sessions",
            sessions,
            Figure::FinishSession,
        ),
        (
            "FINISH, a file",
            "files in the session",
            files,
            Figure::Finish,
        ),
    ];
    let panels = kinds
        .iter()
        .filter_map(|&(title, x_name, count_of, figure)| {
            let metric = Metric::Mean(figure);
            let (c, rust) = curves(results, metric, |cell| {
                Some(count_of(&cell.measurement.job)?.into())
            });
            let counts: Vec<f64> = c.iter().chain(&rust).map(|&(count, _)| count).collect();
            let start = counts.iter().copied().fold(f64::INFINITY, f64::min);
            let end = counts.iter().copied().fold(0.0, f64::max);
            let marks = super::jobs::COUNTS.map(f64::from);
            let inside = marks
                .iter()
                .filter(|&&count| start <= count && count <= end);
            let mark = |&count: &f64| (count, thousands(count as u64));
            Some(Panel {
                title: title.into(),
                x_name,
                x: Axis::Log { start, end },
                x_marks: inside.map(mark).collect(),
                unit: metric.unit(),
                c,
                rust,
            })
            .filter(is_worth_it)
        });
    let subtitle = "Mean time of an operation, over how many sessions or files there are";
    draw(
        "Cost of an operation over count",
        subtitle,
        &panels.collect::<Vec<_>>(),
    )
}

/// One point is no curve.
fn is_worth_it(panel: &Panel) -> bool {
    panel.c.len() > 1 || panel.rust.len() > 1
}

/// The points of both sides, by x.
fn curves(results: &Results, metric: Metric, x: impl Fn(&Cell) -> Option<f64>) -> (Points, Points) {
    let side = |side| {
        let point = |cell: &Cell| Some((x(cell)?, results.value(cell, side, metric)?));
        let mut points: Vec<_> = results.cells.iter().filter_map(point).collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        points
    };
    (side(Side::C), side(Side::Rust))
}

fn draw(title: &str, subtitle: &str, panels: &[Panel]) -> Option<Document> {
    if panels.is_empty() {
        return None;
    }
    let rows = panels.len().div_ceil(COLUMNS);
    let width = 2.0 * MARGIN + COLUMNS.min(panels.len()) as f64 * panel::WIDTH;
    let height = HEAD + rows as f64 * panel::HEIGHT + FOOT;
    let mut document = Document::new()
        .set("viewBox", (0, 0, width, height))
        .set("width", width)
        .set("height", height)
        .set("font-family", FONT)
        .add(rect(0.0, 0.0, width, height, "#ffffff").set("rx", 0))
        .add(text(28.0, 40.0, title, 22.0, INK).set("font-weight", 600))
        .add(text(28.0, 62.0, subtitle, 12.5, FAINT));
    let mut left = 34.0;
    for (name, colour) in [("orchestrator in C", C), ("luo.ko, in Rust", RUST)] {
        let dot = Circle::new().set("cx", left).set("cy", 81).set("r", 4.5);
        document = document
            .add(dot.set("fill", colour))
            .add(text(left + 10.0, 85.0, name, 12.5, colour).set("font-weight", 600));
        left += 150.0;
    }
    for (index, panel) in panels.iter().enumerate() {
        let (column, row) = (index % COLUMNS, index / COLUMNS);
        let left = MARGIN + column as f64 * panel::WIDTH;
        document = document.add(panel.draw(left, HEAD + row as f64 * panel::HEIGHT));
    }
    let note = "QEMU with a clock that counts instructions: 1 ns is one instruction of the guest";
    Some(document.add(text(28.0, height - 14.0, note, 11.0, FAINT)))
}

#[cfg(test)]
mod tests {
    use super::super::jobs::Measurement;
    use super::super::results::tests::{record, results};
    use super::*;

    #[test]
    fn a_picture_has_a_panel_for_each_kind_that_was_measured_twice() {
        let files = |count| Measurement::new(Job::Files(count));
        let times = |ns| record(0, 0, &[(Figure::Preserve, ns)]);
        let both = results(vec![
            (files(250), times(20_000), times(9_000)),
            (files(16_000), times(40_000), times(9_500)),
        ]);
        let picture = operations(&both).unwrap().to_string();
        assert_eq!(picture.matches("<polyline").count(), 2);
        for word in [
            "PRESERVE_FD of a one-page memfd",
            "16,000",
            "40.0 µs",
            "9.50 µs",
        ] {
            assert!(picture.contains(word), "{word}: {picture}");
        }
        assert!(!picture.contains("CREATE_SESSION"));
        assert!(blackout(&both).is_none());
        let one = results(vec![(files(250), times(1), times(1))]);
        assert!(operations(&one).is_none());
    }
}

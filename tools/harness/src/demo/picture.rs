// SPDX-License-Identifier: GPL-2.0

//! The timeline as a picture.

use super::timeline::{human, Side, Timeline};
use crate::paint::{nice_step, rect, text, FAINT, FONT, GRID, INK};
use svg::node::element::{Group, Line, Rectangle};
use svg::Document;

const WIDTH: f64 = 1040.0;
const LEFT: f64 = 250.0;
const RIGHT: f64 = 100.0;
const TOP: f64 = 118.0;
const ROW: f64 = 34.0;
const BAR: f64 = 18.0;

const SERVING: &str = "#3ebd93";
const SILENT: &str = "#fdecea";
const SILENT_INK: &str = "#b3261e";
const PAUSED: &str = "#f3b4ae";

/// Draws it. `subtitle` says what was kept.
pub fn draw(timeline: &Timeline, subtitle: &str) -> Document {
    // Some time after the end, in which the service is seen to be back.
    let end = timeline.end() * 1.04;
    let x = |ms: f64| LEFT + ms.max(0.0) / end * (WIDTH - LEFT - RIGHT);
    let workloads = 1 + timeline.paused.iter().count();
    let bottom = TOP + ROW * (timeline.phases.len() + workloads) as f64 + 8.0;
    let height = bottom + 76.0;

    let (from, to) = timeline.silent;
    let mut document = Document::new()
        .set("viewBox", (0, 0, WIDTH, height))
        .set("width", WIDTH)
        .set("height", height)
        .set("font-family", FONT)
        .add(rect(0.0, 0.0, WIDTH, height, "#ffffff").set("rx", 0))
        .add(
            text(
                28.0,
                42.0,
                "Live update: one kernel replaced by the next",
                22.0,
                INK,
            )
            .set("font-weight", 600),
        )
        .add(text(28.0, 68.0, subtitle, 13.0, FAINT))
        .add(rect(
            x(from),
            TOP - 12.0,
            x(to) - x(from),
            bottom - TOP + 12.0,
            SILENT,
        ))
        .add(
            text(
                (x(from) + x(to)) / 2.0,
                TOP - 20.0,
                &format!("no service for {}", human(to - from)),
                13.0,
                SILENT_INK,
            )
            .set("text-anchor", "middle")
            .set("font-weight", 600),
        )
        .add(axis(end, x, bottom));

    let mut row = TOP;
    document = document
        .add(label(row, "service", "answers requests"))
        .add(bar(x(0.0), x(from), row, SERVING))
        .add(bar(x(to), x(end), row, SERVING));
    if let Some((from, to)) = timeline.paused {
        row += ROW;
        let still = format!("stands still for {}", human(to - from));
        document = document
            .add(label(row, "guest", "counts, writes its memory"))
            .add(bar(x(0.0), x(from), row, SERVING))
            .add(bar(x(from), x(to), row, PAUSED))
            .add(bar(x(to), x(end), row, SERVING))
            .add(
                text(
                    (x(from) + x(to)) / 2.0,
                    row + 18.5,
                    &still,
                    12.5,
                    SILENT_INK,
                )
                .set("text-anchor", "middle"),
            );
    }
    for phase in &timeline.phases {
        row += ROW;
        let (left, right) = (x(phase.from), x(phase.to).max(x(phase.from) + 2.5));
        document = document
            .add(label(row, phase.name, phase.note))
            .add(bar(left, right, row, colour(phase.side)))
            .add(text(
                right + 7.0,
                row + 18.5,
                &human(phase.took()),
                12.5,
                INK,
            ));
    }
    document.add(legend(height - 20.0))
}

fn colour(side: Side) -> &'static str {
    match side {
        Side::Old => "#4c63b6",
        Side::Between => "#9aa5b1",
        Side::New => "#e8833a",
    }
}

fn axis(end: f64, x: impl Fn(f64) -> f64, bottom: f64) -> Group {
    let step = nice_step(end / 8.0);
    let mut group = Group::new();
    for tick in 0..=(end / step) as u32 {
        let ms = f64::from(tick) * step;
        let line = Line::new()
            .set("x1", x(ms))
            .set("x2", x(ms))
            .set("y1", TOP - 6.0)
            .set("y2", bottom);
        let name = if step >= 1000.0 {
            format!("{:.0} s", ms / 1e3)
        } else {
            format!("{ms:.0} ms")
        };
        group = group
            .add(line.set("stroke", GRID))
            .add(text(x(ms), bottom + 17.0, &name, 11.5, FAINT).set("text-anchor", "middle"));
    }
    group
}

fn legend(y: f64) -> Group {
    let entries = [
        (SERVING, "workload runs"),
        (colour(Side::Old), "old kernel"),
        (colour(Side::Between), "between"),
        (colour(Side::New), "new kernel"),
    ];
    let mut group = Group::new();
    let mut left = LEFT;
    for (colour, name) in entries {
        group = group
            .add(rect(left, y - 10.0, 12.0, 12.0, colour))
            .add(text(left + 18.0, y, name, 12.0, FAINT));
        left += 48.0 + 7.0 * name.len() as f64;
    }
    group
}

fn label(row: f64, name: &str, note: &str) -> Group {
    Group::new()
        .add(text(28.0, row + 13.0, name, 13.5, INK).set("font-weight", 600))
        .add(text(28.0, row + 26.0, note, 10.5, FAINT))
}

fn bar(left: f64, right: f64, row: f64, colour: &str) -> Rectangle {
    rect(left, row + 5.0, (right - left).max(0.0), BAR, colour)
}

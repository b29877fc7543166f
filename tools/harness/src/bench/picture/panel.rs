// SPDX-License-Identifier: GPL-2.0

//! A diagram with a line for each orchestrator.

use super::axis::Axis;
use crate::paint::{round, text, FAINT, GRID, INK};
use crate::units::Unit;
use svg::node::element::{Circle, Group, Line, Polyline};

/// Width of a panel, with what is written beside it.
pub const WIDTH: f64 = 470.0;
/// Height of a panel, with title and axis.
pub const HEIGHT: f64 = 300.0;
/// Colour of the kernel's own orchestrator.
pub const C: &str = "#7b8794";
/// Colour of ours.
pub const RUST: &str = "#d9691e";

const LEFT: f64 = 66.0;
const RIGHT: f64 = 74.0;
const TOP: f64 = 50.0;
const BOTTOM: f64 = 52.0;
/// Height of a letter: labels nearer than this would cover one another.
const LETTER: f64 = 14.0;

/// Points of a curve.
pub type Points = Vec<(f64, f64)>;

/// A diagram.
#[derive(Clone, Debug)]
pub struct Panel {
    /// What it shows.
    pub title: String,
    /// What the x axis is.
    pub x_name: &'static str,
    /// The x axis.
    pub x: Axis,
    /// Values of x with a mark, and what is written there.
    pub x_marks: Vec<(f64, String)>,
    /// What y counts.
    pub unit: Unit,
    /// Points of the kernel's own orchestrator.
    pub c: Points,
    /// Points of ours.
    pub rust: Points,
}

impl Panel {
    /// Draws it with its upper left corner here.
    pub fn draw(&self, left: f64, top: f64) -> Group {
        let values = self.c.iter().chain(&self.rust).map(|&(_, y)| y);
        let y_axis = Axis::up_to(values);
        let (x0, x1) = (left + LEFT, left + WIDTH - RIGHT);
        let (y0, y1) = (top + HEIGHT - BOTTOM, top + TOP);
        let x = |value: f64| x0 + self.x.place(value) * (x1 - x0);
        let y = |value: f64| y0 + y_axis.place(value.max(0.0)) * (y1 - y0);

        let title = text(x0, top + 28.0, &self.title, 15.0, INK).set("font-weight", 600);
        let name = text((x0 + x1) / 2.0, y0 + 38.0, self.x_name, 11.5, FAINT);
        let mut group = Group::new()
            .add(title)
            .add(name.set("text-anchor", "middle"));
        for mark in y_axis.marks() {
            let label = text(x0 - 8.0, y(mark) + 4.0, &self.mark(mark), 11.5, FAINT);
            group = group
                .add(line(x0, y(mark), x1, y(mark), GRID))
                .add(label.set("text-anchor", "end"));
        }
        for (value, label) in &self.x_marks {
            let label = text(x(*value), y0 + 18.0, label, 11.5, FAINT);
            group = group
                .add(line(x(*value), y0, x(*value), y0 + 4.0, FAINT))
                .add(label.set("text-anchor", "middle"));
        }
        group = group.add(line(x0, y0, x1, y0, FAINT));
        for (points, colour) in [(&self.c, C), (&self.rust, RUST)] {
            let on_paper: Vec<_> = points
                .iter()
                .map(|&(at, value)| (x(at), y(value)))
                .collect();
            group = group.add(curve(&on_paper, colour));
        }
        self.end_labels(x1 + 9.0, y, group)
    }

    /// The last values, beside their points and not upon one another.
    fn end_labels(&self, left: f64, y: impl Fn(f64) -> f64, mut group: Group) -> Group {
        let last = |points: &[(f64, f64)]| points.last().map(|&(_, value)| value);
        let ends = [(last(&self.c), C), (last(&self.rust), RUST)];
        let places = apart(ends.map(|(value, _)| value.map(&y)));
        for ((value, colour), place) in ends.into_iter().zip(places) {
            if let (Some(value), Some(place)) = (value, place) {
                let label = text(left, place + 4.0, &self.unit.show(value), 12.0, colour);
                group = group.add(label.set("font-weight", 600));
            }
        }
        group
    }

    /// A value of the y axis, which is a round one.
    fn mark(&self, value: f64) -> String {
        if value == 0.0 {
            return "0".into();
        }
        let text = self.unit.show(value);
        let (number, unit) = text.split_once(' ').unwrap_or((&text, ""));
        if !number.contains('.') {
            return text;
        }
        let number = number.trim_end_matches('0').trim_end_matches('.');
        format!("{number} {unit}")
    }
}

/// Moves two labels so far from each other that both can be read, without changing which is higher.
fn apart(places: [Option<f64>; 2]) -> [Option<f64>; 2] {
    let [Some(a), Some(b)] = places else {
        return places;
    };
    let missing = LETTER - (a - b).abs();
    if missing <= 0.0 {
        return places;
    }
    let by = if a <= b {
        -missing / 2.0
    } else {
        missing / 2.0
    };
    [Some(a + by), Some(b - by)]
}

fn curve(points: &[(f64, f64)], colour: &str) -> Group {
    let path: Vec<String> = points
        .iter()
        .map(|&(x, y)| format!("{},{}", round(x), round(y)))
        .collect();
    let line = Polyline::new()
        .set("points", path.join(" "))
        .set("fill", "none")
        .set("stroke", colour)
        .set("stroke-width", 2.2)
        .set("stroke-linejoin", "round");
    points
        .iter()
        .fold(Group::new().add(line), |group, &(x, y)| {
            let point = Circle::new()
                .set("cx", round(x))
                .set("cy", round(y))
                .set("r", 3.6)
                .set("fill", colour)
                .set("stroke", "#ffffff")
                .set("stroke-width", 1.2);
            group.add(point)
        })
}

fn line(x1: f64, y1: f64, x2: f64, y2: f64, colour: &str) -> Line {
    Line::new()
        .set("x1", round(x1))
        .set("y1", round(y1))
        .set("x2", round(x2))
        .set("y2", round(y2))
        .set("stroke", colour)
}

#[cfg(test)]
mod tests {
    use super::apart;

    #[test]
    fn labels_keep_apart_and_in_order() {
        assert_eq!(apart([Some(100.0), Some(50.0)]), [Some(100.0), Some(50.0)]);
        assert_eq!(apart([Some(100.0), Some(96.0)]), [Some(105.0), Some(91.0)]);
        assert_eq!(apart([Some(96.0), Some(100.0)]), [Some(91.0), Some(105.0)]);
        assert_eq!(apart([None, Some(100.0)]), [None, Some(100.0)]);
    }
}

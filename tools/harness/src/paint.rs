// SPDX-License-Identifier: GPL-2.0

//! What the pictures have in common.

use svg::node::element::{Rectangle, Text};

/// Colour of what is read first.
pub const INK: &str = "#1f2933";
/// Colour of what is read last.
pub const FAINT: &str = "#7b8794";
/// Colour of lines to measure by.
pub const GRID: &str = "#e4e7eb";
/// Fonts, the first that there is.
pub const FONT: &str = "Inter, 'Segoe UI', 'DejaVu Sans', Arial, sans-serif";

/// The next of 1, 2, 5, 10, 20, ... that is not less.
pub fn nice_step(least: f64) -> f64 {
    let power = 10f64.powf(least.log10().floor());
    let factor = [1.0, 2.0, 5.0]
        .into_iter()
        .find(|factor| factor * power >= least);
    factor.unwrap_or(10.0) * power
}

/// A rectangle with slightly rounded corners.
pub fn rect(x: f64, y: f64, width: f64, height: f64, fill: &str) -> Rectangle {
    Rectangle::new()
        .set("x", round(x))
        .set("y", round(y))
        .set("width", round(width))
        .set("height", round(height))
        .set("rx", 2)
        .set("fill", fill)
}

/// A text whose baseline begins here.
pub fn text(x: f64, y: f64, content: &str, size: f64, fill: &str) -> Text {
    Text::new(content)
        .set("x", round(x))
        .set("y", round(y))
        .set("font-size", size)
        .set("fill", fill)
}

/// To a tenth: more cannot be seen.
pub fn round(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    #[test]
    fn steps_are_round() {
        assert_eq!(super::nice_step(3.1), 5.0);
        assert_eq!(super::nice_step(700.0), 1000.0);
        assert_eq!(super::nice_step(1000.0), 1000.0);
        assert_eq!(super::nice_step(0.011), 0.02);
    }
}

// SPDX-License-Identifier: GPL-2.0

//! Rust over C, with the care that small numbers want.

use crate::units::three_digits;
use std::fmt;

/// A ratio, and how sure it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Ratio {
    /// Both were measured.
    Exact(f64),
    /// Ours is too small to be measured: the ratio is at most this.
    AtMost(f64),
    /// The other is too small to be measured: the ratio is at least this.
    AtLeast(f64),
    /// Both are too small to be measured.
    Nothing,
}

impl Ratio {
    /// Of two values of which less than `resolution` cannot be told from nothing.
    pub fn new(rust: f64, c: f64, resolution: f64) -> Self {
        // Of what is not a difference, nothing at all is still a number to be divided by.
        let resolution = resolution.max(f64::MIN_POSITIVE);
        let ratio = rust.max(resolution) / c.max(resolution);
        match (rust < resolution, c < resolution) {
            (false, false) => Self::Exact(ratio),
            (true, false) => Self::AtMost(ratio),
            (false, true) => Self::AtLeast(ratio),
            (true, true) => Self::Nothing,
        }
    }

    /// A number for it: where it is a bound, that bound; where there is nothing to compare, none is the larger one.
    pub fn number(self) -> f64 {
        match self {
            Self::Exact(ratio) | Self::AtMost(ratio) | Self::AtLeast(ratio) => ratio,
            Self::Nothing => 1.0,
        }
    }
}

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::Exact(ratio) => three_digits(*ratio),
            // Nothing over something.
            Self::AtMost(ratio) if *ratio < 1e-9 => "0".into(),
            Self::AtMost(ratio) => format!("< {}", three_digits(*ratio)),
            Self::AtLeast(ratio) => format!("> {}", three_digits(*ratio)),
            Self::Nothing => "-".into(),
        };
        f.pad(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::Ratio;

    #[test]
    fn small_numbers_give_bounds() {
        assert_eq!(Ratio::new(50.0, 200.0, 0.0), Ratio::Exact(0.25));
        assert_eq!(Ratio::new(0.0, 200.0, 0.0).to_string(), "0");
        assert_eq!(Ratio::new(-3.0, 200.0, 2.0), Ratio::AtMost(0.01));
        assert_eq!(Ratio::new(8.0, 1.0, 2.0), Ratio::AtLeast(4.0));
        assert_eq!(Ratio::new(1.0, -1.0, 2.0), Ratio::Nothing);
        assert_eq!(Ratio::new(8.0, 1.0, 2.0).to_string(), "> 4.00");
        assert_eq!(Ratio::Nothing.number(), 1.0);
    }
}

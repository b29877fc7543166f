// SPDX-License-Identifier: GPL-2.0

//! An axis: where a value lies on the picture, and which values are marked.

use crate::paint::nice_step;

/// An axis from 0, or by powers from a value that is not.
#[derive(Clone, Copy, Debug)]
pub enum Axis {
    /// Equal steps are equally wide.
    Linear {
        /// The value at the end.
        end: f64,
    },
    /// Equal factors are equally wide.
    Log {
        /// The value at the start.
        start: f64,
        /// The value at the end.
        end: f64,
    },
}

impl Axis {
    /// A linear one that holds these values, and ends at a mark.
    pub fn up_to(values: impl IntoIterator<Item = f64>) -> Self {
        let most = values.into_iter().fold(0.0, f64::max);
        if most <= 0.0 {
            return Self::Linear { end: 1.0 };
        }
        let step = nice_step(most / Self::MARKS);
        Self::Linear {
            end: (most / step).ceil() * step,
        }
    }

    /// About so many marks are on an axis.
    const MARKS: f64 = 5.0;

    /// Where a value lies: 0 at the start, 1 at the end.
    pub fn place(self, value: f64) -> f64 {
        match self {
            Self::Linear { end } => value / end,
            Self::Log { start, end } => (value / start).ln() / (end / start).ln(),
        }
    }

    /// Round values, evenly spread. Of a logarithmic axis the caller knows which are worth a mark.
    pub fn marks(self) -> Vec<f64> {
        match self {
            Self::Linear { end } => {
                let step = nice_step(end / Self::MARKS);
                let count = (end / step + 1e-9).floor() as u32;
                (0..=count).map(|mark| f64::from(mark) * step).collect()
            }
            Self::Log { start, end } => vec![start, end],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Axis;

    #[test]
    fn a_linear_axis_ends_at_a_mark() {
        let axis = Axis::up_to([3.0, 118.0, 0.5]);
        assert_eq!(axis.marks(), [0.0, 50.0, 100.0, 150.0]);
        assert_eq!(axis.place(0.0), 0.0);
        assert_eq!(axis.place(75.0), 0.5);
        assert_eq!(axis.place(150.0), 1.0);
    }

    #[test]
    fn without_values_there_is_still_an_axis() {
        let axis = Axis::up_to([0.0]);
        assert_eq!(axis.place(0.5), 0.5);
        assert!(axis.marks().len() > 2);
    }

    #[test]
    fn factors_are_equally_wide() {
        let axis = Axis::Log {
            start: 250.0,
            end: 16_000.0,
        };
        let places = [250.0, 1000.0, 4000.0, 16_000.0].map(|count| axis.place(count));
        for (place, wanted) in places.iter().zip([0.0, 1.0 / 3.0, 2.0 / 3.0, 1.0]) {
            assert!((place - wanted).abs() < 1e-9, "{places:?}");
        }
    }
}

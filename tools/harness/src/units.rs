// SPDX-License-Identifier: GPL-2.0

//! Figures as people read them.

/// What a number counts.
#[derive(Clone, Copy, Debug, Eq, PartialEq, serde::Serialize)]
pub enum Unit {
    /// Nanoseconds.
    #[serde(rename = "ns")]
    Time,
    /// Bytes.
    #[serde(rename = "bytes")]
    Memory,
}

impl Unit {
    /// A number of it, in the unit that suits its size.
    pub fn show(self, number: f64) -> String {
        let steps: &[(f64, &str)] = match self {
            Self::Time => &[(1.0, "ns"), (1e3, "µs"), (1e6, "ms"), (1e9, "s")],
            Self::Memory => &[
                (1.0, "B"),
                (1024.0, "KiB"),
                (1_048_576.0, "MiB"),
                (1_073_741_824.0, "GiB"),
            ],
        };
        // Half a unit more would be shown as a thousand of the smaller one.
        let fits = |step: &&(f64, &str)| number.abs() >= step.0 * 0.9995;
        let &(size, name) = steps.iter().rev().find(fits).unwrap_or(&steps[0]);
        format!("{} {name}", three_digits(number / size))
    }
}

/// A number with three digits that mean something, and not less than its whole part.
pub fn three_digits(number: f64) -> String {
    let decimals = |number: f64| match number.abs() {
        0.0 => 0,
        size => (2 - size.log10().floor() as i32).max(0),
    };
    // Rounded first, which may take it to the next power of ten.
    let factor = 10f64.powi(decimals(number));
    let number = (number * factor).round() / factor;
    format!("{number:.*}", decimals(number) as usize)
}

/// A number of MiB or GiB, without decimals where there are none.
pub fn size(bytes: u64) -> String {
    match bytes {
        0 => "0".into(),
        bytes if bytes % (1 << 30) == 0 => format!("{} GiB", bytes >> 30),
        bytes if bytes % (1 << 20) == 0 => format!("{} MiB", bytes >> 20),
        bytes => format!("{} KiB", bytes >> 10),
    }
}

/// 16000 as "16,000".
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_memory() {
        let times = [
            0.0,
            7.0,
            761.97,
            999.9,
            14_204.0,
            59_035_929.0,
            1_186_754_077.0,
        ];
        let shown = times.map(|time| Unit::Time.show(time));
        assert_eq!(
            shown,
            ["0 ns", "7.00 ns", "762 ns", "1.00 µs", "14.2 µs", "59.0 ms", "1.19 s"]
        );
        let memory = [8192.0, 2_105_344.0, 540_274_688.0, 1048.0 * 1024.0];
        let shown = memory.map(|bytes| Unit::Memory.show(bytes));
        assert_eq!(shown, ["8.00 KiB", "2.01 MiB", "515 MiB", "1.02 MiB"]);
    }

    #[test]
    fn three_digits_that_mean_something() {
        let numbers = [1.3146, 0.002_214, 12.06, 9.999, 0.9999, 1234.6, 99.96];
        let shown = numbers.map(three_digits);
        assert_eq!(
            shown,
            ["1.31", "0.00221", "12.1", "10.0", "1.00", "1235", "100"]
        );
    }

    #[test]
    fn digits_in_groups() {
        assert_eq!(
            [0, 999, 1000, 1234567].map(thousands),
            ["0", "999", "1,000", "1,234,567"]
        );
    }

    #[test]
    fn sizes() {
        assert_eq!(
            [0, 4096, 64 << 20, 2 << 30].map(size),
            ["0", "4 KiB", "64 MiB", "2 GiB"]
        );
    }
}

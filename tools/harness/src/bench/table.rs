// SPDX-License-Identifier: GPL-2.0

//! The results as a table on the terminal.

use super::jobs::describe;
use super::reach::{self, Goal};
use super::results::{Cell, Outcome, Results, Row};
use luo_vm_protocol::bench::{Figure, Job};
use std::fmt::Write;

/// The table, and after it that of what is to be reached.
pub fn table(results: &Results) -> String {
    let mut text = String::new();
    line(&mut text, "", "C", "Rust", "ratio");
    for cell in &results.cells {
        let _ = writeln!(text, "\n{}", describe(&cell.measurement.job));
        if let Some(about) = about(cell) {
            let _ = writeln!(text, "  ({about})");
        }
        for row in results.rows(cell) {
            let name = format!("  {}", row.metric.label(&cell.measurement.job));
            let ratio = row
                .ratio()
                .map_or_else(String::new, |ratio| ratio.to_string());
            line(
                &mut text,
                &name,
                &shown(&row, row.c),
                &shown(&row, row.rust),
                &ratio,
            );
        }
        for (side, outcome) in [("C", &cell.c), ("Rust", &cell.rust)] {
            if let Err(why) = outcome {
                let _ = writeln!(text, "  {side} FAILED: {why}");
            }
        }
    }
    let _ = writeln!(text, "\nTo be reached: Rust over C, at most\n");
    for goal in reach::goals(results) {
        let Goal {
            what,
            at_most,
            measured,
            met,
        } = goal;
        let met = match met {
            Some(true) => "met",
            Some(false) => "NOT MET",
            None => "not measured",
        };
        let measured = measured.unwrap_or_default();
        let _ = writeln!(text, "  {what:<66} {at_most:>6}  {met:<12}  {measured}");
    }
    text
}

fn line(text: &mut String, name: &str, c: &str, rust: &str, ratio: &str) {
    let _ = writeln!(text, "{name:<36}{c:>14}{rust:>14}{ratio:>14}");
}

/// A value of a row, as people read it.
pub fn shown(row: &Row, value: Option<f64>) -> String {
    let (unit, resolution) = (row.metric.unit(), row.metric.resolution());
    match value {
        None => String::new(),
        Some(value) if value < resolution => format!("< {}", unit.show(resolution)),
        Some(value) => unit.show(value),
    }
}

/// Where the pages of a memfd lie.
pub fn about(cell: &Cell) -> Option<String> {
    let Job::Memfd(_) = cell.measurement.job else {
        return None;
    };
    let both = |figure| {
        let of = |outcome: &Outcome| Some(outcome.as_ref().ok()?.figures.get(&figure)?.total);
        match (of(&cell.c), of(&cell.rust)) {
            (Some(c), Some(rust)) if c != rust => Some(format!("{c} / {rust}")),
            (c, rust) => Some(c.or(rust)?.to_string()),
        }
    };
    let (pages, pieces) = (both(Figure::Pages)?, both(Figure::Pieces)?);
    let (keys, moved) = (both(Figure::LeastKeys)?, both(Figure::Moved)?);
    Some(format!(
        "{pages} pages, in {pieces} pieces of memory, {keys} keys at least; PRESERVE_FD moved {moved}"
    ))
}

#[cfg(test)]
mod tests {
    use super::super::jobs::Measurement;
    use super::super::results::tests::{record, results};
    use super::*;

    #[test]
    fn each_row_has_both_sides_and_their_ratio() {
        let times = |ns| record(0, 0, &[(Figure::GetName, ns)]);
        let mut results = results(vec![(Measurement::baseline(4096), times(762), times(932))]);
        let text = table(&results);
        let row = text.lines().find(|line| line.contains("GET_NAME")).unwrap();
        let fields: Vec<_> = row.split_whitespace().collect();
        assert_eq!(fields, ["GET_NAME", "762", "ns", "932", "ns", "1.22"]);
        assert!(text
            .lines()
            .any(|line| line.contains("GET_NAME, which") && line.contains("NOT MET")));

        results.cells[0].c = Err("the VM ended by itself".into());
        let text = table(&results);
        assert!(text.contains("C FAILED: the VM ended by itself"), "{text}");
        assert!(!text.contains("1.22"));
    }

    #[test]
    fn what_cannot_be_told_from_nothing_is_not_shown_as_a_number() {
        let idle = record(0, 1000, &[(Figure::Insmod, 0)]);
        let busy = record(0, 200_000_000, &[(Figure::Insmod, 0)]);
        let job = Measurement::new(Job::Sessions(250));
        let results = results(vec![
            (Measurement::baseline(4096), idle.clone(), idle.clone()),
            (job, busy, idle),
        ]);
        let text = table(&results);
        let row = text
            .lines()
            .find(|line| line.contains("boot, added"))
            .unwrap();
        assert!(row.ends_with("200 ms      < 300 µs     < 0.00150"), "{row}");
    }
}

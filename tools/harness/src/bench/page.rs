// SPDX-License-Identifier: GPL-2.0

//! The figures in the documentation: what stands between two marks of its page is replaced.

use super::grow;
use super::jobs::describe;
use super::reach;
use super::results::{Cell, Results};
use super::table::{about, shown};
use anyhow::{Context, Result};
use luo_vm_protocol::bench::Job;
use std::fmt::Write;

const BEGIN: &str = ".. The figures from here on are written by \"make bench\".";
const END: &str = ".. The figures end here.";

/// The page with the figures of these results in the place of those that it has.
pub fn refreshed(page: &str, results: &Results) -> Result<String> {
    let (before, rest) = page
        .split_once(BEGIN)
        .context("the page has no mark for the figures")?;
    let (_, after) = rest
        .split_once(END)
        .context("the page has no mark behind the figures")?;
    Ok(format!(
        "{before}{BEGIN}\n\n{}\n{END}{after}",
        figures(results)
    ))
}

fn figures(results: &Results) -> String {
    let setting = &results.setting;
    let mut text = format!(
        "Measured {} at commit {} on Linux {}, with QEMU {}.\n\n",
        setting.date, setting.commit, setting.kernel, setting.qemu
    );
    heading(&mut text, "What is reached", '-');
    text += "Ratios are those of luo.ko to the orchestrator in C.\n\n";
    let goals = reach::goals(results).into_iter().map(|goal| {
        let met = match goal.met {
            Some(true) => "yes",
            Some(false) => "no",
            None => "not measured",
        };
        let measured = goal.measured.unwrap_or_default();
        [goal.what, goal.at_most.into(), measured, met.into()]
    });
    text += &rst_table(["what", "at most", "measured", "reached"], goals.collect());
    text += &grow::text(results);
    heading(&mut text, "All figures", '-');
    for cell in &results.cells {
        heading(&mut text, &describe(&cell.measurement.job), '^');
        if let Some(about) = about(cell) {
            let _ = writeln!(text, "{about}.\n");
        }
        text += &rst_table(["what", "C", "Rust", "ratio"], cell_rows(results, cell));
    }
    text
}

fn cell_rows(results: &Results, cell: &Cell) -> Vec<[String; 4]> {
    let job: &Job = &cell.measurement.job;
    let rows = results.rows(cell).into_iter().map(|row| {
        let ratio = row
            .ratio()
            .map_or_else(String::new, |ratio| ratio.to_string());
        [
            row.metric.label(job).into(),
            shown(&row, row.c),
            shown(&row, row.rust),
            ratio,
        ]
    });
    rows.collect()
}

/// A heading.
pub fn heading(text: &mut String, title: &str, line: char) {
    let line: String = title.chars().map(|_| line).collect();
    let _ = writeln!(text, "{title}\n{line}\n");
}

/// A simple table of reStructuredText. A cell of the first column must not be empty.
pub fn rst_table<const N: usize>(head: [&str; N], rows: Vec<[String; N]>) -> String {
    let head = head.map(String::from);
    let width = |column: usize| {
        let cells = rows
            .iter()
            .chain([&head])
            .map(|row| row[column].chars().count());
        cells.max().unwrap_or(0).max(1)
    };
    let widths: [usize; N] = std::array::from_fn(width);
    let line = |row: &[String; N]| {
        let cells = row
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell:<width$}"));
        let line: Vec<_> = cells.collect();
        line.join("  ").trim_end().to_string() + "\n"
    };
    let rule = widths.map(|width| "=".repeat(width)).join("  ") + "\n";
    let body: String = rows.iter().map(line).collect();
    format!("{rule}{}{rule}{body}{rule}\n", line(&head))
}

#[cfg(test)]
mod tests {
    use super::super::jobs::Measurement;
    use super::super::results::tests::{record, results};
    use super::*;
    use luo_vm_protocol::bench::Figure;

    #[test]
    fn only_what_is_between_the_marks_changes() {
        let times = |ns| record(0, 0, &[(Figure::GetName, ns)]);
        let results = results(vec![(Measurement::baseline(4096), times(762), times(932))]);
        let page = format!("Title\n\n{BEGIN}\n\nold\n\n{END}\n\nThe end.\n");
        let new = refreshed(&page, &results).unwrap();
        assert!(new.starts_with(&format!("Title\n\n{BEGIN}\n\nMeasured test")));
        assert!(new.ends_with(&format!("\n{END}\n\nThe end.\n")));
        assert!(new.contains("GET_NAME  762 ns  932 ns  1.22\n"), "{new}");
        assert!(!new.contains("old"));
        assert_eq!(refreshed(&new, &results).unwrap(), new);
        assert!(refreshed("no marks", &results).is_err());
    }

    #[test]
    fn the_page_of_this_repository_has_the_marks() {
        let page = include_str!("../../../../Documentation/performance.rst");
        refreshed(page, &results(vec![])).unwrap();
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = vec![
            ["µs".into(), "1".into()],
            ["a longer one".into(), String::new()],
        ];
        assert_eq!(
            rst_table(["what", "C"], rows),
            "============  =\nwhat          C\n============  =\nµs            1\na longer one\n============  =\n\n"
        );
    }
}

// SPDX-License-Identifier: GPL-2.0

//! Writes what was measured: table, JSON, pictures, page, profiles.

use super::reach::{self, Goal};
use super::results::{Results, Side};
use super::{page, picture, table};
use crate::units::Unit;
use anyhow::{Context, Result};
use serde::Serialize;
use std::fmt::Write;
use std::path::Path;

const JSON: &str = "results.json";
const PAGE: &str = "performance.rst";

/// The file of results: those, and what is told of them.
#[derive(Serialize)]
struct Report<'a> {
    #[serde(flatten)]
    results: &'a Results,
    rows: Vec<Line>,
    reach: Vec<Goal>,
}

/// A line of the table, for programs.
#[derive(Serialize)]
struct Line {
    job: String,
    what: &'static str,
    unit: Unit,
    c: Option<f64>,
    rust: Option<f64>,
    ratio: Option<f64>,
    /// What cannot be told from nothing.
    resolution: f64,
}

/// Prints the table and writes everything else into the folder. `repo` is the top of this repository.
pub fn write(results: &Results, folder: &Path, repo: &Path) -> Result<()> {
    let report = Report {
        results,
        rows: lines(results),
        reach: reach::goals(results),
    };
    write_file(&folder.join(JSON), &serde_json::to_string_pretty(&report)?)?;
    profiles(results, folder)?;
    println!("\n{}", table::table(results));
    println!("{}", folder.join(JSON).display());
    let pictures = [
        ("blackout.svg", picture::blackout(results)),
        ("operations.svg", picture::operations(results)),
    ];
    for (name, picture) in pictures {
        let Some(picture) = picture else { continue };
        let path = folder.join(format!("performance-{name}"));
        svg::save(&path, &picture)?;
        println!("{}", path.display());
    }
    let old = repo.join("Documentation").join(PAGE);
    let old = std::fs::read_to_string(&old).with_context(|| old.display().to_string())?;
    let new = folder.join(PAGE);
    write_file(&new, &page::refreshed(&old, results)?)?;
    println!("{}", new.display());
    println!("{}", reach::missed(&report.reach));
    Ok(())
}

/// Reads the results of an earlier run.
pub fn read(folder: &Path) -> Result<Results> {
    let path = folder.join(JSON);
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    serde_json::from_str(&text).with_context(|| path.display().to_string())
}

fn lines(results: &Results) -> Vec<Line> {
    let mut lines = Vec::new();
    for cell in &results.cells {
        for row in results.rows(cell) {
            lines.push(Line {
                job: cell.measurement.name.clone(),
                what: row.metric.label(&cell.measurement.job),
                unit: row.metric.unit(),
                c: row.c,
                rust: row.rust,
                ratio: row.ratio().map(|ratio| ratio.number()),
                resolution: row.metric.resolution(),
            });
        }
    }
    lines
}

/// A file for each VM that was asked where its time goes.
fn profiles(results: &Results, folder: &Path) -> Result<()> {
    for cell in &results.cells {
        for (side, name) in [(Side::C, "c"), (Side::Rust, "rust")] {
            let Ok(record) = cell.outcome(side) else {
                continue;
            };
            if record.profiles.is_empty() {
                continue;
            }
            let mut text = String::new();
            for profile in &record.profiles {
                let ms = profile.samples as f64 * profile.period_ns as f64 / 1e6;
                let _ = writeln!(
                    text,
                    "{:?}: {} samples, {ms:.1} ms",
                    profile.figure, profile.samples
                );
                let _ = writeln!(text, "   self    all");
                let share = |count: u64| 100.0 * count as f64 / profile.samples.max(1) as f64;
                for (function, own, all) in &profile.functions {
                    let function = rustc_demangle::demangle(function);
                    let _ = writeln!(
                        text,
                        "{:6.1}%{:6.1}%  {function:#}",
                        share(*own),
                        share(*all)
                    );
                }
                text.push('\n');
            }
            let path = folder.join(format!("profile-{}-{name}.txt", cell.measurement.name));
            write_file(&path, &text)?;
            println!("{}", path.display());
        }
    }
    Ok(())
}

fn write_file(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| path.display().to_string())
}

// SPDX-License-Identifier: GPL-2.0

//! How results are shown: tables and JSON, and colours, which anstream removes where there is no terminal.

use crate::failure::{Failure, Result};
use anstyle::{AnsiColor, Style};
use serde::Serialize;
use std::fmt::Display;
use std::io::Write;
use tabwriter::TabWriter;

/// Of the word "error".
pub const ERROR: Style = AnsiColor::Red.on_default().bold();
/// Of what is not as it should be.
pub const WARNING: Style = AnsiColor::Yellow.on_default().bold();
/// Of what is as it should be.
pub const GOOD: Style = AnsiColor::Green.on_default();
/// Of headings.
pub const STRONG: Style = Style::new().bold();

/// A table of text, for people.
#[derive(Debug)]
pub struct Table(TabWriter<Vec<u8>>);

impl Table {
    /// A table with this heading.
    #[must_use]
    pub fn new(heading: &[&str]) -> Self {
        let mut table = Self::without_heading();
        let heading: Vec<_> = heading
            .iter()
            .map(|word| format!("{STRONG}{word}{STRONG:#}"))
            .collect();
        table.row(&heading);
        table
    }

    /// A table without one.
    #[must_use]
    pub fn without_heading() -> Self {
        Self(TabWriter::new(Vec::new()).padding(2).ansi(true))
    }

    /// Adds a line.
    pub fn row(&mut self, cells: &[impl AsRef<str>]) {
        let cells: Vec<&str> = cells.iter().map(AsRef::as_ref).collect();
        // Into memory: it cannot fail.
        let _ = writeln!(self.0, "{}", cells.join("\t"));
    }

    /// The table's lines.
    #[must_use]
    pub fn finish(self) -> String {
        let bytes = self.0.into_inner().unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
        lines.join("\n") + "\n"
    }
}

/// Text or JSON, as the operator wants it.
pub fn print(value: &(impl Serialize + Display), json: bool) -> Result<()> {
    let text = match json {
        true => serde_json::to_string_pretty(value).map_err(std::io::Error::from),
        false => Ok(value.to_string()),
    };
    let text = text.map_err(unwritten)?;
    let mut out = anstream::stdout();
    writeln!(out, "{}", text.trim_end()).map_err(unwritten)
}

fn unwritten(error: std::io::Error) -> Failure {
    Failure::io("standard output", error, "send the output elsewhere")
}

/// What was done. That nobody reads it does not undo it.
pub fn say(text: impl Display) {
    let _ = writeln!(anstream::stdout(), "{text}");
}

/// Something to know that is no error, on standard error.
pub fn note(text: impl Display) {
    complain(format_args!("{WARNING}note{WARNING:#}: {text}"));
}

/// Writes to standard error.
pub fn complain(text: impl Display) {
    let _ = writeln!(anstream::stderr(), "{text}");
}

/// A number of bytes as people read it.
#[must_use]
pub fn bytes(count: u64) -> String {
    indicatif::BinaryBytes(count).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_whatever_their_colours() {
        let mut table = Table::new(&["NAME", "STATE", "BY"]);
        table.row(&["vm-17-with-a-long-name", "ok", "-"]);
        table.row(&[&format!("{GOOD}b{GOOD:#}"), "prepared", "x"]);
        let text = table.finish();
        assert!(text.contains('\u{1b}'));
        assert_eq!(
            anstream::adapter::strip_str(&text).to_string(),
            "NAME                    STATE     BY\n\
             vm-17-with-a-long-name  ok        -\n\
             b                       prepared  x\n"
        );
    }
}

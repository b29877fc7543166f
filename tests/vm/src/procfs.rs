// SPDX-License-Identifier: GPL-2.0

//! What the kernel tells in `/proc`.

use anyhow::{Context, Result};

/// The number behind a word at the start of a line.
pub fn number_in(path: &str, word: &str) -> Result<i64> {
    let text = std::fs::read_to_string(path).with_context(|| path.to_string())?;
    let number = text.lines().find_map(|line| {
        let mut fields = line.split_whitespace();
        (fields.next()? == word).then(|| fields.next()?.parse().ok())?
    });
    number.with_context(|| format!("no {word} in {path}"))
}

/// Whether this word is on the command line that the kernel was started with.
pub fn started_with(word: &str) -> Result<bool> {
    let line = std::fs::read_to_string("/proc/cmdline")?;
    Ok(line.split_whitespace().any(|it| it == word))
}

/// Brings /proc/vmstat up to date with what each CPU has counted for itself.
pub fn refresh_vmstat() -> Result<()> {
    let path = "/proc/sys/vm/stat_refresh";
    std::fs::write(path, "1").context(path)
}

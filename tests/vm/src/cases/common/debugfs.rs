// SPDX-License-Identifier: GPL-2.0

//! What luo.ko lists in debugfs: handlers, and FLBs.

use anyhow::{bail, ensure, Context, Result};
use std::collections::BTreeMap;
use std::path::Path;

/// The lines of a file of ours in debugfs, by the compatible string that each begins with.
fn lines(file: &str) -> Result<BTreeMap<String, String>> {
    let path = Path::new("/sys/kernel/debug/luo").join(file);
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let mut lines = BTreeMap::new();
    for line in text.lines() {
        let line = line.strip_prefix('[').context("no compatible string")?;
        let (compatible, rest) = line.split_once("] ").context("no end of it")?;
        if lines.insert(compatible.into(), rest.into()).is_some() {
            bail!("{compatible} is there twice");
        }
    }
    Ok(lines)
}

/// Fails unless this is what the file "handlers" or "flbs" says of one: nothing, for `None`.
pub fn has(file: &str, compatible: &str, wanted: Option<&str>) -> Result<()> {
    let lines = lines(file)?;
    let shown = lines.get(compatible).map(String::as_str);
    ensure!(shown == wanted, "{compatible} in {file}: {lines:?}");
    Ok(())
}

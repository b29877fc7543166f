// SPDX-License-Identifier: GPL-2.0

//! Memory that was allocated and that nobody knows of any more, on a kernel with kmemleak.

use crate::{kmsg, procfs};
use anyhow::{Context, Result};
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

const KMEMLEAK: &str = "/sys/kernel/debug/kmemleak";

/// What is younger may not have found its place yet: kmemleak does not report it (`MSECS_MIN_AGE` in
/// mm/kmemleak.c), and nothing tells when it has come of age.
const AGE: Duration = Duration::from_secs(5);

/// Whether it was switched off on the command line, for which there is no way back. It has its file even then.
pub fn is_off() -> Result<bool> {
    procfs::started_with("kmemleak=off")
}

/// Writes on the console what was leaked since the boot, where the harness sees it.
pub fn report() -> Result<()> {
    if !Path::new(KMEMLEAK).exists() {
        return Ok(());
    }
    sleep(AGE);
    // What was on its way from one place to another in the first scan is found in the second.
    for _ in 0..2 {
        std::fs::write(KMEMLEAK, "scan").context("kmemleak")?;
    }
    let leaks = std::fs::read(KMEMLEAK).context("kmemleak")?;
    // It quotes what is in the objects, which is any bytes.
    for line in String::from_utf8_lossy(&leaks).lines() {
        kmsg::write(&format!("luo-vm: {line}"));
    }
    Ok(())
}

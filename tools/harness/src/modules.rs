// SPDX-License-Identifier: GPL-2.0

//! Builds the modules on top of luo.ko: the samples, and those for the tests alone.

use crate::inputs::Inputs;
use anyhow::{ensure, Context, Result};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Folders with a Kbuild.
const FOLDERS: &[&str] = &["samples", "tests/modules"];

/// Builds them below this folder; none without the kernel's build, and what luo.ko's own build left beside it.
pub fn build(inputs: &Inputs, folder: &Path) -> Result<Vec<PathBuf>> {
    let (Some(kernel), Some(luo_ko)) = (&inputs.linux_build, &inputs.luo_ko) else {
        return Ok(Vec::new());
    };
    let luo = luo_ko.parent().context("luo.ko is in no folder")?;
    let symbols = luo.join("Module.symvers");
    if !symbols.exists() {
        return Ok(Vec::new());
    }
    let mut modules = Vec::new();
    for name in FOLDERS {
        let output = folder.join(name);
        std::fs::create_dir_all(&output)?;
        let mut make = Command::new("make");
        make.arg("--silent")
            .arg("-C")
            .arg(kernel)
            .arg(format!("M={}", inputs.repo.join(name).display()))
            .arg(format!("MO={}", output.display()))
            .arg(format!("KBUILD_EXTRA_SYMBOLS={}", symbols.display()))
            .arg(format!("LUO={}", luo.display()))
            .arg("modules");
        // What make inherits from a make above it is not meant for this one.
        for variable in ["MAKEFLAGS", "MFLAGS", "MAKELEVEL", "KBUILD_OUTPUT"] {
            make.env_remove(variable);
        }
        let status = make.status().context("running make")?;
        ensure!(status.success(), "the modules of {name} do not build");
        let order = output.join("modules.order");
        let list = std::fs::read_to_string(&order).with_context(|| order.display().to_string())?;
        let objects = list.lines().map(|line| output.join(line));
        modules.extend(objects.map(|object| object.with_extension("ko")));
    }
    Ok(modules)
}

// SPDX-License-Identifier: GPL-2.0

//! Builds the modules on top of luo.ko: the samples, and those for the tests alone.

use crate::inputs::Inputs;
use anyhow::{ensure, Context, Result};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Folders with a Kbuild.
const FOLDERS: &[&str] = &["samples", "tests/modules"];

/// Builds them below this folder; none without the kernel's build, or without ours.
pub fn build(inputs: &Inputs, folder: &Path) -> Result<Vec<PathBuf>> {
    let (Some(kernel), Some(luo)) = (&inputs.linux_build, &inputs.luo_build) else {
        return Ok(Vec::new());
    };
    // The crate's metadata, without which there are no modules in Rust. To go on without would skip all tests of those.
    let metadata = luo.join("src/libluo.rmeta");
    ensure!(
        metadata.exists(),
        "there is no {}, which the build of luo.ko leaves beside it: run `make module`",
        metadata.display()
    );
    // Inside a kernel's tree, luo.ko's symbols are with those of the kernel.
    let symbols = luo.join("Module.symvers");
    let mut modules = Vec::new();
    for name in FOLDERS {
        let output = folder.join(name);
        let mut arguments = vec![format!("LUO={}", luo.display())];
        if symbols.exists() {
            arguments.push(format!("KBUILD_EXTRA_SYMBOLS={}", symbols.display()));
        }
        make(kernel, &inputs.repo.join(name), &output, &arguments)?;
        let order = output.join("modules.order");
        let list = std::fs::read_to_string(&order).with_context(|| order.display().to_string())?;
        let objects = list.lines().map(|line| output.join(line));
        modules.extend(objects.map(|object| object.with_extension("ko")));
    }
    if inputs.luo_ko.is_some() {
        // Another build of luo.ko itself, told apart by its version, to take over from the first.
        let output = folder.join("newer");
        let version = "LUO_EXTRAVERSION=+newer".to_string();
        make(kernel, &inputs.repo, &output, &[version])?;
        modules.push(output.join("luo.ko"));
    }
    Ok(modules)
}

/// Builds the modules of a folder with a Kbuild.
fn make(kernel: &Path, source: &Path, output: &Path, arguments: &[String]) -> Result<()> {
    std::fs::create_dir_all(output)?;
    let mut make = Command::new("make");
    make.arg("--silent")
        .arg("-C")
        .arg(kernel)
        .arg(format!("M={}", source.display()))
        .arg(format!("MO={}", output.display()))
        .args(arguments)
        .arg("modules");
    // What make inherits from a make above it is not meant for this one.
    for variable in ["MAKEFLAGS", "MFLAGS", "MAKELEVEL", "KBUILD_OUTPUT"] {
        make.env_remove(variable);
    }
    let status = make.status().context("running make")?;
    ensure!(status.success(), "the modules of {source:?} do not build");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_without_what_others_are_built_with_is_an_error() {
        let none = Path::new("/nonexistent");
        let inputs = |luo_build: Option<&Path>| Inputs {
            repo: none.into(),
            linux_src: None,
            linux_build: Some(none.into()),
            bzimage: none.into(),
            luo_ko: luo_build.map(|folder| folder.join("luo.ko")),
            luo_build: luo_build.map(Into::into),
        };
        let why = build(&inputs(Some(none)), none).unwrap_err().to_string();
        assert!(why.contains("no /nonexistent/src/libluo.rmeta"), "{why}");
        // The orchestrator in C has no such thing.
        assert!(build(&inputs(None), none).unwrap().is_empty());
    }
}

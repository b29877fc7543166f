// SPDX-License-Identifier: GPL-2.0

//! Compiles the kernel's own tests of live update, unmodified, by their own Makefile.

use crate::inputs::Inputs;
use anyhow::{ensure, Context, Result};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The programs.
const PROGRAMS: &[&str] = &[
    "liveupdate",
    "luo_kexec_simple",
    "luo_multi_session",
    "luo_stress_files",
    "luo_stress_sessions",
];
/// What the kernel's tree has for its tests.
const FOLDER: &str = "tools/testing/selftests";

/// Builds them below this folder; none without the kernel's sources.
pub fn build(inputs: &Inputs, folder: &Path) -> Result<Vec<PathBuf>> {
    let Some(source) = &inputs.linux_src else {
        return Ok(Vec::new());
    };
    copy_sources(source, folder).context("copying the kernel's selftests")?;
    let headers = headers(inputs, source, folder)?;
    let output = folder.join("out");
    forget_other_headers(&output, &headers)?;
    let mut make = Command::new("make");
    make.arg("--silent")
        .arg("-C")
        .arg(folder.join(FOLDER).join("liveupdate"))
        .arg(format!("OUTPUT={}", output.display()))
        .arg(format!("KHDR_INCLUDES=-isystem {}", headers.display()))
        .arg("USERLDFLAGS=-static");
    run(&mut make).context("building the kernel's selftests")?;
    Ok(PROGRAMS
        .iter()
        .map(|program| output.join(program))
        .collect())
}

/// Removes what was built with headers of another folder: make has noted these, and they go with their kernel.
fn forget_other_headers(output: &Path, headers: &Path) -> Result<()> {
    let stamp = output.join("headers");
    let path = headers.as_os_str().as_encoded_bytes();
    if std::fs::read(&stamp).is_ok_and(|noted| noted == path) {
        return Ok(());
    }
    if output.exists() {
        std::fs::remove_dir_all(output)?;
    }
    std::fs::create_dir_all(output)?;
    Ok(std::fs::write(stamp, path)?)
}

/// Their Makefile writes beside the sources, and the kernel's tree is not ours to write to.
fn copy_sources(source: &Path, folder: &Path) -> Result<()> {
    let (from, to) = (source.join(FOLDER), folder.join(FOLDER));
    std::fs::create_dir_all(&to)?;
    std::fs::create_dir_all(folder.join("scripts"))?;
    let copy = |what: &Path, to: &Path| {
        // With their times, so that make finds nothing to do the next time.
        run(Command::new("cp")
            .args(["-r", "--preserve=timestamps"])
            .arg(what)
            .arg(to))
    };
    copy(
        &source.join("scripts/subarch.include"),
        &folder.join("scripts"),
    )?;
    for name in ["liveupdate", "lib.mk"] {
        copy(&from.join(name), &to)?;
    }
    for entry in std::fs::read_dir(&from)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "h") {
            copy(&path, &to)?;
        }
    }
    Ok(())
}

/// The folder of the kernel's headers for user space; made here when the kernel's build did not make it.
fn headers(inputs: &Inputs, source: &Path, folder: &Path) -> Result<PathBuf> {
    let installed = folder.join("headers");
    let places = inputs
        .linux_build
        .iter()
        .map(|build| build.join("usr/include"));
    for place in places.chain([installed.join("include")]) {
        if place.join("linux/liveupdate.h").exists() {
            return Ok(place);
        }
    }
    let mut make = Command::new("make");
    make.arg("--silent")
        .arg("-C")
        .arg(source)
        .arg("headers_install");
    if let Some(build) = &inputs.linux_build {
        make.arg(format!("O={}", build.display()));
    }
    make.arg(format!("INSTALL_HDR_PATH={}", installed.display()));
    run(&mut make).context("installing the kernel's headers")?;
    Ok(installed.join("include"))
}

fn run(command: &mut Command) -> Result<()> {
    // What make inherits from a make above it is not meant for this one.
    for variable in ["MAKEFLAGS", "MFLAGS", "MAKELEVEL", "KBUILD_OUTPUT"] {
        command.env_remove(variable);
    }
    let status = command.status().with_context(|| format!("{command:?}"))?;
    ensure!(status.success(), "{command:?}: {status}");
    Ok(())
}

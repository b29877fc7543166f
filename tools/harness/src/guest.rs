// SPDX-License-Identifier: GPL-2.0

//! Builds the programs that run inside the VM, and asks the one with the tests what there are.

use anyhow::{ensure, Context, Result};
use luo_vm_protocol::TestInfo;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const TARGET: &str = "x86_64-unknown-linux-gnu";

/// The built programs.
#[derive(Debug)]
pub struct Guest {
    /// What is `/init` there.
    pub program: PathBuf,
    /// The sample VMM, and what is `/init` in its guest.
    pub vmm: Vmm,
}

/// The programs of samples/vmm.
#[derive(Debug)]
pub struct Vmm {
    /// The VMM.
    pub program: PathBuf,
    /// What runs in its guest.
    pub guest: PathBuf,
}

impl Guest {
    /// Builds them.
    pub fn build(repo: &Path) -> Result<Self> {
        Ok(Self {
            program: build_static(repo, "luo-vm", "--bin", "luo-vm")?,
            vmm: Vmm {
                program: build_static(repo, "luo-vmm", "--bin", "luo-vmm")?,
                guest: build_static(repo, "luo-vmm", "--bin", "luo-vmm-guest")?,
            },
        })
    }

    /// Its test cases.
    pub fn tests(&self) -> Result<Vec<TestInfo>> {
        let output = Command::new(&self.program)
            .arg("list")
            .output()
            .context("luo-vm list")?;
        ensure!(output.status.success(), "luo-vm list: {}", output.status);
        serde_json::from_slice(&output.stdout).context("luo-vm list")
    }
}

/// Builds a program of this package, which is a `--bin` or an `--example`: static, since the initramfs has no libraries.
pub fn build_static(repo: &Path, package: &str, kind: &str, program: &str) -> Result<PathBuf> {
    let output = Command::new("cargo")
        .args(["build", "--release", "--target", TARGET])
        .args(["--package", package, kind, program])
        .args(["--message-format", "json-render-diagnostics", "--quiet"])
        .current_dir(repo.join("tools"))
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
        .stderr(Stdio::inherit())
        .output()
        .context("running cargo")?;
    ensure!(
        output.status.success(),
        "{program}, a program for the VM, does not build"
    );
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter_map(|message| message.get("executable")?.as_str().map(PathBuf::from))
        .next_back()
        .context("cargo names no executable")
}

// SPDX-License-Identifier: GPL-2.0

//! What the Makefile tells in environment variables.

use anyhow::{Context, Result};
use std::env;
use std::path::{Path, PathBuf};

/// Paths of what was built before.
#[derive(Debug)]
pub struct Inputs {
    /// Top of this repository.
    pub repo: PathBuf,
    /// The kernel's source tree, where known.
    pub linux_src: Option<PathBuf>,
    /// The kernel's build folder, where known.
    pub linux_build: Option<PathBuf>,
    /// The kernel image.
    pub bzimage: PathBuf,
    /// Our module; absent when only the C orchestrator is tested, or ours is built in.
    pub luo_ko: Option<PathBuf>,
    /// What was built for modules on top of ours.
    pub luo_build: Option<PathBuf>,
}

impl Inputs {
    /// Reads them; what the kernel's build folder implies need not be set.
    pub fn from_env() -> Result<Self> {
        // Two levels above this crate's manifest.
        let repo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let repo = repo.canonicalize().context("the repository's top")?;
        let linux_build = path("LINUX_BUILD");
        let bzimage = path("BZIMAGE")
            .or_else(|| Some(linux_build.as_ref()?.join("arch/x86/boot/bzImage")))
            .context("set BZIMAGE or LINUX_BUILD; `make check` and `make demo` do")?;
        anyhow::ensure!(
            bzimage.exists(),
            "there is no kernel image {}",
            bzimage.display()
        );
        let luo_ko = path("LUO_KO");
        Ok(Self {
            repo,
            linux_src: path("LINUX_SRC"),
            linux_build,
            bzimage,
            luo_build: path("LUO_BUILD").or_else(|| Some(luo_ko.as_ref()?.parent()?.into())),
            luo_ko,
        })
    }
}

fn path(variable: &str) -> Option<PathBuf> {
    env::var_os(variable)
        .filter(|value| !value.is_empty())
        .map(PathBuf::from)
}

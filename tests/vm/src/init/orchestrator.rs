// SPDX-License-Identifier: GPL-2.0

//! Brings the wanted orchestrator into being.

use anyhow::{ensure, Context, Result};
use luo_vm_protocol::Orchestrator;
use nix::kmod::{delete_module, finit_module, DeleteModuleFlags, ModuleInitFlags};
use std::ffi::CString;
use std::fs::File;
use std::path::Path;

const DEVICE: &str = "/dev/liveupdate";
const MODULE: &str = "/luo.ko";

/// Makes `/dev/liveupdate` of the wanted orchestrator appear.
pub fn prepare(orchestrator: Orchestrator, params: &str) -> Result<()> {
    match orchestrator {
        Orchestrator::Rust => insert(params)?,
        // These came with the kernel, the one if the command line says so.
        Orchestrator::C | Orchestrator::BuiltIn => {}
        Orchestrator::Default | Orchestrator::None => return Ok(()),
    }
    ensure!(Path::new(DEVICE).exists(), "there is no {DEVICE}");
    Ok(())
}

/// insmod luo.ko
pub fn insert(params: &str) -> Result<()> {
    let file = File::open(MODULE).context(MODULE)?;
    let params = CString::new(params)?;
    finit_module(&file, &params, ModuleInitFlags::empty()).context("insmod luo.ko")
}

/// rmmod luo
pub fn remove() -> Result<()> {
    delete_module(c"luo", DeleteModuleFlags::O_NONBLOCK).context("rmmod luo")
}

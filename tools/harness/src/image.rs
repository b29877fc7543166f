// SPDX-License-Identifier: GPL-2.0

//! What lies in the VMs' initramfs images.

use crate::guest::Guest;
use crate::initramfs::Archive;
use crate::inputs::Inputs;
use anyhow::{Context, Result};
use luo_vm_protocol::{Plan, NESTED_FOLDER, NEXT_FOLDER, PLAN_PATH};
use std::path::{Path, PathBuf};

/// What only some VMs have in their initramfs.
#[derive(Debug, Default)]
pub struct Extras {
    /// The kernel's selftests.
    pub selftests: Vec<PathBuf>,
    /// Modules on top of luo.ko.
    pub modules: Vec<PathBuf>,
    /// Programs that are tested.
    pub programs: Vec<PathBuf>,
}

/// What all VMs of a run have in their initramfs.
pub fn base(guest: &Guest, inputs: &Inputs, extras: &Extras) -> Result<Vec<u8>> {
    let mut archive = Archive::new();
    archive.folder("dev")?;
    archive.device("dev/console", 5, 1)?;
    archive.copy("init", 0o755, &guest.program)?;
    archive.folder("sbin")?;
    archive.link("sbin/kexec", "/init")?;
    if let Some(module) = &inputs.luo_ko {
        archive.copy("luo.ko", 0o644, module)?;
    }
    let folders = [
        ("selftests", 0o755, &extras.selftests),
        ("modules", 0o644, &extras.modules),
        ("bin", 0o755, &extras.programs),
    ];
    for (folder, mode, files) in folders {
        archive.folder(folder)?;
        for file in files {
            let name = file.file_name().and_then(|name| name.to_str());
            let name = name.context("a file's name")?;
            archive.copy(&format!("{folder}/{name}"), mode, file)?;
        }
    }
    archive.finish()
}

/// KVM's modules, in the kernel's build folder.
const KVM_MODULES: &[&str] = &[
    "virt/lib/irqbypass.ko",
    "arch/x86/kvm/kvm.ko",
    "arch/x86/kvm/kvm-amd.ko",
    "arch/x86/kvm/kvm-intel.ko",
];

/// What a VM has beside that if virtual machines are to run in it.
pub fn nested(guest: &Guest, inputs: &Inputs) -> Result<Vec<u8>> {
    let mut archive = Archive::new();
    let folder = NESTED_FOLDER.trim_start_matches('/');
    archive.folder(folder)?;
    if let Some(build) = &inputs.linux_build {
        for path in KVM_MODULES {
            let (path, name) = (build.join(path), path.rsplit('/').next().unwrap_or(path));
            // Another kernel may have fewer of them, or have them built in.
            if path.exists() {
                archive.copy(&format!("{folder}/{name}"), 0o644, &path)?;
            }
        }
    }
    archive.copy(&format!("{folder}/vmm"), 0o755, &guest.vmm.program)?;
    let mut innermost = Archive::new();
    innermost.folder("dev")?;
    innermost.device("dev/console", 5, 1)?;
    innermost.copy("init", 0o755, &guest.vmm.guest)?;
    archive.file(&format!("{folder}/initramfs"), 0o644, &innermost.finish()?)?;
    archive.finish()
}

/// Writes an image: these archives, and this plan.
pub fn write(path: &Path, archives: &[&[u8]], plan: &Plan) -> Result<()> {
    let mut archive = Archive::new();
    add_plan(&mut archive, plan)?;
    std::fs::write(path, [archives.concat(), archive.finish()?].concat())
        .with_context(|| path.display().to_string())
}

/// Writes an image for a VM without disks, which has in it what the one kexec of the plan is to start: this kernel with
/// an image of the same content.
pub fn write_with_next(path: &Path, base: &[u8], plan: &Plan, kernel: &Path) -> Result<()> {
    let mut next = Archive::new();
    add_plan(&mut next, plan)?;
    let next = [base, &next.finish()?].concat();
    let mut archive = Archive::new();
    let folder = NEXT_FOLDER.trim_start_matches('/');
    archive.folder(folder)?;
    archive.copy(&format!("{folder}/kernel"), 0o644, kernel)?;
    archive.file(&format!("{folder}/initramfs"), 0o644, &next)?;
    std::fs::write(path, [next, archive.finish()?].concat())
        .with_context(|| path.display().to_string())
}

fn add_plan(archive: &mut Archive, plan: &Plan) -> Result<()> {
    let plan = serde_json::to_vec(plan)?;
    archive.file(PLAN_PATH.trim_start_matches('/'), 0o644, &plan)
}

// SPDX-License-Identifier: GPL-2.0

//! The packages luo-tools and luo-dkms: what is there with them, and nothing without.

use crate::stage::{kernel_has_its_own, output, run};
use anyhow::{ensure, Context, Result};
use luo_vm_protocol::Outcome;
use std::path::Path;

/// The tools, and what inserts the module at boot.
const TOOLS: &str = "luo-tools";
/// The module's source, for DKMS.
const DKMS: &str = "luo-dkms";

/// Why luo-dkms may not be there.
const NO_COMPILER: &str =
    "luo-dkms is not here: the host's compiler is not one to be lent to another system";

/// `uname -r`.
pub fn release() -> Result<String> {
    Ok(nix::sys::utsname::uname()?
        .release()
        .to_string_lossy()
        .into_owned())
}

/// The tools are there, and work.
pub fn tools_work() -> Result<()> {
    run("dpkg", &["--verify", TOOLS])?;
    let info = output("luoctl", &["info"])?;
    let kernel = release()?;
    ensure!(info.contains(&kernel), "luoctl info, in {kernel}: {info}");
    Ok(())
}

/// The module is the one that DKMS built.
pub fn module_is_built() -> Result<Outcome> {
    if !is_installed(DKMS) {
        return Ok(Outcome::Skipped(NO_COMPILER.into()));
    }
    let status = output("dkms", &["status", "-m", "luo"])?;
    ensure!(status.contains(": installed"), "dkms status: {status}");
    let file = output("modinfo", &["-F", "filename", "luo"])?;
    ensure!(file.contains("/updates/dkms/luo.ko"), "luo.ko is {file}");
    Ok(Outcome::Passed)
}

/// Nothing is left, neither of what they brought nor of what was made from it.
pub fn purge_leaves_nothing() -> Result<()> {
    let packages: Vec<_> = [TOOLS, DKMS]
        .into_iter()
        .filter(|name| is_installed(name))
        .collect();
    let brought = output("dpkg", &[&["-L"], &packages[..]].concat())?;
    let brought: Vec<_> = brought
        .lines()
        .map(Path::new)
        .filter(|path| path.is_file())
        .collect();
    ensure!(!brought.is_empty(), "they brought nothing");
    run("dpkg", &[&["--purge"], &packages[..]].concat())?;

    let left: Vec<_> = brought.into_iter().filter(|path| path.exists()).collect();
    ensure!(left.is_empty(), "still there: {left:?}");
    let release = release()?;
    if packages.contains(&DKMS) {
        ensure!(
            !Path::new("/var/lib/dkms/luo").exists(),
            "DKMS still has it"
        );
        let modules = output(
            "find",
            &[&format!("/lib/modules/{release}"), "-name", "luo.ko*"],
        )?;
        ensure!(modules.is_empty(), "still there: {modules}");
    }
    let initramfs = output("lsinitramfs", &[&format!("/boot/initrd.img-{release}")])?;
    let left = initramfs.lines().find(|path| path.contains("luo"));
    ensure!(left.is_none(), "still in the initramfs: {left:?}");
    Ok(())
}

fn is_installed(package: &str) -> bool {
    Path::new(&format!("/var/lib/dpkg/info/{package}.list")).exists()
}

/// The next boot is one without it.
pub fn nothing_at_boot() -> Result<()> {
    let device = Path::new("/dev/liveupdate");
    ensure!(
        !device.exists() || kernel_has_its_own()?,
        "there is {}",
        device.display()
    );
    let modules = std::fs::read_to_string("/proc/modules").context("/proc/modules")?;
    ensure!(!modules.contains("luo "), "luo.ko is there");
    Ok(())
}

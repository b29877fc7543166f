// SPDX-License-Identifier: GPL-2.0

//! What happens in each kernel once the service runs: a look around, then the next kernel.

use crate::test::STAGE;
use crate::{package, test};
use anyhow::{ensure, Context, Result};
use luo_vm::kmsg::Log;
use luo_vm::report;
use luo_vm_protocol::Event;
use nix::sys::reboot::{reboot, RebootMode};
use std::process::Command;

/// Looks around in this kernel, and starts the next or powers off.
pub fn main() -> Result<()> {
    report::prepare()?;
    let done = stage();
    if let Err(err) = &done {
        report::send(&Event::Note {
            text: format!("{err:#}"),
        });
    }
    done
}

fn stage() -> Result<()> {
    let stage = test::stage()?;
    report::boot(stage)?;
    match stage {
        1 => {
            test::run("initramfs_tools::inserted_before_systemd", inserted_first);
            test::run("package::tools_work", package::tools_work);
            test::run_or_skip("package::module_is_built", package::module_is_built);
            jump(2, "initrd-dracut")
        }
        2 => {
            test::run("dracut::inserted_before_systemd", inserted_first);
            jump(3, "initrd.img")
        }
        3 => {
            let name = "initramfs_tools::inserted_before_systemd_again";
            test::run(name, inserted_first);
            test::run(
                "package::purge_leaves_nothing",
                package::purge_leaves_nothing,
            );
            jump(4, "initrd.img")
        }
        _ => {
            test::run("package::nothing_at_boot", package::nothing_at_boot);
            report::send(&Event::Done);
            // Nobody wants to see how a system ends once more.
            match reboot(RebootMode::RB_POWER_OFF)? {}
        }
    }
}

/// systemd looks for its session when it starts, and only then.
fn inserted_first() -> Result<()> {
    let log = Log::from_boot()?.lines()?;
    let first = |start: &str| log.iter().position(|line| line.starts_with(start));
    let systemd = first("systemd[1]: ").context("nothing from systemd in the kernel log")?;
    if kernel_has_its_own()? {
        return Ok(());
    }
    let luo = first("luo: ").context("nothing from luo.ko in the kernel log")?;
    ensure!(
        luo < systemd,
        "systemd was first: {:?} came before {:?}",
        log[systemd],
        log[luo]
    );
    Ok(())
}

/// Whether this kernel's own orchestrator is on: then luo.ko is of no use, and there is one before everything.
pub fn kernel_has_its_own() -> Result<bool> {
    let cmdline = std::fs::read_to_string("/proc/cmdline")?;
    Ok(cmdline.contains("liveupdate=on"))
}

/// As an operator does it, into the initramfs of this name.
fn jump(stage: usize, initramfs: &str) -> Result<()> {
    let release = package::release()?;
    report::send(&Event::Jump { stage });
    let (kernel, initramfs) = (
        format!("/boot/vmlinuz-{release}"),
        format!("/boot/{initramfs}-{release}"),
    );
    let words = format!("{STAGE}{stage}");
    // Not luoctl: in the end there is none any more.
    run(
        "/usr/lib/luo-systemd/luoctl",
        &[
            "load",
            &kernel,
            "--initrd",
            &initramfs,
            "--reuse-cmdline",
            "--append",
            &words,
        ],
    )?;
    run("systemctl", &["--no-block", "kexec"])
}

/// Runs a program; fails, with what it said, if that does.
pub fn run(program: &str, args: &[&str]) -> Result<()> {
    output(program, args).map(drop)
}

/// The same, and gives what it wrote.
pub fn output(program: &str, args: &[&str]) -> Result<String> {
    let output = Command::new(program)
        .args(args)
        .output()
        .with_context(|| program.to_string())?;
    ensure!(
        output.status.success(),
        "{program} {}: {}: {}{}",
        args.join(" "),
        output.status,
        String::from_utf8_lossy(&output.stderr),
        String::from_utf8_lossy(&output.stdout),
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

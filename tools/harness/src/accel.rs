// SPDX-License-Identifier: GPL-2.0

//! Whether VMs can run on the processor itself.
//!
//! `/dev/kvm` may be there and yet no kernel boot under it, as inside some other virtual machines. So it is tried, and
//! the finding kept for as long as this host is up.

use crate::batch::cmdline;
use crate::guest::Guest;
use crate::image;
use crate::inputs::Inputs;
use crate::qemu::{Accel, Heard, Machine, Qemu};
use anyhow::Result;
use luo_vm_protocol::{Event, Orchestrator, Plan, Stage, Work};
use std::fs::OpenOptions;
use std::path::Path;
use std::time::{Duration, Instant};

/// A boot under KVM takes a second; more than this is a hang.
const PATIENCE: Duration = Duration::from_secs(15);

/// What to use.
pub fn choose(wish: Option<Accel>, inputs: &Inputs, guest: &Guest) -> Result<Accel> {
    if let Some(wish) = wish {
        return Ok(wish);
    }
    if OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/kvm")
        .is_err()
    {
        return Ok(Accel::Tcg);
    }
    let folder = inputs.repo.join("build/accel");
    std::fs::create_dir_all(&folder)?;
    let finding = folder.join("finding");
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let known = std::fs::read_to_string(&finding).unwrap_or_default();
    let boots = match known.strip_prefix(&boot) {
        Some(known) => known == "boots",
        None => {
            let boots = boots(&folder, inputs, guest)?;
            std::fs::write(&finding, boot + if boots { "boots" } else { "hangs" })?;
            boots
        }
    };
    Ok(if boots { Accel::Kvm } else { Accel::Tcg })
}

/// Boots the kernel once under KVM.
fn boots(folder: &Path, inputs: &Inputs, guest: &Guest) -> Result<bool> {
    let orchestrator = Orchestrator::None;
    let plan = Plan {
        work: Work::Probe,
        stages: vec![Stage {
            cmdline: cmdline(orchestrator, ""),
            orchestrator,
        }],
        params: String::new(),
        zram_mib: 0,
        seed: 0,
        amount: None,
        steps: None,
        time_factor: 1,
    };
    let initramfs = folder.join("initramfs.cpio");
    let base = image::base(guest, inputs, &image::Extras::default())?;
    image::write(&initramfs, &[&base], &plan)?;
    let mut qemu = Qemu::start(&Machine {
        accel: Accel::Kvm,
        memory_mib: 512,
        cpus: 2,
        kernel: &inputs.bzimage,
        initramfs: &initramfs,
        data: None,
        root: None,
        cmdline: &plan.stages[0].cmdline,
        logs: folder,
    })?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        match qemu.next(deadline.saturating_duration_since(Instant::now())) {
            Heard::Event(Event::Boot { .. }, _) => return Ok(true),
            Heard::Event(..) => {}
            Heard::Silence | Heard::End => return Ok(false),
        }
    }
}

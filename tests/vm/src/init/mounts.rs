// SPDX-License-Identifier: GPL-2.0

//! The file systems that every test may count on.

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::mount::{mount, MsFlags};

const MOUNTS: &[(&str, &str)] = &[
    ("proc", "/proc"),
    ("sysfs", "/sys"),
    ("devtmpfs", "/dev"),
    ("tmpfs", "/tmp"),
    ("tmpfs", "/run"),
    ("debugfs", "/sys/kernel/debug"),
    ("tracefs", "/sys/kernel/tracing"),
    ("cgroup2", "/sys/fs/cgroup"),
];

/// Mounts them all.
pub fn mount_all() -> Result<()> {
    for (kind, target) in MOUNTS {
        std::fs::create_dir_all(target).with_context(|| target.to_string())?;
        match mount(
            Some(*kind),
            *target,
            Some(*kind),
            MsFlags::empty(),
            None::<&str>,
        ) {
            // The kernel may have mounted /dev by itself.
            Ok(()) | Err(Errno::EBUSY) => {}
            Err(errno) => return Err(errno).with_context(|| format!("{kind} on {target}")),
        }
    }
    Ok(())
}

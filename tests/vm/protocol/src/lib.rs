// SPDX-License-Identifier: GPL-2.0

//! What the harness on the host and the program inside the test VM tell each other.
//!
//! Towards the VM goes one [`Plan`], as the file [`PLAN_PATH`] of its initramfs. From the VM come [`Event`]s, one JSON
//! object a line, on its second serial port: the first one belongs to the kernel's console alone.

pub mod bench;
pub mod demo;
mod event;
mod plan;

pub use event::{Event, Outcome};
pub use plan::{Orchestrator, Plan, Stage, TestInfo, VmConfig, Work};

/// Where the plan lies in the initramfs.
pub const PLAN_PATH: &str = "/plan.json";

/// Serial number of the virtio disk that holds the kernel image to kexec into.
pub const DISK_KERNEL: &str = "luo-kernel";

/// Serial number of the virtio disk that holds the initramfs to kexec into.
pub const DISK_INITRAMFS: &str = "luo-initramfs";

/// Folder of the initramfs with the files `kernel` and `initramfs` to kexec into, in a VM without disks.
pub const NEXT_FOLDER: &str = "/next";

/// Folder of the initramfs with what it takes to run virtual machines in the VM: KVM's modules as `*.ko`, the VMM as
/// `vmm`, and `initramfs` for its guest, whose kernel is the VM's own.
pub const NESTED_FOLDER: &str = "/nested";

/// Serial number of the virtio disk that holds the demo's data, a tar archive.
pub const DISK_DATA: &str = "luo-data";

/// Starts a line in the kernel log that says which test begins; the name follows.
pub const MARK_START: &str = "luo-vm: start ";

/// Starts a line in the kernel log that says which test ended; the name follows.
pub const MARK_END: &str = "luo-vm: end ";

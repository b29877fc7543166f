// SPDX-License-Identifier: GPL-2.0

//! What runs inside the test VM: `/init`, the frame in which test cases run, and the cases themselves.
//!
//! README.md beside the manifest says how to add a case.

pub mod bench;
pub mod cases;
pub mod cmdline;
pub mod ctx;
pub mod demo;
pub mod frames;
pub mod guest;
pub mod hex;
pub mod init;
pub mod kexec;
pub mod kmsg;
pub mod listen;
pub mod pressure;
pub mod process;
pub mod procfs;
pub mod report;
pub mod test;
pub mod tsc;

// SPDX-License-Identifier: GPL-2.0

//! `luoctl`, the operator's tool for live updates.
//!
//! [`cli`] says what can be typed, each module of [`commands`] does one command. Sessions are held over the time between
//! two commands by a [`custodian`]; whoever holds a session, [`held`] finds it through /proc.

pub mod cli;
pub mod commands;
pub mod copy;
pub mod custodian;
pub mod device;
pub mod failure;
pub mod held;
pub mod interrupt;
pub mod kernel_log;
pub mod kexec;
pub mod machine;
pub mod output;
pub mod proc;
pub mod progress;
pub mod source;
pub mod token;

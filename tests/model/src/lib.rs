// SPDX-License-Identifier: GPL-2.0

//! What `/dev/liveupdate` is to answer to any sequence of commands.
//!
//! [`World`] is a model of what there is: processes with their descriptors, sessions of both kinds, files. It takes a
//! [`Step`] and says what the [`Answer`] must be. It is written after the contract, `include/uapi/linux/liveupdate.h`, and
//! has no line in common with the module. [`Generator`] makes steps at random, and [`Shrinker`] makes a sequence that shows
//! a fault as short as it gets.
//!
//! All of it is plain data without a kernel: `tests/vm` does the steps for real and compares.

mod answer;
mod command;
mod generate;
mod list;
mod session;
mod shrink;
mod world;

#[cfg(test)]
mod tests;

pub use answer::{Answer, Errno, FileEntry, SessionEntry, SessionState, Told};
pub use command::{
    Callback, Command, DeviceRequest, FileKind, Name, Request, Shape, Slot, Step, Worker,
};
pub use generate::Generator;
pub use shrink::Shrinker;
pub use world::{Arrived, Layout, World};

// SPDX-License-Identifier: GPL-2.0

//! The module's `handover` room and its other pure parts, compiled on the host, and what it takes to attack them.
//!
//! What a kernel leaves for the next one is input there: it may have been written by another version, or be damaged,
//! or hostile. The sources under test are those of the module itself, not a copy.
//!
//! - [`memory`] is a physical memory, of which KHO preserves some pages;
//! - [`write`](mod@write) fills it as the previous kernel does;
//! - [`reader`] reads all of it as the module does, and checks every invariant that `handover` promises.
//!
//! - [`locate`] finds the fields in what was written;
//! - [`damage`] is a good handover in which bytes of any kind break something: what is fuzzed.
//!
//! The tests are in `src/tests`, a file per structure. `stress_rounds` there can be asked for more, and for another seed:
//!
//! ```sh
//! LUO_STRESS_ITERATIONS=1500000 LUO_STRESS_SEED=7 cargo test --release -p luo-handover -- --nocapture stress_rounds
//! ```

// The module uses what is not used here, and the reverse.
#[allow(dead_code)]
// Formatted with the module, by the kernel's rules.
#[rustfmt::skip]
#[path = "../../../src/handover/mod.rs"]
mod handover;

#[allow(dead_code)]
#[rustfmt::skip]
#[path = "../../../src/memfd/radix.rs"]
mod radix;

#[allow(dead_code)]
#[rustfmt::skip]
#[path = "../../../src/memfd/runs.rs"]
mod runs;

pub mod damage;
pub mod example;
pub mod locate;
pub mod memory;
pub mod reader;
pub mod write;

#[cfg(test)]
mod tests;

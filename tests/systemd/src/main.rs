// SPDX-License-Identifier: GPL-2.0

//! The program inside the test system with systemd.
//!
//! One static binary with several faces: `keep` is a service with memory that systemd keeps over live updates; `stage`
//! is what looks around in each kernel, and starts the next; `list` prints, on the host, which tests there are.
//! README.md beside the manifest says how it all hangs together.

mod keep;
mod package;
mod stage;
mod test;
mod truth;

use std::process::ExitCode;

fn main() -> ExitCode {
    let done = match std::env::args().nth(1).as_deref() {
        Some("keep") => keep::main(),
        Some("stage") => stage::main(),
        Some("list") => test::list(),
        _ => {
            eprintln!("usage: luo-systemd keep | stage | list");
            return ExitCode::FAILURE;
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            eprintln!("luo-systemd: {err:#}");
            ExitCode::FAILURE
        }
    }
}

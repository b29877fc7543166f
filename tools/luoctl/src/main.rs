// SPDX-License-Identifier: GPL-2.0

//! `luoctl`: see the library beside it.

use clap::Parser;
use luoctl::cli::Cli;
use std::process::ExitCode;

fn main() -> ExitCode {
    match luoctl::commands::run(Cli::parse()) {
        Ok(code) => code,
        Err(failure) => {
            luoctl::output::complain(&failure);
            failure.exit_code()
        }
    }
}

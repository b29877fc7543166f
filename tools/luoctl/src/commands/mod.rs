// SPDX-License-Identifier: GPL-2.0

//! The commands, each in a file.

mod check;
mod info;
mod list;
mod load;
mod preserve;
mod retrieve;
mod unpreserve;
mod update;

use crate::cli::{Cli, Command};
use crate::failure::Result;
use std::process::ExitCode;

/// Does what was typed.
pub fn run(cli: Cli) -> Result<ExitCode> {
    let done = |result: Result<()>| result.map(|()| ExitCode::SUCCESS);
    match cli.command {
        Command::Info(format) => done(info::run(&format)),
        Command::List(args) => done(list::run(&args)),
        Command::Check(format) => check::run(&format),
        Command::Load(args) => done(load::run(&args)),
        Command::Unload => done(load::unload()),
        Command::Preserve(args) => done(preserve::run(&args)),
        Command::Unpreserve(args) => done(unpreserve::run(&args)),
        Command::Retrieve(args) => done(retrieve::run(&args)),
        Command::Update(args) => done(update::run(&args)),
        Command::Custodian { .. } => done(crate::custodian::run()),
    }
}

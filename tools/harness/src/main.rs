// SPDX-License-Identifier: GPL-2.0

//! Boots the patched kernel in QEMU, with the orchestrator in it: runs the tests, shows the demo.

mod batch;
mod check;
mod console;
mod guest;
mod initramfs;
mod inputs;
mod qemu;
mod selftests;
mod session;
mod tally;

use anyhow::Result;
use clap::{Args, Parser, Subcommand, ValueEnum};
use inputs::Inputs;
use luo_vm_protocol::Orchestrator;
use qemu::Accel;
use std::process::ExitCode;

/// Boots the patched kernel in QEMU, with the live update orchestrator in it.
///
/// Reads from the environment, as the Makefile exports them: LINUX_SRC (kernel source), LINUX_BUILD (kernel build
/// folder), BZIMAGE (default: that of LINUX_BUILD), LUO_KO (our module).
#[derive(Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the tests; ends with the line `N passed, N failed, N skipped`.
    Check(CheckArgs),
}

#[derive(Args)]
struct CheckArgs {
    /// Only tests whose name contains this
    filter: Option<String>,
    /// VMs at a time
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// The orchestrator to test: luo.ko, or for comparison the kernel's own in C
    #[arg(long, value_enum, default_value_t = Which::Rust)]
    orchestrator: Which,
}

#[derive(Clone, Copy, ValueEnum)]
enum Which {
    C,
    Rust,
}

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(err) => {
            eprintln!("harness: {err:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<ExitCode> {
    let cli = Cli::parse();
    let inputs = Inputs::from_env()?;
    match cli.command {
        Command::Check(args) => {
            let options = check::Options {
                filter: args.filter,
                jobs: args.jobs,
                orchestrator: match args.orchestrator {
                    Which::C => Orchestrator::C,
                    Which::Rust => Orchestrator::Rust,
                },
                accel: Accel::Tcg,
            };
            let counts = check::check(&inputs, &options)?;
            println!(
                "{} passed, {} failed, {} skipped",
                counts.passed, counts.failed, counts.skipped
            );
            Ok(if counts.failed == 0 {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            })
        }
    }
}

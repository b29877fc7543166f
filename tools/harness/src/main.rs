// SPDX-License-Identifier: GPL-2.0

//! Boots the patched kernel in QEMU, with the orchestrator in it: runs the tests, shows the demo.

mod accel;
mod batch;
mod bench;
mod check;
mod clock;
mod console;
mod demo;
mod guest;
mod image;
mod initramfs;
mod inputs;
mod lock;
mod modules;
mod paint;
mod qemu;
mod selftests;
mod session;
mod systemd;
mod tally;
mod units;

use anyhow::Result;
use clap::{Args, Parser, Subcommand, ValueEnum};
use guest::Guest;
use inputs::Inputs;
use luo_vm_protocol::Orchestrator;
use qemu::Accel;
use std::path::PathBuf;
use std::process::ExitCode;

/// Boots the patched kernel in QEMU, with the live update orchestrator in it.
///
/// Reads from the environment, as the Makefile exports them: LINUX_SRC (kernel source), LINUX_BUILD (kernel build
/// folder), BZIMAGE (default: that of LINUX_BUILD), LUO_KO (our module).
#[derive(Parser)]
#[command(version, about)]
struct Cli {
    /// What executes the VMs [default: kvm where this kernel is seen to boot under it, else tcg]
    #[arg(long, value_enum, global = true)]
    accel: Option<Accel>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the tests; ends with the line `N passed, N failed, N skipped`.
    Check(CheckArgs),
    /// Change the kernel under a service and its data; draws build/demo/timeline.svg
    Demo(DemoArgs),
    /// Measure both orchestrators; writes into build/bench (JSON, pictures, a page of the documentation)
    Bench(BenchArgs),
    /// Boot a Debian system, and replace the kernel under its systemd; ends as `check` does.
    Systemd(SystemdArgs),
}

#[derive(Args)]
struct CheckArgs {
    /// Only tests whose name contains one of these
    filters: Vec<String>,
    /// VMs at a time
    #[arg(long, env = "LUO_JOBS", default_value_t = 2)]
    jobs: usize,
    /// The orchestrator to test: luo.ko, or for comparison the kernel's own in C
    #[arg(long, value_enum, default_value_t = Which::Rust)]
    orchestrator: Which,
    /// Only tests that go through kexec
    #[arg(long)]
    kexec: bool,
    /// Also the tests that want the recorder of tests/modules in the kernel itself
    #[arg(long)]
    recorder: bool,
    /// Also the tests that let each step fail: on a kernel with tools/kernel/faults.config, with a luo.ko made with FAULTS=1
    #[arg(long, env = "FAULTS", value_parser = clap::builder::BoolishValueParser::new())]
    faults: bool,
    /// Also the tests of what a debug kernel reports: on a kernel with tools/kernel/debug.config or kcsan.config
    #[arg(long, env = "LUO_DEBUG_KERNEL", value_parser = clap::builder::BoolishValueParser::new())]
    debug_kernel: bool,
    /// No tests whose name contains one of these
    #[arg(long, env = "LUO_SKIP", value_delimiter = ',')]
    skip: Vec<String>,
    /// More words for the command line of every kernel
    #[arg(long, env = "LUO_CMDLINE", default_value = "")]
    cmdline: String,
    /// MiB of memory that each VM has more than its tests ask for
    #[arg(long, env = "LUO_MORE_MEMORY", default_value_t = 0)]
    more_memory: u32,
    /// How many times as long as it says each test may take, where kernel or machine are slow
    #[arg(long, env = "LUO_TIME_FACTOR", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    time_factor: u32,
    /// Folder for logs and what is built for the tests [default: build/check]
    #[arg(long, env = "LUO_OUTPUT")]
    output: Option<PathBuf>,
    /// Where what is random in the tests begins, as a failed test tells it [default: another one each time]
    #[arg(long, env = "LUO_SEED")]
    seed: Option<u64>,
    /// How much the tests do that can do more or less of it: commands, kexecs [default: what takes some seconds]
    #[arg(long, env = "LUO_AMOUNT")]
    amount: Option<u64>,
    /// What a test is to do, and nothing else: as it told it when it had failed
    #[arg(long, env = "LUO_STEPS")]
    steps: Option<String>,
}

#[derive(Args)]
struct DemoArgs {
    /// File or folder for the service to keep [default: LINUX_SRC/Documentation]
    #[arg(long, env = "DATA")]
    data: Option<PathBuf>,
    /// The orchestrator to use
    #[arg(long, value_enum, default_value_t = Which::Rust)]
    orchestrator: Which,
}

#[derive(Args)]
struct BenchArgs {
    /// Only what has this in its name
    #[arg(long, env = "FILTER", default_value = "")]
    filter: String,
    /// Only what the table of what is to be reached asks for
    #[arg(long)]
    quick: bool,
    /// Find out where the time goes, too; that takes time itself, so the figures are not comparable
    #[arg(long)]
    profile: bool,
    /// Measure nothing: draw and print again what the last run measured
    #[arg(long)]
    again: bool,
    /// VMs at a time
    #[arg(long, default_value_t = 2)]
    jobs: usize,
}

#[derive(Args)]
struct SystemdArgs {
    /// The system as it comes: a tar archive
    #[arg(long)]
    root: PathBuf,
    /// Folder with our packages for it
    #[arg(long)]
    packages: PathBuf,
    /// The orchestrator to test
    #[arg(long, value_enum, default_value_t = Which::Rust)]
    orchestrator: Which,
}

#[derive(Clone, Copy, ValueEnum)]
enum Which {
    C,
    Rust,
    /// Ours in the kernel itself
    BuiltIn,
}

impl From<Which> for Orchestrator {
    fn from(which: Which) -> Self {
        match which {
            Which::C => Self::C,
            Which::Rust => Self::Rust,
            Which::BuiltIn => Self::BuiltIn,
        }
    }
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
    let guest = Guest::build(&inputs.repo)?;
    let accel = || accel::choose(cli.accel, &inputs, &guest);
    let good = match cli.command {
        Command::Check(args) => {
            let options = check::Options {
                filters: args.filters,
                skip: args.skip,
                cmdline: args.cmdline,
                more_memory_mib: args.more_memory,
                time_factor: args.time_factor,
                kexec: args.kexec,
                recorder: args.recorder,
                faults: args.faults,
                debug_kernel: args.debug_kernel,
                jobs: args.jobs,
                orchestrator: args.orchestrator.into(),
                output: args
                    .output
                    .unwrap_or_else(|| inputs.repo.join("build/check")),
                seed: args.seed.unwrap_or_else(|| fastrand::u64(..)),
                amount: args.amount,
                steps: args.steps,
                accel: accel()?,
            };
            let counts = check::check(&inputs, &guest, &options)?;
            println!("{counts}");
            counts.failed == 0
        }
        Command::Demo(args) => {
            let options = demo::Options {
                data: args.data,
                orchestrator: args.orchestrator.into(),
                accel: accel()?,
            };
            demo::demo(&inputs, &guest, &options)?
        }
        Command::Bench(args) => {
            let options = bench::Options {
                filter: args.filter,
                quick: args.quick,
                profile: args.profile,
                jobs: args.jobs,
                again: args.again,
            };
            bench::bench(&inputs, &guest, &options)?
        }
        Command::Systemd(args) => {
            let options = systemd::Options {
                root: args.root,
                packages: args.packages,
                orchestrator: args.orchestrator.into(),
                accel: accel()?,
            };
            let counts = systemd::systemd(&inputs, &options)?;
            println!("{counts}");
            counts.failed == 0
        }
    };
    Ok(if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

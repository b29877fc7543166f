// SPDX-License-Identifier: GPL-2.0

//! The program inside the test VM.
//!
//! One static binary with several faces: as process 1 it is `/init` of the initramfs, which prepares the machine, runs
//! what the plan says and powers off; on the host `luo-vm list` prints the test cases as JSON for the harness; and as
//! `kexec` it stands in for the tool of that name.

use luo_vm::{cases, init, kexec, listen, pressure};
use std::process::ExitCode;

fn main() -> ExitCode {
    if std::process::id() == 1 {
        init::main();
    }
    let mut args = std::env::args();
    let program = args.next().unwrap_or_default();
    if program.ends_with("kexec") {
        return kexec::applet(args);
    }
    match args.next().as_deref() {
        Some("list") => {
            println!(
                "{}",
                serde_json::to_string(&cases::list()).expect("a list is JSON")
            );
            ExitCode::SUCCESS
        }
        Some("listen") => exit("listen", listen::run()),
        Some("stay") => exit("stay", stay()),
        Some("pressure") => exit("pressure", pressure::run()),
        _ => {
            eprintln!("usage: luo-vm list   print the test cases as JSON\nAs process 1 it is the VM's /init.");
            ExitCode::FAILURE
        }
    }
}

/// A program that says that it is there, and stays until its input ends.
fn stay() -> anyhow::Result<()> {
    println!("here");
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink())?;
    Ok(())
}

/// How a program ends: with what went wrong, if anything did.
fn exit(program: &str, result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            eprintln!("{program}: {err:#}");
            ExitCode::FAILURE
        }
    }
}

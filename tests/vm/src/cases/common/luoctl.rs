// SPDX-License-Identifier: GPL-2.0

//! `luoctl`, as an operator runs it.

use crate::ctx::Ctx;
use anyhow::{ensure, Context, Result};
use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;
use serde_json::Value;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::process::{Child, Command, Output, Stdio};

/// Where the harness puts it.
pub const PROGRAM: &str = "/bin/luoctl";

/// Ends a case as skipped if the VM does not have it.
pub fn need(ctx: &Ctx) -> Result<()> {
    match std::path::Path::new(PROGRAM).exists() {
        true => Ok(()),
        false => ctx.skip("luoctl is not in this VM"),
    }
}

/// A command, not yet run.
pub fn command(args: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command.args(args).stdin(Stdio::null());
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end().to_string()
}

/// What a command printed; an error if it failed.
pub fn says(args: &[&str]) -> Result<String> {
    let output = command(args).output().context(PROGRAM)?;
    ensure!(
        output.status.success(),
        "luoctl {args:?}: {}: {}",
        output.status,
        text(&output.stderr)
    );
    Ok(text(&output.stdout))
}

/// What a command with `--json` printed.
pub fn json(args: &[&str]) -> Result<Value> {
    let printed = says(&[args, &["--json"]].concat())?;
    serde_json::from_str(&printed).with_context(|| format!("luoctl {args:?}: {printed}"))
}

/// Fails unless the command fails with this exit code, and says all of this.
pub fn fails(args: &[&str], code: i32, wanted: &[&str]) -> Result<()> {
    let output = command(args).output().context(PROGRAM)?;
    failed(&output, code, wanted).with_context(|| format!("luoctl {args:?}"))
}

/// Fails unless this is the end of a command that failed with this exit code, and said all of this.
pub fn failed(output: &Output, code: i32, wanted: &[&str]) -> Result<()> {
    let said = text(&output.stderr);
    ensure!(
        output.status.code() == Some(code),
        "{} instead of {code}: {}{said}",
        output.status,
        text(&output.stdout)
    );
    for wanted in wanted {
        ensure!(said.contains(wanted), "no {wanted:?} in: {said}");
    }
    ensure!(
        !said.contains('\u{1b}'),
        "colours where there is no terminal: {said:?}"
    );
    ensure!(
        code == 2 || said.contains("next step: "),
        "no next step: {said}"
    );
    Ok(())
}

/// Starts a command, to be looked at later.
pub fn start(args: &[&str]) -> Result<Child> {
    let mut command = command(args);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    Ok(command.spawn()?)
}

/// Ctrl-C.
pub fn interrupt(child: &Child) -> Result<()> {
    Ok(kill(Pid::from_raw(child.id().try_into()?), Signal::SIGINT)?)
}

/// `TOKEN=FILE` of a file that this process has open.
pub fn file(token: u64, file: &File) -> String {
    format!(
        "{token}=/proc/{}/fd/{}",
        std::process::id(),
        file.as_raw_fd()
    )
}

/// The session of this name in `list --json`; `None` if it is not there.
pub fn session(name: &str) -> Result<Option<Value>> {
    let list = json(&["list"])?;
    let sessions = list["sessions"].as_array().context("a list")?;
    Ok(sessions
        .iter()
        .find(|session| session["name"] == name)
        .cloned())
}

/// The process that holds a session for luoctl.
pub fn custodian(name: &str) -> Result<i32> {
    let session = session(name)?.with_context(|| format!("no session {name}"))?;
    let holders = session["held_by"].as_array().context("its holders")?;
    let custodian = holders.iter().find(|holder| holder["custodian"] == true);
    let pid = custodian.with_context(|| format!("no custodian: {session}"))?["pid"].as_i64();
    Ok(i32::try_from(pid.context("its PID")?)?)
}

// SPDX-License-Identifier: GPL-2.0

//! The kernel's own tests, `tools/testing/selftests/liveupdate`, compiled unmodified by the harness.

use crate::ctx::Ctx;
use crate::test::{Config, Test};
use anyhow::{ensure, Context, Result};
use luo_vm_protocol::Outcome;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Instant;

const FOLDER: &str = "/selftests";
/// What a selftest exits with when it cannot be tried.
const SKIPPED: i32 = 4;

/// The cases.
pub const TESTS: &[Test] = &[
    Test::new("liveupdate", Config::new().timeout_s(120), &[liveupdate]),
    Test::new(
        "luo_kexec_simple",
        Config::new(),
        &[
            |ctx| stage(ctx, "luo_kexec_simple"),
            |ctx| stage(ctx, "luo_kexec_simple"),
        ],
    ),
    Test::new(
        "luo_multi_session",
        Config::new(),
        &[
            |ctx| stage(ctx, "luo_multi_session"),
            |ctx| stage(ctx, "luo_multi_session"),
        ],
    ),
    Test::new(
        "luo_stress_files",
        Config::new(),
        &[
            |ctx| stage(ctx, "luo_stress_files"),
            |ctx| stage(ctx, "luo_stress_files"),
        ],
    ),
    Test::new(
        "luo_stress_sessions",
        Config::new(),
        &[
            |ctx| stage(ctx, "luo_stress_sessions"),
            |ctx| stage(ctx, "luo_stress_sessions"),
        ],
    ),
];

/// One stage of a program of two. After the first it leaves a process that holds the sessions, and wants a kexec.
fn stage(ctx: &mut Ctx, program: &str) -> Result<()> {
    let stage = ctx.stage().to_string();
    let Some(output) = run(program, &["-s", &stage])? else {
        return ctx.skip("the kernel's selftests are not in this VM");
    };
    let text = String::from_utf8_lossy(&output.stdout);
    if output.status.code() == Some(SKIPPED) {
        return ctx.skip(text.lines().last().unwrap_or("it says no reason"));
    }
    ensure!(
        output.status.success(),
        "stage {stage}: {}: {}",
        output.status,
        text.trim()
    );
    Ok(())
}

/// The program of many cases, each counted by its name.
fn liveupdate(ctx: &mut Ctx) -> Result<()> {
    let begin = Instant::now();
    let Some(output) = run("liveupdate", &[])? else {
        return ctx.skip("the kernel's selftests are not in this VM");
    };
    let text = String::from_utf8_lossy(&output.stdout);
    let cases: Vec<_> = text.lines().filter_map(parse_case).collect();
    let each = begin.elapsed() / cases.len().max(1) as u32;
    for (name, outcome) in &cases {
        ctx.report_case(
            &format!("selftests::liveupdate.{name}"),
            outcome.clone(),
            each,
        );
    }
    let planned = text.lines().find_map(|line| line.strip_prefix("1.."));
    let planned: usize = planned
        .context("it announces no number of cases")?
        .trim()
        .parse()?;
    ensure!(
        cases.len() == planned,
        "{} of {planned} cases have a result: {text}",
        cases.len()
    );
    ensure!(output.status.success(), "{}", output.status);
    Ok(())
}

/// Runs a program to its end; `None` when the VM does not have it.
fn run(program: &str, args: &[&str]) -> Result<Option<Output>> {
    let path = Path::new(FOLDER).join(program);
    if !path.exists() {
        return Ok(None);
    }
    let output = Command::new(&path)
        .args(args)
        .output()
        .context("running it")?;
    // For the console's log.
    println!("{}", String::from_utf8_lossy(&output.stdout));
    eprintln!("{}", String::from_utf8_lossy(&output.stderr));
    Ok(Some(output))
}

/// A line of the Test Anything Protocol: "ok 3 fixture.case", "not ok 4 fixture.case", "ok 5 fixture.case # SKIP why".
fn parse_case(line: &str) -> Option<(String, Outcome)> {
    let (passed, rest) = match line.strip_prefix("not ok ") {
        Some(rest) => (false, rest),
        None => (true, line.strip_prefix("ok ")?),
    };
    let (_, rest) = rest.split_once(' ')?;
    let (name, directive) = rest.split_once('#').unwrap_or((rest, ""));
    let outcome = match (directive.trim().strip_prefix("SKIP"), passed) {
        (Some(why), _) => Outcome::Skipped(why.trim().into()),
        (None, true) => Outcome::Passed,
        (None, false) => Outcome::Failed("see the console's log".into()),
    };
    let name = name.trim();
    Some((
        name.rsplit_once('.').map_or(name, |(_, case)| case).into(),
        outcome,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_tap() {
        let name = |line| parse_case(line).map(|(name, _)| name);
        assert_eq!(
            name("ok 1 liveupdate_device.open_close").as_deref(),
            Some("open_close")
        );
        assert_eq!(name("# PASSED: 15 / 15 tests passed."), None);
        assert_eq!(name("1..15"), None);
        let outcome = |line| parse_case(line).map(|(_, outcome)| outcome);
        assert_eq!(outcome("ok 2 a.b"), Some(Outcome::Passed));
        assert!(matches!(outcome("not ok 2 a.b"), Some(Outcome::Failed(_))));
        assert_eq!(
            outcome("ok 2 a.b # SKIP no device"),
            Some(Outcome::Skipped("no device".into()))
        );
    }
}

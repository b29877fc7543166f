// SPDX-License-Identifier: GPL-2.0

//! Runs tests, each in a child process of its own.

use crate::cmdline::Words;
use crate::ctx::Ctx;
use crate::process::{Child, Said};
use crate::test::{Ended, Test};
use crate::{cases, kexec, kmsg, report};
use anyhow::{Context, Result};
use luo_vm_protocol::{Event, Outcome, Plan, MARK_END, MARK_START};
use nix::sys::signal::{kill, Signal};
use nix::sys::wait::{waitpid, WaitStatus};
use nix::unistd::Pid;
use std::io::Write;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::time::{Duration, Instant};

/// Runs the tests of the plan, as far as this kernel has a part in them.
pub fn run_all(names: &[String], words: &Words, plan: &Plan) -> Result<()> {
    for name in names {
        let begin = Instant::now();
        let Some(test) = cases::find(name) else {
            finish(name, Outcome::Failed("there is no such test".into()), begin);
            continue;
        };
        report::send(&Event::Start {
            test: name.clone(),
            timeout_s: timeout_s(test, plan),
        });
        kmsg::write(&format!("{MARK_START}{name}"));
        let outcome = run_stage(name, test, words, plan)?;
        clean_up();
        finish(name, outcome, begin);
    }
    Ok(())
}

/// Seconds that each stage may take.
fn timeout_s(test: &Test, plan: &Plan) -> u32 {
    test.config.timeout().saturating_mul(plan.time_factor)
}

/// Reports a test's end, on the console first: the harness looks for it there before it believes the result.
pub fn finish(name: &str, outcome: Outcome, begin: Instant) {
    kmsg::write(&format!("{MARK_END}{name}"));
    let ms = begin.elapsed().as_millis() as u64;
    report::send(&Event::Result {
        test: name.into(),
        outcome,
        ms,
    });
}

/// Runs one stage in a child. Does not return when the child goes on to the next kernel.
fn run_stage(name: &str, test: &Test, words: &Words, plan: &Plan) -> Result<Outcome> {
    let timeout = Duration::from_secs(timeout_s(test, plan).into());
    let mut child = Child::spawn(|pipe| {
        let outcome = stage_outcome(name, test, words, plan);
        let outcome = serde_json::to_string(&outcome).expect("an outcome is JSON");
        let _ = writeln!(pipe, "{outcome}");
    })?;
    match child.listen(timeout)? {
        Said::Line(outcome) => {
            child.wait()?;
            Ok(serde_json::from_str(&outcome)?)
        }
        Said::Ended => {
            let end = child.wait()?;
            Ok(Outcome::Failed(format!(
                "the test's process ended without a word: {end:?}"
            )))
        }
        Said::Late => {
            child.kill()?;
            Ok(Outcome::Failed(format!(
                "not done within {} s",
                timeout.as_secs()
            )))
        }
    }
}

/// The body of the child.
fn stage_outcome(name: &str, test: &Test, words: &Words, plan: &Plan) -> Outcome {
    let run = || -> Result<()> {
        let mut ctx = Ctx::new(name, timeout_s(test, plan), words.clone(), plan.clone())?;
        let stage = test.stage(words.stage).context("no such stage")?;
        stage(&mut ctx)?;
        if words.stage < test.stages.len() || ctx.goes_on() {
            match ctx.kexec()? {}
        }
        Ok(())
    };
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(())) => Outcome::Passed,
        Ok(Err(err)) => match err.downcast_ref::<Ended>() {
            Some(ended) => ended.0.clone(),
            None => Outcome::Failed(format!("{err:#}")),
        },
        Err(panic) => Outcome::Failed(match panic.downcast_ref::<String>() {
            Some(text) => text.clone(),
            None => (*panic.downcast_ref::<&str>().unwrap_or(&"panic")).to_string(),
        }),
    }
}

/// Kills all that the test left behind and waits for its end, so that the next one finds the device free. Unloads the
/// kernel that it may have loaded: a later test's reboot() that should find none would start it.
fn clean_up() {
    // From process 1, -1 means everyone else.
    let _ = kill(Pid::from_raw(-1), Signal::SIGKILL);
    while let Ok(status) = waitpid(Pid::from_raw(-1), None) {
        if matches!(status, WaitStatus::StillAlive) {
            break;
        }
    }
    if let Err(err) = kexec::unload() {
        kmsg::write(&format!("luo-vm: {err:#}"));
    }
}

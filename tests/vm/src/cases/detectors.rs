// SPDX-License-Identifier: GPL-2.0

//! That a debug kernel reports what it is there for: without this, one that looks for nothing would pass everything.

use super::common::modules::{self, file_of};
use crate::ctx::Ctx;
use crate::kmsg::Log;
use crate::test::{Config, Test};
use anyhow::{ensure, Context, Result};
use std::time::Duration;

/// The cases.
pub const TESTS: &[Test] = &[Test::new("each", CONFIG, &[each])];

const CONFIG: Config = Config::new().on_debug_kernel().allow_log(&[
    "possible circular locking dependency detected",
    "BUG: sleeping function called from invalid context at",
    "at __list_add_valid_or_report",
    "pagealloc: single bit error",
    "luo-vm: unreferenced object 0x",
    "BUG: KASAN: slab-use-after-free in culprit_use_after_free",
    "Disabling lock debugging due to kernel taint",
    "BUG: KCSAN: data-race in culprit_racer",
]);

/// What a kernel has that looks for data races.
const KCSAN: &str = "__tsan_read1";

/// What is to be reported: the crime's name (see tests/modules/culprit), and a piece of the report.
///
/// Once memory was used after its end, the kernel looks at locks no more; so this comes last.
const CRIMES: &[(&str, &str)] = &[
    (
        "lock-order",
        "possible circular locking dependency detected",
    ),
    ("sleep", "sleeping function called from invalid context"),
    ("list", "list_add double add"),
    ("page", "pagealloc: single bit error"),
    ("leak", "culprit_leak"),
    (
        "use-after-free",
        "KASAN: slab-use-after-free in culprit_use_after_free",
    ),
];

const RACE: (&str, &str) = ("race", "KCSAN: data-race in culprit_racer");

/// Long enough for chance to find a race.
const LONG: Duration = Duration::from_secs(120);

fn each(ctx: &mut Ctx) -> Result<()> {
    ensure!(
        file_of("luo_culprit").exists(),
        "there is no luo_culprit.ko"
    );
    modules::insert("luo_culprit")?;
    let crimes = match has_symbol(KCSAN)? {
        true => std::slice::from_ref(&RACE),
        false => CRIMES,
    };
    for (crime, report) in crimes {
        let mut log = Log::from_now()?;
        std::fs::write("/sys/module/luo_culprit/parameters/commit", crime).context(*crime)?;
        if *crime == "leak" {
            ctx.look_for_leaks()?;
        }
        ctx.wait_for(report, LONG, || log.expect(report).is_ok())?;
    }
    modules::remove("luo_culprit").context("rmmod luo_culprit")?;
    ctx.figure(&format!(
        "{} kinds of faults were committed, and reported",
        crimes.len()
    ));
    Ok(())
}

/// Whether the kernel has a function of this name.
fn has_symbol(name: &str) -> Result<bool> {
    let symbols = std::fs::read_to_string("/proc/kallsyms").context("/proc/kallsyms")?;
    Ok(symbols
        .lines()
        .any(|line| line.split_whitespace().nth(2) == Some(name)))
}

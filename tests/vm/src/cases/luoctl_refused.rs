// SPDX-License-Identifier: GPL-2.0

//! What `luoctl` cannot do: it says why and what comes next, and leaves the machine as it was.

use super::common::luoctl::{self, failed, fails, file, says};
use super::common::modules::{Kind, Recorder};
use super::common::{data, memfd};
use crate::ctx::Ctx;
use crate::kexec;
use crate::test::{Config, Orchestrator, Test};
use anyhow::{ensure, Context, Result};
use liveupdate::State;
use nix::errno::Errno;
use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::time::Duration;

/// The cases.
pub const TESTS: &[Test] = &[
    Test::new(
        "no_module",
        Config::new().orchestrators(&[Orchestrator::None]),
        &[no_module],
    ),
    Test::new("nothing_there", Config::new(), &[nothing_there]),
    Test::new("busy", Config::new(), &[busy]),
    Test::new("no_permission", Config::new(), &[no_permission]),
    Test::new("files", Config::new(), &[files]),
    Test::new(
        "images",
        Config::new().cmdline("kho_scratch=32M,64M,16M"),
        &[images],
    ),
    Test::new("custodian_dies", Config::new(), &[custodian_dies]),
    Test::new("prepare_fails", Config::new(), &[prepare_fails]),
    Test::new("freeze_fails", Config::new(), &[freeze_fails]),
    Test::new("interrupted", Config::new(), &[interrupted]),
];

const SIZE: u64 = 100_000;
/// Of the file that will refuse.
const TOKEN: u64 = 0x2b;

fn filled() -> Result<File> {
    let file = memfd::create(SIZE)?;
    data::fill(&file, 1, data::whole(SIZE))?;
    Ok(file)
}

/// Fails unless the file can be changed at will, as nobody has preserved it.
fn is_free(file: &File) -> Result<()> {
    memfd::truncate(file, SIZE + 1).context("growing the file")?;
    memfd::truncate(file, SIZE).context("shrinking the file")
}

/// Fails unless there is no session.
fn no_session() -> Result<()> {
    let list = says(&["list"])?;
    ensure!(list == "no sessions", "{list}");
    Ok(())
}

fn no_module(ctx: &mut Ctx) -> Result<()> {
    luoctl::need(ctx)?;
    let memory = filled()?;
    let file = file(1, &memory);
    for args in [
        &["list"][..],
        &["info"],
        &["update"],
        &["preserve", "vm", &file],
        &["unpreserve", "vm"],
        &["retrieve", "vm", "1=/tmp/x"],
    ] {
        fails(
            args,
            3,
            &["no live update device", "next step: insert luo.ko"],
        )?;
    }
    let output = luoctl::command(&["check", "--json"]).output()?;
    ensure!(output.status.code() == Some(3), "{output:?}");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    ensure!(report["ready"] == false, "{report}");
    ensure!(report["findings"][1]["verdict"] == "missing", "{report}");
    Ok(())
}

fn nothing_there(ctx: &mut Ctx) -> Result<()> {
    luoctl::need(ctx)?;
    no_session()?;
    fails(&["retrieve", "vm", "1=/tmp/x"], 6, &["no session 'vm'"])?;
    ensure!(File::open("/tmp/x").is_err(), "a file was made");
    fails(&["unpreserve", "vm"], 6, &["session 'vm'"])?;
    fails(&["retrieve", "vm"], 2, &["what to do with the files"])?;
    fails(&["retrieve", "vm", "1"], 2, &["token 0x1 has no path"])?;
    fails(
        &["update"],
        3,
        &["no kernel is loaded", "next step: luoctl load"],
    )?;
    ctx.kexec_load()?;
    fails(&["update"], 6, &["no session to hand on"])?;
    fails(&["update", "vm"], 6, &["no session 'vm' to hand on"])
}

fn busy(ctx: &mut Ctx) -> Result<()> {
    luoctl::need(ctx)?;
    let device = ctx.device()?;
    let me = format!("PID {}", std::process::id());
    for args in [&["list"][..], &["update"], &["retrieve", "vm", "--finish"]] {
        fails(args, 4, &["/dev/liveupdate is in use by", &me])?;
    }
    drop(device);
    no_session()
}

fn no_permission(ctx: &mut Ctx) -> Result<()> {
    luoctl::need(ctx)?;
    for args in [
        &["list"][..],
        &["info"],
        &["update"],
        &["preserve", "vm", "1=/dev/null"],
    ] {
        let output = luoctl::command(args).uid(1000).output()?;
        failed(&output, 5, &["no permission", "next step: run it as root"])?;
    }
    let args = ["load", "/proc/self/exe", "--command-line", ""];
    let output = luoctl::command(&args).uid(1000).output()?;
    failed(&output, 5, &["not permitted", "run it as root"])
}

fn files(ctx: &mut Ctx) -> Result<()> {
    luoctl::need(ctx)?;
    let (first, second) = (filled()?, filled()?);
    let (one, two) = (file(1, &first), file(2, &second));
    fails(
        &["preserve", "vm", &one, &file(1, &second)],
        2,
        &["token 0x1 is there twice"],
    )?;
    fails(
        &["preserve", "vm", &one, &file(2, &first)],
        1,
        &["token 0x2", "already preserved"],
    )?;
    let said = ["session 'vm': token 0x2 (/dev/null): no handler takes a character device"];
    fails(&["preserve", "vm", &one, "2=/dev/null"], 1, &said)?;
    let named = ["token 0x2 (/init): no handler takes a file with a name"];
    fails(&["preserve", "vm", &one, "2=/init"], 1, &named)?;
    fails(
        &["preserve", "vm", &one, "2=/no/such"],
        6,
        &["token 0x2: /no/such: No such file"],
    )?;
    let missing = ["token 0x2: /proc/1/fd/9999: the process has no such descriptor"];
    fails(&["preserve", "vm", &one, "2=/proc/1/fd/9999"], 6, &missing)?;
    fails(
        &["preserve", &"n".repeat(64), &one],
        2,
        &["64 bytes is too long"],
    )?;
    no_session()?;
    is_free(&first)?;
    says(&["preserve", "vm", &one])?;
    fails(&["preserve", "vm", &two], 1, &["name 'vm' is taken"])?;
    is_free(&second)?;
    says(&["unpreserve", "vm"]).map(drop)
}

fn images(ctx: &mut Ctx) -> Result<()> {
    luoctl::need(ctx)?;
    let (mut kernel, _) = kexec::next()?;
    std::io::copy(&mut kernel, &mut File::create("/tmp/vmlinuz")?)?;
    // Loaded before, it stays so whatever fails after it.
    says(&[
        "load",
        "/tmp/vmlinuz",
        "--reuse-cmdline",
        "--append",
        "quiet",
    ])?;
    let loaded = || -> Result<bool> {
        Ok(std::fs::read_to_string("/sys/kernel/kexec_loaded")?.trim() == "1")
    };
    ensure!(loaded()?, "not loaded");
    // More than any part of the scratch area.
    File::create("/tmp/large")?.set_len(96 << 20)?;
    let large = [
        "load",
        "/tmp/vmlinuz",
        "--initrd",
        "/tmp/large",
        "--reuse-cmdline",
    ];
    fails(
        &large,
        1,
        &[
            "initrd of 96.00 MiB do not fit into KHO's scratch area",
            "kho_scratch=",
        ],
    )?;
    std::fs::remove_file("/tmp/large")?;
    fails(
        &["load", "/init", "--reuse-cmdline"],
        1,
        &["/init is not a kernel"],
    )?;
    fails(
        &["load", "/no/such", "--reuse-cmdline"],
        6,
        &["the kernel /no/such: No such file"],
    )?;
    fails(
        &["load", "/dev/null", "--reuse-cmdline"],
        1,
        &["/dev/null is not a regular file"],
    )?;
    fails(&["load", "/tmp/vmlinuz"], 2, &["--reuse-cmdline"])?;
    ensure!(loaded()?, "no longer loaded");
    says(&["unload"])?;
    ensure!(!loaded()?, "still loaded");
    Ok(())
}

fn custodian_dies(ctx: &mut Ctx) -> Result<()> {
    luoctl::need(ctx)?;
    let file_kept = filled()?;
    says(&["preserve", "vm", &file(1, &file_kept)])?;
    ctx.kexec_load()?;
    says(&["update", "--dry-run", "vm"])?;
    let pid = luoctl::custodian("vm")?;
    kill(Pid::from_raw(pid), Signal::SIGKILL)?;
    let gone = || luoctl::session("vm").is_ok_and(|session| session.is_none());
    ctx.wait_for("the session's end", Duration::from_secs(60), gone)?;
    is_free(&file_kept)?;
    fails(
        &["update", "vm"],
        6,
        &["no session 'vm' to hand on: its holder may have died"],
    )?;
    says(&["preserve", "vm", &file(1, &file_kept)]).context("once more")?;
    says(&["unpreserve", "vm"]).map(drop)
}

/// Two sessions by luoctl: a memfd in the first, a file of the recorder, which can refuse, in the second.
fn two_sessions(recorder: &Recorder) -> Result<()> {
    let file_of_recorder = recorder.open(Kind::C, 1)?;
    says(&["preserve", "first", &file(1, &filled()?)])?;
    says(&["preserve", "second", &file(TOKEN, &file_of_recorder)]).map(drop)
}

/// Fails unless both sessions are there and take files.
fn both_normal() -> Result<()> {
    for name in ["first", "second"] {
        let session = luoctl::session(name)?.with_context(|| format!("no session {name}"))?;
        ensure!(session["state"] == State::Normal.to_string(), "{session}");
        luoctl::custodian(name)?;
    }
    Ok(())
}

fn end_both() -> Result<()> {
    says(&["unpreserve", "first"])?;
    says(&["unpreserve", "second"])?;
    no_session()
}

fn prepare_fails(ctx: &mut Ctx) -> Result<()> {
    luoctl::need(ctx)?;
    let recorder = Recorder::with_rust(ctx)?;
    two_sessions(&recorder)?;
    ctx.kexec_load()?;
    recorder.fail("prepare", 1, Errno::EIO)?;
    let said =
        ["session 'second': the file with token 0x2b cannot be handed on: Input/output error"];
    fails(&["update"], 7, &said)?;
    both_normal()?;
    end_both()?;
    recorder.remove()
}

fn freeze_fails(ctx: &mut Ctx) -> Result<()> {
    luoctl::need(ctx)?;
    let recorder = Recorder::with_rust(ctx)?;
    two_sessions(&recorder)?;
    ctx.kexec_load()?;
    recorder.fail("freeze", 1, Errno::ENOSPC)?;
    let said = [
        "the kernel refuses the kexec: No space left",
        "token 0x2b refuses the kexec",
        "nothing was interrupted",
    ];
    fails(&["update"], 7, &said)?;
    both_normal()?;
    end_both()?;
    recorder.remove()
}

/// Ctrl-C while a file is being preserved, and while one is being prepared.
fn interrupted(ctx: &mut Ctx) -> Result<()> {
    luoctl::need(ctx)?;
    let recorder = Recorder::with_rust(ctx)?;
    let (memory, other) = (filled()?, recorder.open(Kind::C, 1)?);
    recorder.take()?;
    recorder.hold("preserve", 1)?;
    let child = luoctl::start(&["preserve", "vm", &file(1, &memory), &file(2, &other)])?;
    recorder.wait_for(ctx, "preserve c1")?;
    luoctl::interrupt(&child)?;
    failed(
        &child.wait_with_output()?,
        130,
        &["interrupted: no session was left behind"],
    )?;
    no_session()?;
    is_free(&memory)?;
    recorder.open_gate()?;

    two_sessions(&recorder)?;
    ctx.kexec_load()?;
    recorder.take()?;
    recorder.hold("prepare", 1)?;
    let child = luoctl::start(&["update"])?;
    recorder.wait_for(ctx, "prepare c1")?;
    luoctl::interrupt(&child)?;
    recorder.open_gate()?;
    let said = ["interrupted: this kernel goes on, and every session is as before"];
    failed(&child.wait_with_output()?, 130, &said)?;
    both_normal()?;
    end_both()?;
    drop(other);
    recorder.remove()
}

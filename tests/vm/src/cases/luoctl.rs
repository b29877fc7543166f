// SPDX-License-Identifier: GPL-2.0

//! A live update by `luoctl` alone, and what it shows on the way.

use super::common::luo::Device;
use super::common::luoctl::{self, fails, file, says};
use super::common::{data, is_ours, memfd, only_ours, refused};
use crate::ctx::Ctx;
use crate::kexec;
use crate::test::{Config, Orchestrator, Test};
use anyhow::{bail, ensure, Context, Result};
use nix::errno::Errno;
use nix::mount::{mount, MsFlags};
use nix::sys::resource::{setrlimit, Resource};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serde_json::json;
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// The cases.
pub const TESTS: &[Test] = &[
    Test::new("update", Config::new(), &[leave, arrive]),
    Test::new(
        "update_c",
        Config::new().orchestrators(&[Orchestrator::C]),
        &[leave, arrive],
    ),
    Test::new("finished", Config::new(), &[hand_on, nothing_to_lose]),
    Test::new("unpreserve", Config::new(), &[unpreserve]),
    Test::new("others", Config::new(), &[others]),
    Test::new("many", Config::new(), &[many]),
];

const SIZE: u64 = 3 << 20;

fn filled(seed: u64) -> Result<File> {
    let file = memfd::create(SIZE)?;
    data::fill(&file, seed, data::whole(SIZE))?;
    Ok(file)
}

/// Writes what the harness boots into files, where an operator has them.
fn install_next_kernel() -> Result<()> {
    let (mut kernel, mut initrd) = kexec::next()?;
    std::io::copy(&mut kernel, &mut File::create("/tmp/vmlinuz")?)?;
    std::io::copy(&mut initrd, &mut File::create("/tmp/initrd")?)?;
    Ok(())
}

fn load(ctx: &Ctx) -> Result<String> {
    install_next_kernel()?;
    let line = ctx.next_cmdline()?;
    says(&[
        "load",
        "/tmp/vmlinuz",
        "--initrd",
        "/tmp/initrd",
        "--command-line",
        &line,
    ])
}

fn leave(ctx: &mut Ctx) -> Result<()> {
    luoctl::need(ctx)?;
    let (first, second) = (filled(1)?, filled(2)?);
    memfd::seek(&second, 4321)?;
    not_ready()?;
    let said = says(&["preserve", "vm 1", &file(1, &first), &file(0xff, &second)])?;
    let pid = luoctl::custodian("vm 1")?;
    ensure!(
        said == format!("session 'vm 1' with 2 files is held until the kexec by PID {pid}"),
        "{said}"
    );
    refused(
        "growing it",
        memfd::truncate(&first, 2 * SIZE),
        Errno::EPERM,
    )?;
    shown(ctx, pid)?;

    let said = load(ctx)?;
    ensure!(said.starts_with("loaded: a kernel of "), "{said}");
    let said = says(&["check"])?;
    ensure!(said.ends_with("ready for a live update"), "{said}");
    let said = says(&["update", "--dry-run", "vm 1"])?;
    ensure!(said.contains("nothing stands in the way"), "{said}");
    if is_ours(ctx) {
        let state = luoctl::session("vm 1")?.context("no session")?;
        ensure!(state["state"] == "normal", "after the trial: {state}");
    }
    // They go on being written to until the kexec.
    data::fill(&first, 3, data::whole(SIZE))?;
    // Their owner is gone by then, and so may whoever ran preserve.
    drop((first, second));
    ctx.jump(|| {
        let output = luoctl::command(&["update", "vm 1"]).output()?;
        bail!("luoctl update: {output:?}")
    })
}

/// The verdict is a result, on standard output.
fn not_ready() -> Result<()> {
    let output = luoctl::command(&["check"]).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.code() == Some(3), "{}: {text}", output.status);
    for wanted in [
        "none is loaded",
        "next step: luoctl load",
        "not ready for a live update",
    ] {
        ensure!(text.contains(wanted), "no {wanted:?} in: {text}");
    }
    Ok(())
}

fn shown(ctx: &Ctx, pid: i32) -> Result<()> {
    let text = says(&["list"])?;
    let json = luoctl::json(&["list"])?;
    let info = luoctl::json(&["info"])?;
    ensure!(info["extensions"] == is_ours(ctx), "{info}");
    let holders = json!([{"pid": pid, "command": "luoctl", "custodian": true}]);
    if !is_ours(ctx) {
        let wanted = format!(
            "This orchestrator lists no sessions. Those that a process holds:\n\
             SESSION  DIRECTION  STATE  FILES  HELD BY\n\
             vm 1     outgoing   -      -      luoctl custodian (PID {pid})"
        );
        ensure!(text == wanted, "{text}");
        let wanted = json!({"complete": false, "sessions": [{
            "name": "vm 1", "direction": "outgoing", "state": null, "ordered": null,
            "file_count": null, "held_by": holders, "files": null,
        }]});
        ensure!(json == wanted, "{json}");
        return Ok(());
    }
    ensure!(info["live_updates"] == 0, "{info}");
    let format = info["memfd_format"].as_str().context("a format")?;
    let wanted = json!({"complete": true, "sessions": [{
        "name": "vm 1", "direction": "outgoing", "state": "normal", "ordered": false,
        "file_count": 2, "held_by": holders, "files": [
            {"token": 1, "format": format, "state": "normal"},
            {"token": 255, "format": format, "state": "normal"},
        ],
    }]});
    ensure!(json == wanted, "{json}");
    for line in [
        "SESSION  DIRECTION  STATE   FILES  HELD BY",
        &format!("vm 1     outgoing   normal  2      luoctl custodian (PID {pid})"),
        &format!("vm 1     0x1    {format}  normal"),
        &format!("vm 1     0xff   {format}  normal"),
    ] {
        ensure!(
            text.lines().any(|shown| shown == line),
            "no {line:?} in {text}"
        );
    }
    let short = says(&["list", "--no-files"])?;
    ensure!(
        short.lines().count() == 2 && !short.contains("0xff"),
        "{short}"
    );
    Ok(())
}

fn arrive(ctx: &mut Ctx) -> Result<()> {
    let list = says(&["list"])?;
    match is_ours(ctx) {
        true => ensure!(
            list.ends_with("vm 1     incoming   updated  2      nobody yet"),
            "{list}"
        ),
        false => ensure!(list.ends_with("no sessions"), "{list}"),
    }
    interrupted(ctx)?;
    if is_ours(ctx) {
        let info = luoctl::json(&["info"])?;
        ensure!(info["live_updates"] == 1, "{info}");
        load(ctx)?;
        let keep = filled(9)?;
        says(&["preserve", "new", &file(1, &keep)])?;
        fails(
            &["update"],
            7,
            &["'vm 1' of the previous kernel is not finished"],
        )?;
        says(&["unpreserve", "new"])?;
        fails(
            &["retrieve", "vm 1", "3=/tmp/x"],
            6,
            &["no token 0x3", "next step: `luoctl list`"],
        )?;
    }
    fails(
        &["retrieve", "vm", "1=/tmp/x"],
        6,
        &["no session 'vm' was handed on"],
    )?;
    a_full_disk()?;
    let mine = "PID ";
    let said = says(&["retrieve", "vm 1", "1=/tmp/first"])?;
    ensure!(
        said.contains("is held by ") && said.contains(mine),
        "{said}"
    );
    let first = File::open("/tmp/first")?;
    data::check(&first, 3, SIZE, &[data::whole(SIZE)])?;
    fails(
        &["retrieve", "vm 1", "1=/tmp/first"],
        1,
        &["/tmp/first", "File exists"],
    )?;
    fails(
        &["retrieve", "vm 1", "0xff", "--", "/no/such"],
        6,
        &["cannot run /no/such", "held by PID"],
    )?;

    // What is retrieved a second time is the same file; the session ends with all of it in the command's hands.
    let mut args = vec!["retrieve", "vm 1", "1", "0xff"];
    if !is_ours(ctx) {
        args.push("--finish");
    }
    let output = Command::new(luoctl::PROGRAM)
        .args(args)
        .args(["--", "/init", "listen"])
        .output()?;
    ensure!(output.status.success(), "{output:?}");
    let mut wanted = b"0x1:0xff\n[0, 4321]\n".to_vec();
    wanted.extend(data::bytes(3, 0, SIZE as usize));
    wanted.extend(data::bytes(2, 0, SIZE as usize));
    ensure!(output.stdout == wanted, "the command got something else");
    finished(ctx)
}

fn hand_on(ctx: &mut Ctx) -> Result<()> {
    only_ours(ctx, "it lists no sessions")?;
    luoctl::need(ctx)?;
    let session = Device::open()?.create_session("done")?;
    session.preserve(&filled(1)?, 1)?;
    ctx.keep(session);
    Ok(())
}

/// A session that is finished and still open is no reason against the next update.
fn nothing_to_lose(ctx: &mut Ctx) -> Result<()> {
    let session = Device::open()?.retrieve_session("done")?;
    session.retrieve(1)?;
    load(ctx)?;
    let keep = filled(2)?;
    says(&["preserve", "new", &file(1, &keep)])?;
    fails(
        &["update", "--dry-run"],
        7,
        &["'done' of the previous kernel is not finished"],
    )?;
    session.finish()?;
    let said = says(&["update", "--dry-run"])?;
    ensure!(said.contains("nothing stands in the way"), "{said}");
    Ok(())
}

/// Nothing is left of the session, nor of who held it.
fn finished(ctx: &Ctx) -> Result<()> {
    let timeout = std::time::Duration::from_secs(60);
    let list = || says(&["list"]).is_ok_and(|list| list.ends_with("no sessions"));
    ctx.wait_for("no sessions", timeout, list)?;
    fails(
        &["retrieve", "vm 1", "1=/tmp/again"],
        6,
        &["no session 'vm 1'"],
    )
    .or_else(|error| {
        // The kernel's own remembers the name.
        match is_ours(ctx) {
            true => Err(error),
            false => fails(
                &["retrieve", "vm 1", "1=/tmp/again"],
                1,
                &["already retrieved"],
            ),
        }
    })
}

/// Ctrl-C while the contents go to somebody who does not take them.
fn interrupted(ctx: &Ctx) -> Result<()> {
    mkfifo("/tmp/pipe", Mode::S_IRWXU)?;
    let child = luoctl::start(&["retrieve", "vm 1", "1=/tmp/pipe"])?;
    let timeout = std::time::Duration::from_secs(60);
    let held = || luoctl::custodian("vm 1").is_ok();
    ctx.wait_for("the custodian", timeout, held)?;
    luoctl::interrupt(&child)?;
    let said = ["interrupted: the session is still held, and nothing is lost"];
    luoctl::failed(&child.wait_with_output()?, 130, &said)?;
    luoctl::custodian("vm 1").map(drop)
}

fn a_full_disk() -> Result<()> {
    std::fs::create_dir_all("/tmp/small")?;
    mount(
        None::<&str>,
        "/tmp/small",
        Some("tmpfs"),
        MsFlags::empty(),
        Some("size=1m"),
    )?;
    // The other one had been copied by then.
    fails(
        &["retrieve", "vm 1", "0xff=/tmp/second", "1=/tmp/small/first"],
        1,
        &[
            "writing /tmp/small/first: No space left",
            "held by PID",
            "next step: make room",
        ],
    )?;
    let left = std::fs::read_dir("/tmp/small")?.count();
    ensure!(left == 0, "{left} files are left there");
    let second = std::path::Path::new("/tmp/second");
    ensure!(!second.exists(), "the same command would not do");
    Ok(())
}

fn unpreserve(ctx: &mut Ctx) -> Result<()> {
    luoctl::need(ctx)?;
    let (first, second) = (filled(1)?, filled(2)?);
    says(&["preserve", "vm", &file(1, &first), &file(2, &second)])?;
    if is_ours(ctx) {
        says(&["unpreserve", "vm", "1"])?;
        memfd::truncate(&first, SIZE + 1).context("the file taken out")?;
        fails(&["unpreserve", "vm", "1"], 6, &["no token 0x1"])?;
    }
    refused(
        "growing it",
        memfd::truncate(&second, SIZE + 1),
        Errno::EPERM,
    )?;
    let said = says(&["unpreserve", "vm"])?;
    ensure!(
        said == "session 'vm' has ended, its files are as before",
        "{said}"
    );
    memfd::truncate(&second, SIZE + 1).context("once the session has ended")?;
    fails(&["unpreserve", "vm"], 6, &["session 'vm'"])?;
    says(&["preserve", "vm", &file(1, &first)]).context("the name again")?;
    says(&["unpreserve", "vm"]).map(drop)
}

/// The sessions of other programs are seen, and prepared, but not ended.
fn others(ctx: &mut Ctx) -> Result<()> {
    luoctl::need(ctx)?;
    let session = ctx.device()?.create_session("agent")?;
    session.preserve(filled(1)?, 7)?;
    let me = std::process::id();
    let held = luoctl::session("agent")?.context("not listed")?;
    ensure!(held["held_by"][0]["pid"] == me, "{held}");
    ensure!(held["held_by"][0]["custodian"] == false, "{held}");
    fails(
        &["unpreserve", "agent"],
        4,
        &["'agent' is held by", &format!("PID {me}")],
    )?;
    load(ctx)?;
    if is_ours(ctx) {
        // A prepared session stays so, one that was not does not become so.
        session.prepare()?;
        says(&["update", "--dry-run"])?;
        ensure!(session.state()?.state == liveupdate::State::Prepared);
        says(&["update", "--cancel"])?;
        ensure!(session.state()?.state == liveupdate::State::Normal);
    }
    says(&["update", "--dry-run", "agent"])?;
    drop(session);
    fails(
        &["update", "--dry-run", "agent"],
        6,
        &["no session 'agent' to hand on"],
    )
}

/// More sessions than a process may have open by default.
fn many(ctx: &mut Ctx) -> Result<()> {
    const COUNT: usize = 600;
    const LIMIT: u64 = 256;
    luoctl::need(ctx)?;
    only_ours(ctx, "it has no list, and no PREPARE")?;
    let device = ctx.device()?;
    let sessions = (0..COUNT)
        .map(|i| Ok(device.create_session(format!("vm-{i}"))?))
        .collect::<Result<Vec<_>>>()?;
    drop(device);
    ctx.kexec_load()?;
    let limited = |args: &[&str]| -> Result<String> {
        let mut command = luoctl::command(args);
        let limit = || setrlimit(Resource::RLIMIT_NOFILE, LIMIT, 4096).map_err(Into::into);
        // SAFETY: between fork and exec it calls the kernel and touches nothing else.
        let output = unsafe { command.pre_exec(limit) }.output()?;
        ensure!(
            output.status.success() && output.stderr.is_empty(),
            "{output:?}"
        );
        Ok(String::from_utf8(output.stdout)?)
    };
    let list = limited(&["list"])?;
    let me = format!("(PID {})", std::process::id());
    let held = list.lines().filter(|line| line.ends_with(&me)).count();
    ensure!(
        held == COUNT,
        "{held} of {COUNT} are shown with their holder"
    );
    limited(&["update", "--dry-run", "vm-0", "vm-599"])?;
    drop(sessions);
    Ok(())
}

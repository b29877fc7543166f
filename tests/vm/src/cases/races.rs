// SPDX-License-Identifier: GPL-2.0

//! What comes while something else is under way: a callback of the recorder waits, so that it surely is.

use super::common::luo::{Device, Session};
use super::common::modules::{id_of, Inserted, Kind, Recorder};
use super::common::refused;
use crate::ctx::Ctx;
use crate::kexec;
use crate::process::{self, Child, Said};
use crate::test::{Config, Test};
use anyhow::{ensure, Context, Result};
use nix::errno::Errno;
use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;
use std::os::fd::AsRawFd;
use std::time::Duration;

/// The cases.
pub const TESTS: &[Test] = &[
    Test::new("while_preserving", Config::new(), &[while_preserving]),
    Test::new("killed_while_preserving", Config::new(), &[killed]),
    Test::new("one_file_at_once", Config::new(), &[one_file_at_once]),
    Test::new("slow_flb", Config::new(), &[slow_flb]),
    Test::new("closed_in_freeze", Config::new(), &[closed_in_freeze]),
    Test::new(
        "kexec_while_preserving",
        Config::new(),
        &[kexec_while_preserving, arrived],
    ),
    Test::new(
        "kexec_while_closing",
        Config::new(),
        &[kexec_while_closing, nothing_arrived],
    ),
    Test::new(
        "while_retrieving",
        Config::new(),
        &[hand_on, while_retrieving],
    ),
    Test::new(
        "while_finishing",
        Config::new(),
        &[hand_on, while_finishing],
    ),
];

/// Longer than anything takes here.
pub const LONG: Duration = Duration::from_secs(60);

/// A child that does something and says how it went.
pub struct Doer(pub Child);

impl Doer {
    /// Begins with it.
    pub fn new(act: impl FnOnce() -> Result<String, Errno>) -> Result<Self> {
        use std::io::Write;
        Ok(Self(Child::spawn(|pipe| {
            let said = act().unwrap_or_else(|errno| format!("{errno:?}"));
            let _ = writeln!(pipe, "{said}");
        })?))
    }

    /// Fails unless it says this, and ends.
    pub fn says(mut self, what: &str, wanted: &str) -> Result<()> {
        let said = self.0.listen(LONG)?;
        ensure!(
            said == Said::Line(wanted.into()),
            "{what}: {said:?} instead of {wanted}"
        );
        self.0.wait()?;
        Ok(())
    }
}

/// Puts a file into a session, in a child, which waits in `callback` for the gate.
pub fn preserve_held(
    ctx: &Ctx,
    recorder: &Recorder,
    session: &Session,
    id: u64,
    callback: &str,
) -> Result<Doer> {
    recorder.hold(callback, 1)?;
    let file = recorder.open(Kind::A, id)?;
    let doer = Doer::new(|| session.preserve(&file, id).map(|()| "preserved".into()))?;
    let line = match callback {
        "preserve" => format!("preserve a{id}"),
        _ => callback.into(),
    };
    recorder.wait_for(ctx, &line)?;
    Ok(doer)
}

/// Waits until a process waits in the kernel for what no signal ends.
pub fn wait_until_stuck(ctx: &Ctx, pid: Pid) -> Result<()> {
    ctx.wait_for("a process that waits", LONG, || {
        process::state_of(pid) == Some('D')
    })
}

fn entry_of(device: &Device, name: &str) -> Result<(u32, u64)> {
    let (entries, _) = device.list_sessions(0, 10)?;
    let entry = entries.iter().find(|entry| entry.name() == name);
    let entry = entry.with_context(|| format!("{name} is not listed"))?;
    Ok((entry.state, entry.nr_files))
}

/// Others are not kept waiting, whatever they ask but the session itself.
fn while_preserving(ctx: &mut Ctx) -> Result<()> {
    let recorder = Recorder::new(ctx)?;
    let device = Device::open()?;
    let session = device.create_session("slow")?;
    session.preserve(&recorder.open(Kind::B, 1)?, 1)?;
    let doer = preserve_held(ctx, &recorder, &session, 2, "preserve")?;

    ensure!(entry_of(&device, "slow")? == (1, 1), "LIST_SESSIONS");
    let fdinfo = format!("/proc/self/fdinfo/{}", session.0.as_raw_fd());
    let fdinfo = std::fs::read_to_string(fdinfo)?;
    ensure!(fdinfo.contains("files:\t1\n"), "{fdinfo:?}");
    ensure!(session.name()? == "slow");
    let other = device.create_session("other")?;
    other.preserve(&recorder.open(Kind::B, 3)?, 3)?;
    drop(other);
    refused("taken", device.create_session("slow"), Errno::EEXIST)?;

    recorder.open_gate()?;
    doer.says("PRESERVE_FD", "preserved")?;
    ensure!(entry_of(&device, "slow")? == (1, 2), "when it is done");
    drop(session);
    ensure!(recorder.live()? == 0);
    recorder.remove()
}

/// SIGKILL in the midst of PRESERVE_FD, in the handler and in an FLB: nothing of it is left.
fn killed(ctx: &mut Ctx) -> Result<()> {
    let recorder = Recorder::new(ctx)?;
    let session = Device::open()?.create_session("slow")?;
    for (callback, undone) in [
        (
            "preserve",
            "x.preserve, y.preserve, preserve a1, y.unpreserve, x.unpreserve",
        ),
        ("y.preserve", "x.preserve, y.preserve, x.unpreserve"),
        ("x.preserve", "x.preserve"),
    ] {
        let doer = preserve_held(ctx, &recorder, &session, 1, callback)?;
        doer.0.kill()?;
        recorder.expect(callback, undone)?;
        ensure!(recorder.live()? == 0, "{callback}");
    }
    session.preserve(&recorder.open(Kind::A, 1)?, 1)?;
    drop(session);
    ensure!(recorder.live()? == 0);
    recorder.remove()
}

/// A file that is about to be preserved counts as preserved.
fn one_file_at_once(ctx: &mut Ctx) -> Result<()> {
    let recorder = Recorder::new(ctx)?;
    let device = Device::open()?;
    let one = device.create_session("one")?;
    let two = device.create_session("two")?;
    let file = recorder.open(Kind::B, 1)?;
    recorder.hold("preserve", 1)?;
    let doer = Doer::new(|| one.preserve(&file, 1).map(|()| "preserved".into()))?;
    recorder.wait_for(ctx, "preserve b1")?;
    refused("by another", two.preserve(&file, 1), Errno::EBUSY)?;
    recorder.fail("preserve", 9, Errno::EIO)?;
    doer.says("PRESERVE_FD", "preserved")?;
    refused("still", two.preserve(&file, 1), Errno::EBUSY)?;
    drop(one);
    two.preserve(&file, 1).context("when it is free")?;
    drop((two, file));
    recorder.remove()
}

/// An FLB that takes its time does not keep other modules from coming and going.
fn slow_flb(ctx: &mut Ctx) -> Result<()> {
    let recorder = Recorder::new(ctx)?;
    let session = Device::open()?.create_session("slow")?;
    let doer = preserve_held(ctx, &recorder, &session, 1, "y.preserve")?;
    Inserted::new(ctx, "luo_sample_c")?.remove()?;
    std::fs::read_to_string("/sys/kernel/debug/luo/handlers")?;
    recorder.open_gate()?;
    doer.says("PRESERVE_FD", "preserved")?;
    drop(session);
    recorder.remove()
}

/// The holder is killed while its session is frozen, and then the kexec fails.
fn closed_in_freeze(ctx: &mut Ctx) -> Result<()> {
    let recorder = Recorder::new(ctx)?;
    ctx.kexec_load()?;
    let holder = Child::holder(|| {
        let session = Device::open()?.create_session("killed")?;
        session.preserve(&recorder.open(Kind::A, 1)?, 1)?;
        session.preserve(&recorder.open(Kind::B, 2)?, 2)?;
        Ok(session)
    })?;
    recorder.take()?;
    recorder.hold("freeze", 1)?;
    let rebooter = Doer::new(|| Err(kexec::execute()))?;
    recorder.wait_for(ctx, "freeze a1")?;
    let pid = holder.pid();
    kill(pid, Signal::SIGKILL)?;
    wait_until_stuck(ctx, pid)?;
    // Opens the gate, too.
    recorder.fail("freeze", 1, Errno::EIO)?;
    rebooter.says("reboot()", "EIO")?;
    holder.wait()?;
    recorder.expect(
        "first thawed, then closed",
        "freeze a1, freeze b2, unfreeze a1, unpreserve b2, unpreserve a1, y.unpreserve, x.unpreserve",
    )?;
    ensure!(recorder.live()? == 0);
    Device::open()?
        .create_session("killed")
        .context("its name")?;
    recorder.remove()
}

/// Opens the gate as soon as this process waits for its kexec.
fn opener(ctx: &Ctx, recorder: &Recorder) -> Result<Child> {
    let parent = nix::unistd::getpid();
    Child::spawn(|_| {
        if wait_until_stuck(ctx, parent).is_ok() {
            let _ = recorder.open_gate();
        }
    })
}

/// A kexec waits for a PRESERVE_FD that is under way, and takes its file along.
fn kexec_while_preserving(ctx: &mut Ctx) -> Result<()> {
    let recorder = Recorder::new(ctx)?;
    let session = Device::open()?.create_session("slow")?;
    let _doer = preserve_held(ctx, &recorder, &session, 1, "preserve")?;
    let _opener = opener(ctx, &recorder)?;
    match ctx.kexec()? {}
}

fn arrived(ctx: &mut Ctx) -> Result<()> {
    let recorder = Recorder::new(ctx)?;
    let session = Device::open()?.retrieve_session("slow")?;
    ensure!(id_of(&session.retrieve(1)?)? == 1);
    session.finish()?;
    drop(session);
    recorder.remove()
}

/// A kexec waits for a session that is being closed, and leaves it behind.
fn kexec_while_closing(ctx: &mut Ctx) -> Result<()> {
    let recorder = Recorder::new(ctx)?;
    let kept = Device::open()?.create_session("kept")?;
    let holder = Child::holder(|| {
        let session = Device::open()?.create_session("closed")?;
        session.preserve(&recorder.open(Kind::B, 1)?, 1)?;
        Ok(session)
    })?;
    recorder.hold("x.unpreserve", 1)?;
    kill(holder.pid(), Signal::SIGKILL)?;
    recorder.wait_for(ctx, "x.unpreserve")?;
    wait_until_stuck(ctx, holder.pid())?;
    let _opener = opener(ctx, &recorder)?;
    ctx.keep(kept);
    match ctx.kexec()? {}
}

fn nothing_arrived(ctx: &mut Ctx) -> Result<()> {
    let recorder = Recorder::new(ctx)?;
    let device = Device::open()?;
    let closed = device.retrieve_session("closed");
    refused("the closed one", closed, Errno::ENOENT)?;
    device.retrieve_session("kept")?.finish()?;
    refused("its FLB", recorder.value("incoming"), Errno::ENOENT)?;
    recorder.remove()
}

fn hand_on(ctx: &mut Ctx) -> Result<()> {
    let recorder = Recorder::new(ctx)?;
    let device = Device::open()?;
    for name in ["one", "two"] {
        let session = device.create_session(name)?;
        session.preserve(&recorder.open(Kind::A, 1)?, 1)?;
        session.preserve(&recorder.open(Kind::B, 2)?, 2)?;
        ctx.keep(session);
    }
    ctx.keep(recorder);
    Ok(())
}

fn retrieve_in_child(session: &Session, token: u64) -> Result<Doer> {
    Doer::new(|| session.retrieve(token).map(|_| "retrieved".into()))
}

fn while_retrieving(ctx: &mut Ctx) -> Result<()> {
    let recorder = Recorder::new(ctx)?;
    let device = Device::open()?;
    let one = device.retrieve_session("one")?;
    recorder.hold("retrieve", 1)?;
    let first = retrieve_in_child(&one, 1)?;
    recorder.wait_for(ctx, "retrieve a1")?;
    // Others are not kept waiting.
    ensure!(entry_of(&device, "one")? == (4, 2), "LIST_SESSIONS");
    let taken = device.retrieve_session("one");
    refused("the same session", taken, Errno::EINVAL)?;
    let two = device.retrieve_session("two")?;
    ensure!(id_of(&two.retrieve(2)?)? == 2);
    recorder.expect("meanwhile", "retrieve a1, retrieve b2")?;

    // The same file once more, and the end of the session: both wait.
    let mut second = retrieve_in_child(&one, 1)?;
    wait_until_stuck(ctx, second.0.pid())?;
    let finisher = Doer::new(|| one.finish().map(|()| "finished".into()))?;
    wait_until_stuck(ctx, finisher.0.pid())?;
    recorder.open_gate()?;
    first.says("the first", "retrieved")?;
    finisher.says("FINISH", "finished")?;
    // Whether it comes before FINISH or after it is open.
    let said = second.0.listen(LONG)?;
    let either = ["retrieved", "ENOENT"].map(|word| Said::Line(word.into()));
    ensure!(either.contains(&said), "the second: {said:?}");
    recorder.expect(
        "one after the other",
        "can_finish a1 1, can_finish b2 0, finish b2 0, finish a1 1",
    )?;
    refused("finished", one.retrieve(1), Errno::ENOENT)?;
    drop((one, two, second, device));
    recorder.remove()
}

/// A second FINISH is done when the first is: then all files are ordinary ones. Nobody else waits for it.
fn while_finishing(ctx: &mut Ctx) -> Result<()> {
    let recorder = Recorder::new(ctx)?;
    let device = Device::open()?;
    let one = device.retrieve_session("one")?;
    recorder.hold("finish", 1)?;
    let finish = || Doer::new(|| one.finish().map(|()| "finished".into()));
    let first = finish()?;
    recorder.wait_for(ctx, "finish b2 0")?;
    let second = finish()?;
    wait_until_stuck(ctx, second.0.pid())?;
    ensure!(entry_of(&device, "one")? == (4, 0), "LIST_SESSIONS");
    ensure!(one.state()? == (4, 0, 0), "GET_STATE");
    drop(device.retrieve_session("two")?);
    recorder.open_gate()?;
    for finisher in [first, second] {
        finisher.says("FINISH", "finished")?;
    }
    drop((one, device));
    recorder.remove()
}

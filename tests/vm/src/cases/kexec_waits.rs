// SPDX-License-Identifier: GPL-2.0

//! reboot(KEXEC) has to wait for commands that are under way: for these alone, and it says so.

use super::common::luo::{Device, Session};
use super::common::memfd;
use super::common::modules::{Kind, Recorder};
use super::common::refused;
use super::races::{preserve_held, wait_until_stuck, Doer, LONG};
use crate::ctx::Ctx;
use crate::kexec;
use crate::kmsg::Log;
use crate::process::Child;
use crate::test::{Config, Test};
use anyhow::{ensure, Context, Result};
use nix::errno::Errno;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The cases.
pub const TESTS: &[Test] = &[
    Test::new("named", Config::new(), &[named]),
    Test::new("busy", Config::new(), &[busy]),
    Test::new("flb", Config::new(), &[flb, flb_is_gone]),
];

/// The side of an FLB in the old kernel.
const OUTGOING: &str = "outgoing";

/// A session with a file, and one whose PRESERVE_FD a kexec has to wait for.
pub struct Waiting {
    /// Of the files.
    pub recorder: Recorder,
    pub device: Device,
    pub first: Session,
    pub slow: Session,
}

impl Waiting {
    /// Makes them, and loads a kernel.
    pub fn new(ctx: &Ctx) -> Result<Self> {
        let recorder = Recorder::new(ctx)?;
        let device = Device::open()?;
        let first = device.create_session("first")?;
        first.preserve(&recorder.open(Kind::B, 7)?, 7)?;
        let slow = device.create_session("slow")?;
        ctx.kexec_load()?;
        Ok(Self {
            recorder,
            device,
            first,
            slow,
        })
    }

    /// Waits until a kexec has waited for so long that the log says so.
    pub fn waits(&self, ctx: &Ctx, log: &mut Log) -> Result<()> {
        ctx.wait_for("a line of the log", LONG, || {
            log.expect("session [slow]: reboot() waits").is_ok()
        })
    }
}

/// Where a kexec has to wait for long, the log says for whom.
fn named(ctx: &mut Ctx) -> Result<()> {
    let scene = Waiting::new(ctx)?;
    let recorder = &scene.recorder;
    let mut log = Log::from_now()?;
    let doer = preserve_held(ctx, recorder, &scene.slow, 1, "preserve")?;
    let rebooter = Doer::new(|| Err(kexec::execute()))?;
    scene.waits(ctx, &mut log)?;
    recorder.take()?;
    // Opens the gate, too.
    recorder.fail("freeze", 1, Errno::EIO)?;
    doer.says("PRESERVE_FD", "preserved")?;
    rebooter.says("reboot()", "EIO")?;
    recorder.expect("it waited for that alone", "freeze a1, unfreeze b7")?;
    drop((scene.first, scene.slow));
    scene.recorder.remove()
}

/// A session to which one command comes after the other is waited for no longer than for one of them.
fn busy(ctx: &mut Ctx) -> Result<()> {
    const ATTEMPTS: usize = 10;
    const THREADS: usize = 4;
    let recorder = Recorder::new(ctx)?;
    let device = Device::open()?;
    let busy = device.create_session("busy")?;
    let last = device.create_session("last")?;
    last.preserve(&recorder.open(Kind::B, 1)?, 1)?;
    ctx.kexec_load()?;
    let none = memfd::create(0)?;
    busy.preserve(&none, 1)?;
    let done = AtomicBool::new(false);
    let best = std::thread::scope(|scope| -> Result<Duration> {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while !done.load(Ordering::SeqCst) {
                    // The token is taken.
                    let _ = busy.preserve(&none, 1);
                }
            });
        }
        let attempt = || -> Result<Duration> {
            recorder.fail("freeze", 1, Errno::EIO)?;
            let start = Instant::now();
            let errno = kexec::execute();
            ensure!(errno == Errno::EIO, "reboot(): {errno:?}");
            Ok(start.elapsed())
        };
        let attempts: Result<Vec<_>> = (0..ATTEMPTS).map(|_| attempt()).collect();
        done.store(true, Ordering::SeqCst);
        let attempts = attempts?;
        ctx.figure(&format!("reboot() that is refused: {attempts:?}"));
        Ok(attempts.into_iter().min().unwrap_or(Duration::MAX))
    })?;
    ensure!(
        best < Duration::from_millis(200),
        "it takes {best:?} at best"
    );
    drop((busy, last));
    recorder.remove()
}

/// An FLB that its driver lets go of, which takes long, is waited for with nothing locked that others need.
fn flb(ctx: &mut Ctx) -> Result<()> {
    let recorder = Recorder::new(ctx)?;
    let device = Device::open()?;
    let session = device.create_session("kept")?;
    session.preserve(&recorder.open(Kind::B, 1)?, 1)?;
    recorder.get(OUTGOING).context("get")?;
    session.unpreserve(1)?;
    session.preserve(&memfd::create(0)?, 2)?;
    recorder.take()?;
    recorder.hold("x.unpreserve", 1)?;
    let _driver = Doer::new(|| recorder.put(OUTGOING).map(|()| "put".into()))?;
    recorder.wait_for(ctx, "x.unpreserve")?;
    ctx.kexec_load()?;
    let parent = nix::unistd::getpid();
    let _asker = Child::spawn(|_| {
        let asked = wait_until_stuck(ctx, parent).and_then(|()| {
            let listed = Doer::new(|| device.list_sessions(0, 10).map(|_| "listed".into()))?;
            listed.says("LIST_SESSIONS", "listed")
        });
        if let Err(err) = asked {
            ctx.give_up(&format!("{err:#}"));
        }
        let _ = recorder.open_gate();
    })?;
    ctx.jump(|| Err(kexec::execute().into()))
}

/// It was not handed over, and the session was.
fn flb_is_gone(ctx: &mut Ctx) -> Result<()> {
    let recorder = Recorder::new(ctx)?;
    let session = Device::open()?.retrieve_session("kept")?;
    session.retrieve(2)?;
    refused("the FLB", recorder.value("incoming"), Errno::ENOENT)?;
    session.finish()?;
    drop(session);
    recorder.remove()
}

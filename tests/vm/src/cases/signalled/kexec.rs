// SPDX-License-Identifier: GPL-2.0

//! What waits for a kexec, and the kexec that waits.

use super::outgoing::{GETTERS, OUTGOING};
use super::{command, done, ends, preserve_held, send, Scene, Waiter, BOTH, HANDLED, KILLED};
use crate::cases::common::luo::{Device, Session};
use crate::cases::common::modules::{Kind, Recorder};
use crate::cases::kexec_waits::Waiting;
use crate::cases::races::{wait_until_stuck, Doer};
use crate::ctx::Ctx;
use crate::kexec;
use crate::kmsg::Log;
use anyhow::{ensure, Context, Result};
use nix::errno::Errno;
use nix::sys::signal::{kill, Signal};

/// Lets a child call reboot(), and wait in the freeze of the first file of `last`, which is to have two.
fn reboot_held(ctx: &Ctx, recorder: &Recorder, before: usize) -> Result<Doer> {
    recorder.hold("freeze", before + 1)?;
    let rebooter = command(|| Err(kexec::execute()))?;
    recorder.wait_for(ctx, "freeze b8")?;
    Ok(rebooter)
}

/// A session that is frozen last, where the kexec can be held, and then fails.
fn last_session(device: &Device, recorder: &Recorder) -> Result<Session> {
    let last = device.create_session("last")?;
    last.preserve(&recorder.open(Kind::B, 8)?, 8)?;
    last.preserve(&recorder.open(Kind::B, 9)?, 9)?;
    Ok(last)
}

/// Waits for the registry, and not for the session.
const CREATE: Waiter = Waiter {
    what: "CREATE_SESSION",
    act: |scene| scene.device.create_session("new").map(drop).map(done),
    answer: "done",
    left: "(1, 2, 0) 0 [1, 2]",
};

/// Fails unless LIST_SESSIONS, which waits for nobody, is answered at once.
fn lists_at_once(device: &Device) -> Result<()> {
    let lister = command(|| {
        let (entries, total) = device.list_sessions(0, 9)?;
        Ok(format!("{} of {total}", entries.len()))
    })?;
    lister.says("LIST_SESSIONS", "2 of 2, signals: 0")
}

/// A session with two files, which is frozen before the last one.
fn frozen_scene<'a>(device: &'a Device, recorder: &Recorder) -> Result<(Scene<'a>, Session)> {
    let scene = Scene {
        device,
        session: device.create_session("frozen")?,
        file: recorder.open(Kind::B, 3)?,
    };
    scene.session.preserve(&recorder.open(Kind::A, 1)?, 1)?;
    scene.session.preserve(&recorder.open(Kind::B, 2)?, 2)?;
    let last = last_session(device, recorder)?;
    recorder.take()?;
    Ok((scene, last))
}

/// What changes a session that is frozen waits until the kexec fails.
pub fn behind_kexec(ctx: &mut Ctx) -> Result<()> {
    let recorder = Recorder::new(ctx)?;
    let device = Device::open()?;
    ctx.kexec_load()?;
    let scene = || frozen_scene(&device, &recorder);
    // Opens the gate, too.
    let fail = || recorder.fail("freeze", 1, Errno::EIO);
    for waiter in OUTGOING.iter().chain([&CREATE]) {
        for signal in BOTH {
            let (scene, last) = scene()?;
            let rebooter = reboot_held(ctx, &recorder, 2)?;
            waiter.meet(ctx, &scene, (rebooter, "EIO"), fail, signal)?;
            let record = recorder.take()?;
            let kexec =
                "freeze a1, freeze b2, freeze b8, freeze b9, unfreeze b8, unfreeze b2, unfreeze a1";
            ensure!(record.join(", ").starts_with(kexec), "{record:?}");
            drop((scene, last));
            ensure!(recorder.live()? == 0, "{}, {signal:?}", waiter.what);
            // Its name is free when who made it is gone.
            drop(device.create_session("new")?);
        }
    }
    // It is killed itself: then it fails by that.
    let (scene, last) = scene()?;
    let rebooter = reboot_held(ctx, &recorder, 2)?;
    let waiter = command(|| scene.session.unpreserve(1).map(done))?;
    send(ctx, HANDLED, &waiter)?;
    rebooter.0.kill()?;
    ends(waiter, HANDLED, "done")?;
    recorder.expect(
        "first thawed, then unpreserved",
        "freeze a1, freeze b2, freeze b8, unfreeze b2, unfreeze a1, unpreserve a1, y.unpreserve",
    )?;
    drop((scene, last));
    ensure!(recorder.live()? == 0);
    recorder.remove()
}

/// What a kexec that fails has frozen is thawed: that takes as long as the handlers do, and who wants to change something
/// waits for it.
pub fn behind_thaw(ctx: &mut Ctx) -> Result<()> {
    const THAWED: &str =
        "freeze a1, freeze b2, freeze b8, freeze b9, unfreeze b8, unfreeze b2, unfreeze a1";
    let recorder = Recorder::new(ctx)?;
    let device = Device::open()?;
    ctx.kexec_load()?;
    let held = || -> Result<_> {
        let (scene, last) = frozen_scene(&device, &recorder)?;
        let rebooter = reboot_held(ctx, &recorder, 2)?;
        // The first call is for the session that was not frozen as a whole.
        recorder.fail_and_hold(("freeze", 1, Errno::EIO), ("unfreeze", 2))?;
        recorder.wait_for(ctx, "unfreeze b2")?;
        lists_at_once(&device)?;
        Ok((scene, last, rebooter))
    };
    for waiter in [&CREATE].into_iter().chain(GETTERS) {
        for signal in BOTH {
            let (scene, last, rebooter) = held()?;
            let open = || recorder.open_gate();
            waiter.meet(ctx, &scene, (rebooter, "EIO"), open, signal)?;
            recorder.expect(waiter.what, THAWED)?;
            drop((scene, last));
            ensure!(recorder.live()? == 0, "{}, {signal:?}", waiter.what);
            // Its name is free when who made it is gone.
            drop(device.create_session("new")?);
        }
    }
    // It is killed itself: all is thawed, only sooner.
    let (scene, last, rebooter) = held()?;
    let waiter = command(|| (CREATE.act)(&scene))?;
    send(ctx, HANDLED, &waiter)?;
    rebooter.0.kill()?;
    CREATE.is_done(&scene, waiter, HANDLED)?;
    recorder.expect("killed", THAWED)?;
    drop((scene, last));
    ensure!(recorder.live()? == 0);
    recorder.remove()
}

/// close(2) waits for a kexec as well, that of the last descriptor.
pub fn closing(ctx: &mut Ctx) -> Result<()> {
    let recorder = Recorder::new(ctx)?;
    ctx.kexec_load()?;
    for signal in BOTH {
        recorder.take()?;
        let closer = command(|| {
            let close = || -> Result<()> {
                let session = Device::open()?.create_session("closed")?;
                session.preserve(&recorder.open(Kind::B, 1)?, 1)?;
                recorder.wait_for(ctx, "freeze b8")
            };
            // Closed on return.
            close().map(done).map_err(|_| Errno::ECANCELED)
        })?;
        recorder.wait_for(ctx, "preserve b1")?;
        let device = Device::open()?;
        let last = last_session(&device, &recorder)?;
        let rebooter = reboot_held(ctx, &recorder, 1)?;
        send(ctx, signal, &closer)?;
        recorder.fail("freeze", 1, Errno::EIO)?;
        rebooter.says("reboot()", "EIO, signals: 0")?;
        ends(closer, signal, "done")?;
        drop(last);
        ensure!(recorder.live()? == 0, "{signal:?}");
        drop(device.create_session("closed").context("its name")?);
    }
    recorder.remove()
}

/// reboot() itself waits for a command of a session, for longer than without a word in the log, and others wait for it.
/// A signal with a handler does not end that.
pub fn kexec_waits(ctx: &mut Ctx) -> Result<()> {
    let scene = Waiting::new(ctx)?;
    let doer = scene.preserve_held(ctx)?;
    let mut log = Log::from_now()?;
    let rebooter = command(|| Err(kexec::execute()))?;
    wait_until_stuck(ctx, rebooter.0.pid())?;
    kill(rebooter.0.pid(), HANDLED)?;
    // Only a wait that goes on comes to this.
    scene.waits(ctx, &mut log)?;
    lists_at_once(&scene.device)?;
    let creators = BOTH.map(|signal| scene.create(ctx, signal));
    scene.recorder.take()?;
    // Opens the gate, too.
    scene.recorder.fail("freeze", 1, Errno::EIO)?;
    doer.says("PRESERVE_FD", "done, signals: 0")?;
    ends(rebooter, HANDLED, "EIO")?;
    for (creator, signal) in creators.into_iter().zip(BOTH) {
        ends(creator?, signal, "done").context("CREATE_SESSION")?;
    }
    scene
        .recorder
        .expect("after it", "freeze a1, unfreeze b7")?;
    scene.end()
}

/// Being killed does: reboot() fails before what it waits for is done, and all is as it was.
pub fn killed_kexec(ctx: &mut Ctx) -> Result<()> {
    let scene = Waiting::new(ctx)?;
    let doer = scene.preserve_held(ctx)?;
    let mut log = Log::from_now()?;
    let rebooter = command(|| Err(kexec::execute()))?;
    scene.waits(ctx, &mut log)?;
    lists_at_once(&scene.device)?;
    let creators = BOTH.map(|signal| scene.create(ctx, signal));
    kill(rebooter.0.pid(), KILLED)?;
    ends(rebooter, KILLED, "")?;
    for (creator, signal) in creators.into_iter().zip(BOTH) {
        ends(creator?, signal, "done").context("CREATE_SESSION")?;
    }
    // That one is where it was.
    send(ctx, HANDLED, &doer)?;
    scene.recorder.expect(
        "all of it",
        "y.preserve, preserve a1, freeze b7, unfreeze b7",
    )?;
    scene.recorder.open_gate()?;
    ends(doer, HANDLED, "done")?;
    scene.end()
}

impl Waiting {
    /// Lets PRESERVE_FD wait at the gate, with an empty record but for that.
    fn preserve_held(&self, ctx: &Ctx) -> Result<Doer> {
        self.recorder.take()?;
        let line = "preserve a1";
        preserve_held(ctx, &self.recorder, &self.slow, 1, ("preserve", line))
    }

    /// Lets CREATE_SESSION wait, with a signal to it.
    fn create(&self, ctx: &Ctx, signal: Signal) -> Result<Doer> {
        let name = format!("{signal:?}");
        let creator = command(|| self.device.create_session(&name).map(drop).map(done))?;
        send(ctx, signal, &creator)?;
        Ok(creator)
    }

    /// Fails unless all is as if there had been no kexec.
    fn end(self) -> Result<()> {
        ensure!(self.first.state()? == (1, 1, 0), "the first session");
        ensure!(self.slow.state()? == (1, 1, 0), "the second session");
        for signal in BOTH {
            let name = format!("{signal:?}");
            self.device.create_session(&name).context(name)?;
        }
        drop((self.first, self.slow, self.device));
        let live = self.recorder.live()?;
        ensure!(live == 0, "{live} pages are left");
        self.recorder.remove()
    }
}

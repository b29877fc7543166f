// SPDX-License-Identifier: GPL-2.0

//! Commands of a session that come while reboot() waits for one that was there before. They wait for reboot(), and no
//! signal ends that; when reboot() has failed, or was killed, each is carried out as if nobody had waited.

use super::outgoing::{GETTERS, OUTGOING};
use super::{command, done, ends, Scene, Waiter, BOTH, HANDLED, KILLED};
use crate::cases::common::luo::{Device, Session};
use crate::cases::common::memfd;
use crate::cases::common::modules::{Kind, Recorder};
use crate::cases::common::still_works;
use crate::cases::races::{Doer, LONG};
use crate::ctx::Ctx;
use crate::kexec;
use crate::procfs::number_in;
use anyhow::{ensure, Context, Result};
use nix::errno::Errno;
use nix::sys::signal::{kill, Signal};
use std::fs::File;

/// More often than reboot() sleeps for anything else.
const MANY: i64 = 20;

/// What it takes to let reboot() wait for a session.
struct Gate {
    recorder: Recorder,
    device: Device,
    /// Is frozen before the session that reboot() waits for.
    _before: Session,
    /// Pages that this has.
    live: usize,
}

impl Gate {
    fn new(ctx: &Ctx) -> Result<Self> {
        let recorder = Recorder::new(ctx)?;
        let device = Device::open()?;
        let before = device.create_session("before")?;
        before.preserve(&recorder.open(Kind::B, 7)?, 7)?;
        ctx.kexec_load()?;
        Ok(Self {
            live: recorder.live()?,
            recorder,
            device,
            _before: before,
        })
    }

    /// A new session, in which `file` is number 1.
    fn scene(&self, first: &File, other: File) -> Result<Scene<'_>> {
        let scene = Scene {
            device: &self.device,
            session: self.device.create_session("slow")?,
            file: other,
        };
        scene.session.preserve(first, 1)?;
        Ok(scene)
    }

    /// Lets file 2 be put into the session, and reboot() wait for that: who comes now waits for both.
    fn close(&self, ctx: &Ctx, scene: &Scene<'_>) -> Result<(Doer, Doer)> {
        let file = self.recorder.open(Kind::A, 2)?;
        // Whatever happens, there is no kexec.
        let fails = ("freeze", 2, Errno::EIO);
        self.recorder.fail_and_hold(fails, ("preserve", 1))?;
        let first = command(|| scene.session.preserve(&file, 2).map(done))?;
        self.recorder.wait_for(ctx, "preserve a2")?;
        self.recorder.take()?;
        let rebooter = command(|| Err(kexec::execute()))?;
        self.recorder.wait_for(ctx, "freeze b7")?;
        // It looks again and again whether the session is free. At the second time nobody is let in any more.
        let status = format!("/proc/{}/status", rebooter.0.pid());
        let sleeps = || number_in(&status, "voluntary_ctxt_switches:");
        let before = sleeps()?;
        ctx.wait_for("that reboot() waits", LONG, || {
            sleeps().is_ok_and(|now| now > before + MANY)
        })?;
        self.recorder.expect("before it", "freeze b7")?;
        Ok((first, rebooter))
    }

    /// Kills reboot(), after which all but it is as before, and lets file 2 go on.
    fn kill(&self, ctx: &Ctx, rebooter: Doer) -> Result<()> {
        kill(rebooter.0.pid(), KILLED)?;
        let ended = ctx.wait_for("the end of reboot()", LONG, || {
            rebooter.0.has_ended().unwrap_or(false)
        });
        if ended.is_err() {
            // Else this would wait for it, too.
            self.recorder.fail("freeze", 1, Errno::EIO)?;
        }
        ended?;
        ends(rebooter, KILLED, "").context("reboot()")?;
        self.recorder.expect("reboot() alone", "unfreeze b7")?;
        self.recorder.open_gate()
    }

    /// Fails unless the session is of use, and leaves nothing.
    fn end(&self, scene: Scene<'_>) -> Result<()> {
        scene.session.cancel()?;
        still_works(&scene.session)?;
        drop(scene);
        let live = self.recorder.live()?;
        ensure!(live == self.live, "{live} pages instead of {}", self.live);
        Ok(())
    }
}

/// A session with a file of the recorder, and another such file.
fn recorded(gate: &Gate) -> Result<Scene<'_>> {
    let recorder = &gate.recorder;
    gate.scene(&recorder.open(Kind::B, 1)?, recorder.open(Kind::B, 3)?)
}

/// reboot() fails, at the first file of the session that it waited for: before any that waits has its turn.
pub fn until_reboot_fails(ctx: &mut Ctx) -> Result<()> {
    let gate = Gate::new(ctx)?;
    for waiter in OUTGOING.iter().chain(GETTERS) {
        for signal in BOTH {
            let scene = recorded(&gate)?;
            let (first, rebooter) = gate.close(ctx, &scene)?;
            // Opens the recorder's gate, too.
            let fail = || gate.recorder.fail("freeze", 1, Errno::EIO);
            waiter.meet(ctx, &scene, (first, "done"), fail, signal)?;
            rebooter.says("reboot()", "EIO, signals: 0")?;
            let mut record = gate.recorder.take()?.into_iter();
            let next = record.next();
            ensure!(
                next.as_deref() == Some("freeze b1"),
                "{}, {signal:?}: {next:?} comes before reboot()",
                waiter.what
            );
            ensure!(record.any(|line| line == "unfreeze b7"));
            gate.end(scene)?;
        }
    }
    Ok(())
}

/// reboot() is killed: who waited for it waits for the command that it waited for.
pub fn until_reboot_is_killed(ctx: &mut Ctx) -> Result<()> {
    let gate = Gate::new(ctx)?;
    for waiter in OUTGOING.iter().chain(GETTERS) {
        for signal in BOTH {
            let scene = recorded(&gate)?;
            let (first, rebooter) = gate.close(ctx, &scene)?;
            let kill = || gate.kill(ctx, rebooter);
            waiter.meet(ctx, &scene, (first, "done"), kill, signal)?;
            gate.end(scene)?;
        }
    }
    Ok(())
}

const PRESERVE: Waiter = Waiter {
    what: "PRESERVE_FD",
    act: |scene| scene.session.preserve(&scene.file, 3).map(done),
    answer: "done",
    left: "(1, 3, 0) 0 [1, 2, 3]",
};

const PREPARE: Waiter = Waiter {
    what: "PREPARE",
    act: |scene| {
        let prepared = scene.session.prepare();
        prepared.map_err(|(errno, _)| errno).map(done)
    },
    answer: "done",
    left: "(2, 2, 0) 0 [1, 2]",
};

/// What is left where a command was not carried out.
const NOT_DONE: &str = "(1, 2, 0) 0 [1, 2]";

/// What a killed task asks of memfds with pages to look at ends with EINTR, when it has its turn.
pub fn memfds(ctx: &mut Ctx) -> Result<()> {
    const SIZE: u64 = 1 << 20;
    let gate = Gate::new(ctx)?;
    let cases: [(Signal, &[Waiter]); 2] = [
        (HANDLED, &[PRESERVE, PREPARE]),
        (
            KILLED,
            &[
                Waiter {
                    left: NOT_DONE,
                    ..PRESERVE
                },
                Waiter {
                    left: NOT_DONE,
                    ..PREPARE
                },
            ],
        ),
    ];
    for (signal, waiters) in cases {
        for waiter in waiters {
            let files = [memfd::create(SIZE)?, memfd::create(SIZE)?];
            let [first, other] = &files;
            memfd::write_at(other, 0, b"to be looked at")?;
            let scene = gate.scene(first, other.try_clone()?)?;
            // What refuses the kexec, should it come to this.
            let last = gate.device.create_session("last")?;
            last.preserve(&gate.recorder.open(Kind::B, 9)?, 9)?;
            memfd::write_at(first, 0, b"come since")?;
            let (preserving, rebooter) = gate.close(ctx, &scene)?;
            let kill = || gate.kill(ctx, rebooter);
            waiter.meet(ctx, &scene, (preserving, "done"), kill, signal)?;
            if signal == KILLED {
                // Once more it is done.
                (waiter.act)(&scene).with_context(|| format!("{} again", waiter.what))?;
            }
            drop(last);
            gate.end(scene)?;
            for file in &files {
                memfd::truncate(file, 0).context("truncating what was let go")?;
            }
        }
    }
    Ok(())
}

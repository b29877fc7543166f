// SPDX-License-Identifier: GPL-2.0

//! Commands of this kernel's sessions that wait while a file is preserved.

use super::{command, done, ends, preserve_held, send, Scene, Waiter, BOTH, HANDLED};
use crate::cases::common::errno_of;
use crate::cases::common::luo::Device;
use crate::cases::common::modules::{text_of, Kind, Recorder};
use crate::cases::races::Doer;
use crate::ctx::Ctx;
use anyhow::{ensure, Context, Result};
use nix::errno::Errno;
use std::fs::File;

/// Commands of a session with the files 1 and 2.
pub const OUTGOING: &[Waiter] = &[
    Waiter {
        what: "PRESERVE_FD",
        act: |scene| scene.session.preserve(&scene.file, 3).map(done),
        answer: "done",
        left: "(1, 3, 0) 0 [1, 2, 3]",
    },
    Waiter {
        what: "PRESERVE_FD of a token that there is",
        act: |scene| scene.session.preserve(&scene.file, 2).map(done),
        answer: "EEXIST",
        left: "(1, 2, 0) 0 [1, 2]",
    },
    Waiter {
        what: "UNPRESERVE_FD",
        act: |scene| scene.session.unpreserve(1).map(done),
        answer: "done",
        left: "(1, 1, 0) 0 [2]",
    },
    Waiter {
        what: "PREPARE",
        act: |scene| {
            let prepared = scene.session.prepare();
            prepared.map_err(|(errno, _)| errno).map(done)
        },
        answer: "done",
        left: "(2, 2, 0) 0 [1, 2]",
    },
    Waiter {
        what: "CANCEL",
        act: |scene| scene.session.cancel().map(done),
        answer: "done",
        left: "(1, 2, 0) 0 [1, 2]",
    },
    Waiter {
        what: "SET_FLAGS",
        act: |scene| scene.session.set_flags(1).map(done),
        answer: "done",
        left: "(1, 2, 0) 1 [1, 2]",
    },
];

/// Those that wait for another command of the session, but not for a kexec.
pub const GETTERS: &[Waiter] = &[
    Waiter {
        what: "GET_STATE",
        act: |scene| scene.session.state().map(|state| format!("{state:?}")),
        answer: "(1, 2, 0)",
        left: "(1, 2, 0) 0 [1, 2]",
    },
    Waiter {
        what: "LIST_FDS",
        act: |scene| scene.session.tokens().map(|tokens| format!("{tokens:?}")),
        answer: "[1, 2]",
        left: "(1, 2, 0) 0 [1, 2]",
    },
];

/// Of a session that has no file yet.
pub const ELSEWHERE: Waiter = Waiter {
    what: "PRESERVE_FD in another session",
    act: |scene| scene.session.preserve(&scene.file, 3).map(done),
    answer: "done",
    left: "(1, 1, 0) 0 [3]",
};

pub fn behind_preserve(ctx: &mut Ctx) -> Result<()> {
    let recorder = Recorder::new(ctx)?;
    let device = Device::open()?;
    for waiter in OUTGOING.iter().chain(GETTERS) {
        for signal in BOTH {
            let scene = Scene {
                device: &device,
                // That its name is free tells that nobody has the one before.
                session: device.create_session("slow")?,
                file: recorder.open(Kind::B, 3)?,
            };
            scene.session.preserve(&recorder.open(Kind::B, 1)?, 1)?;
            let callback = ("preserve", "preserve a2");
            let first = preserve_held(ctx, &recorder, &scene.session, 2, callback)?;
            let open = || recorder.open_gate();
            waiter.meet(ctx, &scene, (first, "done"), open, signal)?;
            drop(scene);
            ensure!(recorder.live()? == 0, "{}, {signal:?}", waiter.what);
        }
    }
    // The other way round: the first one is killed, and the second takes its turn.
    let session = device.create_session("slow")?;
    let callback = ("preserve", "preserve a2");
    let first = preserve_held(ctx, &recorder, &session, 2, callback)?;
    let file = recorder.open(Kind::B, 2)?;
    let second = command(|| session.preserve(&file, 2).map(done))?;
    send(ctx, HANDLED, &second)?;
    first.0.kill()?;
    ends(second, HANDLED, "done")?;
    ensure!(session.tokens()? == [2], "the second's file");
    drop((session, file));
    ensure!(recorder.live()? == 0);
    recorder.remove()
}

/// Files of two sessions depend on the same FLB, which takes its time to come and to go.
pub fn behind_flb(ctx: &mut Ctx) -> Result<()> {
    let recorder = Recorder::new(ctx)?;
    let device = Device::open()?;
    for signal in BOTH {
        let slow = device.create_session("slow")?;
        let scene = Scene {
            device: &device,
            session: device.create_session("other")?,
            file: recorder.open(Kind::B, 3)?,
        };
        recorder.take()?;
        let callback = ("x.preserve", "x.preserve");
        let first = preserve_held(ctx, &recorder, &slow, 1, callback)?;
        let open = || recorder.open_gate();
        ELSEWHERE.meet(ctx, &scene, (first, "done"), open, signal)?;
        let record = recorder.take()?;
        let made = record.iter().filter(|line| *line == "x.preserve").count();
        ensure!(made == 1, "x was made {made} times: {record:?}");
        scene.session.unpreserve(3)?;

        // The last file goes, and the FLB with it.
        recorder.hold("x.unpreserve", 1)?;
        let first = command(|| slow.unpreserve(1).map(done))?;
        recorder.wait_for(ctx, "x.unpreserve")?;
        ELSEWHERE.meet(ctx, &scene, (first, "done"), open, signal)?;
        recorder.expect(
            "x is made anew",
            "unpreserve b3, unpreserve a1, y.unpreserve, x.unpreserve, x.preserve, preserve b3",
        )?;
        drop((slow, scene));
        ensure!(recorder.live()? == 0, "{signal:?}");
    }
    drop(device);
    recorder.remove()
}

/// Fails unless all who ask for FLB x are answered so, and all who look at it see so many files, when `first` is done, for
/// which they wait.
fn asked_for(
    ctx: &Ctx,
    recorder: &Recorder,
    first: impl FnOnce() -> Result<Doer>,
    answer: impl FnOnce() -> String,
    files: usize,
) -> Result<()> {
    // Should anything fail, the first one is ended before these: they wait for it.
    let mut waiters = Vec::new();
    let first = first()?;
    let ask = || recorder.value("outgoing").map(|value| value.to_string());
    for signal in BOTH {
        waiters.push((signal, command(ask)?, command(flb_in_debugfs)?));
    }
    for (signal, asker, looker) in &waiters {
        send(ctx, *signal, asker)?;
        send(ctx, *signal, looker)?;
    }
    send(ctx, HANDLED, &first)?;
    recorder.open_gate()?;
    ends(first, HANDLED, "done").context("the one before them")?;
    let (answer, shown) = (answer(), format!("outgoing {files} incoming 0"));
    for (signal, asker, looker) in waiters {
        ends(asker, signal, &answer).with_context(|| format!("get_outgoing, {signal:?}"))?;
        ends(looker, signal, &shown).with_context(|| format!("debugfs, {signal:?}"))?;
    }
    Ok(())
}

/// What the file "flbs" of luo.ko says of FLB x, in one read.
fn flb_in_debugfs() -> Result<String, Errno> {
    let read = || text_of(&File::open("/sys/kernel/debug/luo/flbs")?);
    let text = read().map_err(|err| errno_of(&err).unwrap_or(Errno::EBADMSG))?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("[luo-recorder-x-v1] "));
    line.map(String::from).ok_or(Errno::ENOENT)
}

/// A driver asks for an FLB that is just coming or going, and somebody looks at it in debugfs.
pub fn flb_asked_for(ctx: &mut Ctx) -> Result<()> {
    let recorder = Recorder::new(ctx)?;
    let session = Device::open()?.create_session("slow")?;
    let value = || match recorder.value("outgoing") {
        Ok(value) => value.to_string(),
        Err(errno) => format!("{errno:?}"),
    };
    let comes = || preserve_held(ctx, &recorder, &session, 1, ("x.preserve", "x.preserve"));
    asked_for(ctx, &recorder, comes, value, 1).context("it comes")?;
    ensure!(value() != "ENOENT", "it is gone again");
    recorder.expect("it has come", "x.preserve, y.preserve, preserve a1")?;
    let goes = || {
        recorder.hold("x.unpreserve", 1)?;
        let doer = command(|| session.unpreserve(1).map(done))?;
        recorder.wait_for(ctx, "x.unpreserve")?;
        Ok(doer)
    };
    asked_for(ctx, &recorder, goes, || "ENOENT".into(), 0).context("it goes")?;
    recorder.expect("it has gone", "unpreserve a1, y.unpreserve, x.unpreserve")?;
    ensure!(recorder.live()? == 0);
    drop(session);
    recorder.remove()
}

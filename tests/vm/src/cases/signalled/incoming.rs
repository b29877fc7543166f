// SPDX-License-Identifier: GPL-2.0

//! Commands of the previous kernel's sessions that wait while a file is retrieved, or the session is finished.

use super::{command, done, ends, send, Scene, Waiter, BOTH, HANDLED};
use crate::cases::common::luo::Device;
use crate::cases::common::modules::{Kind, Recorder};
use crate::cases::common::refused;
use crate::ctx::Ctx;
use anyhow::{ensure, Context, Result};
use nix::errno::Errno;

/// The value of FLB x: that of the first FLB that the recorder makes.
const VALUE: &str = "100";
/// So many, more than any case needs.
const SESSIONS: usize = 16;

/// Sessions for every case of the next kernel.
pub fn hand_on(ctx: &mut Ctx) -> Result<()> {
    let recorder = Recorder::new(ctx)?;
    let device = Device::open()?;
    for number in 0..SESSIONS {
        let session = device.create_session(&number.to_string())?;
        session.preserve(&recorder.open(Kind::A, 1)?, 1)?;
        session.preserve(&recorder.open(Kind::B, 2)?, 2)?;
        ctx.keep(session);
    }
    ctx.keep(recorder);
    Ok(())
}

/// A session of the previous kernel.
pub fn incoming<'a>(device: &'a Device, recorder: &Recorder, number: usize) -> Result<Scene<'a>> {
    Ok(Scene {
        device,
        session: device.retrieve_session(&number.to_string())?,
        file: recorder.open(Kind::B, 3)?,
    })
}

/// Finishes the sessions that were not used. Those that were are gone, and their names with them.
pub fn finish_all(device: Device, recorder: Recorder, used: usize) -> Result<()> {
    for number in 0..SESSIONS {
        let session = device.retrieve_session(&number.to_string());
        if number < used {
            refused("one that was used", session, Errno::ENOENT)?;
        }
    }
    let live = recorder.live()?;
    ensure!(live == 0, "{live} pages are left");
    drop(device);
    recorder.remove()
}

/// Commands that wait for RETRIEVE_FD of the first file.
const INCOMING: &[Waiter] = &[
    Waiter {
        what: "RETRIEVE_FD of the same token",
        act: |scene| scene.session.retrieve(1).map(drop).map(done),
        answer: "done",
        left: "(4, 2, 1) 0 [1, 2]",
    },
    Waiter {
        what: "RETRIEVE_FD",
        act: |scene| scene.session.retrieve(2).map(drop).map(done),
        answer: "done",
        left: "(4, 2, 2) 0 [1, 2]",
    },
    Waiter {
        what: "SET_FLAGS",
        act: |scene| scene.session.set_flags(1).map(done),
        answer: "done",
        left: "(4, 2, 1) 1 [1, 2]",
    },
    Waiter {
        what: "GET_STATE",
        act: |scene| scene.session.state().map(|state| format!("{state:?}")),
        answer: "(4, 2, 1)",
        left: "(4, 2, 1) 0 [1, 2]",
    },
    Waiter {
        what: "LIST_FDS",
        act: |scene| scene.session.tokens().map(|tokens| format!("{tokens:?}")),
        answer: "[1, 2]",
        left: "(4, 2, 1) 0 [1, 2]",
    },
    Waiter {
        what: "FINISH",
        act: |scene| scene.session.finish().map(done),
        answer: "done",
        left: "(4, 0, 0) 0 []",
    },
];

pub fn behind_retrieve(ctx: &mut Ctx) -> Result<()> {
    let recorder = Recorder::new(ctx)?;
    let device = Device::open()?;
    let mut number = 0;
    let mut held = || -> Result<_> {
        let scene = incoming(&device, &recorder, number)?;
        number += 1;
        recorder.hold("retrieve", 1)?;
        let first = command(|| scene.session.retrieve(1).map(drop).map(done))?;
        recorder.wait_for(ctx, "retrieve a1")?;
        Ok((scene, first))
    };
    for waiter in INCOMING {
        for signal in BOTH {
            let (scene, first) = held()?;
            let open = || recorder.open_gate();
            waiter.meet(ctx, &scene, (first, "done"), open, signal)?;
        }
    }
    // The first one is killed: its handler's answer is final, and the second's, too.
    let (scene, first) = held()?;
    let second = command(|| scene.session.retrieve(1).map(drop).map(done))?;
    send(ctx, HANDLED, &second)?;
    first.0.kill()?;
    ends(second, HANDLED, "EINTR")?;
    drop(scene);
    finish_all(device, recorder, number)
}

/// Commands that wait for FINISH.
const FINISHING: &[(&str, &str, Waiter)] = &[
    ("finish", "finish b2 0", FINISH),
    ("can_finish", "can_finish a1 0", FINISH),
    (
        "can_finish",
        "can_finish a1 0",
        Waiter {
            what: "RETRIEVE_FD",
            act: |scene| scene.session.retrieve(1).map(drop).map(done),
            answer: "ENOENT",
            left: "(4, 0, 0) 0 []",
        },
    ),
    (
        "can_finish",
        "can_finish a1 0",
        Waiter {
            what: "GET_STATE",
            act: |scene| scene.session.state().map(|state| format!("{state:?}")),
            answer: "(4, 0, 0)",
            left: "(4, 0, 0) 0 []",
        },
    ),
];

pub const FINISH: Waiter = Waiter {
    what: "FINISH",
    act: |scene| scene.session.finish().map(done),
    answer: "done",
    left: "(4, 0, 0) 0 []",
};

pub fn behind_finish(ctx: &mut Ctx) -> Result<()> {
    let recorder = Recorder::new(ctx)?;
    let device = Device::open()?;
    let mut number = 0;
    let mut held = |callback: &str, line: &str| -> Result<_> {
        let scene = incoming(&device, &recorder, number)?;
        number += 1;
        recorder.take()?;
        recorder.hold(callback, 1)?;
        let first = command(|| scene.session.finish().map(done))?;
        recorder.wait_for(ctx, line)?;
        Ok((scene, first))
    };
    for (callback, line, waiter) in FINISHING {
        for signal in BOTH {
            let (scene, first) = held(callback, line)?;
            let open = || recorder.open_gate();
            waiter.meet(ctx, &scene, (first, "done"), open, signal)?;
            let record = recorder.take()?;
            let finished = record.iter().filter(|line| line.starts_with("finish"));
            ensure!(finished.count() == 2, "{}: {record:?}", waiter.what);
        }
    }
    // The first one is killed, by which a file of it refuses; the second does it all.
    let (scene, first) = held("can_finish", "can_finish a1 0")?;
    let second = command(|| scene.session.finish().map(done))?;
    send(ctx, HANDLED, &second)?;
    first.0.kill()?;
    ends(second, HANDLED, "done")?;
    recorder.expect(
        "one after the other",
        "can_finish a1 0, can_finish a1 0, can_finish b2 0, finish b2 0, finish a1 0",
    )?;
    drop(scene);
    finish_all(device, recorder, number)
}

/// An FLB takes its time to be made: who asks for it waits, and who finishes a file that depends on it.
pub fn behind_flb(ctx: &mut Ctx) -> Result<()> {
    let recorder = Recorder::new(ctx)?;
    let device = Device::open()?;
    let ask = |flb: &'static str| command(|| recorder.value(flb).map(|value| value.to_string()));
    recorder.hold("x.retrieve", 1)?;
    let first = ask("incoming")?;
    recorder.wait_for(ctx, "x.retrieve")?;
    let (mut scenes, mut waiters) = (Vec::new(), Vec::new());
    for (number, signal) in BOTH.into_iter().enumerate() {
        let scene = incoming(&device, &recorder, number)?;
        let asker = ask("incoming")?;
        send(ctx, signal, &asker)?;
        waiters.push((asker, signal, VALUE));
        let finisher = command(|| scene.session.finish().map(done))?;
        send(ctx, signal, &finisher)?;
        waiters.push((finisher, signal, "done"));
        scenes.push(scene);
    }
    // Who only looks at a session waits for none of them.
    for scene in &scenes {
        let told = command(|| scene.told().map_err(|_| Errno::EIO))?;
        told.says("what there is", "(4, 0, 0) 0 [], signals: 0")?;
    }
    send(ctx, HANDLED, &first)?;
    recorder.open_gate()?;
    ends(first, HANDLED, VALUE).context("who asked first")?;
    for (waiter, signal, answer) in waiters {
        ends(waiter, signal, answer).with_context(|| format!("{answer}, {signal:?}"))?;
    }
    let record = recorder.take()?;
    let made = record.iter().filter(|line| *line == "x.retrieve").count();
    ensure!(made == 1, "x was made {made} times: {record:?}");
    let finished = record.iter().filter(|line| line.starts_with("finish"));
    ensure!(finished.count() == 2 * scenes.len(), "{record:?}");

    // The first one is killed: its handler's answer is final, and the second's, too.
    recorder.hold("y.retrieve", 1)?;
    let first = ask("incoming-y")?;
    recorder.wait_for(ctx, "y.retrieve")?;
    let second = ask("incoming-y")?;
    send(ctx, HANDLED, &second)?;
    first.0.kill()?;
    ends(second, HANDLED, "EINTR")?;
    refused("y", recorder.value("incoming-y"), Errno::EINTR)?;
    recorder.expect("it was not made again", "y.retrieve")?;
    let used = scenes.len();
    drop(scenes);
    finish_all(device, recorder, used)
}

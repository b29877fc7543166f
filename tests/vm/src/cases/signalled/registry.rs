// SPDX-License-Identifier: GPL-2.0

//! Commands that look for a handler, while a driver takes its time to say whether a file is one of its own: it is asked
//! with all handlers locked.

use super::incoming::{finish_all, incoming, FINISH};
use super::outgoing::ELSEWHERE;
use super::{command, done, ends, send, Scene, Waiter, BOTH, HANDLED};
use crate::cases::common::luo::Device;
use crate::cases::common::modules::{Kind, Recorder};
use crate::cases::common::refused;
use crate::cases::races::Doer;
use crate::ctx::Ctx;
use anyhow::{ensure, Context, Result};
use nix::errno::Errno;

const RETRIEVE: Waiter = Waiter {
    what: "RETRIEVE_FD",
    act: |scene| scene.session.retrieve(1).map(drop).map(done),
    answer: "done",
    left: "(4, 2, 1) 0 [1, 2]",
};

/// What there is in the record in the end, and how often: nothing was done twice.
const DONE: [(&str, usize); 7] = [
    ("x.retrieve", 1),
    ("can_preserve asks x 0", 3),
    ("preserve a1", 1),
    ("preserve b3", 2),
    ("retrieve a1", 2),
    ("finish a1 0", 2),
    // When those are closed that it was retrieved from.
    ("finish a1 1", 2),
];

pub fn behind_can_preserve(ctx: &mut Ctx) -> Result<()> {
    let recorder = Recorder::new(ctx)?;
    let device = Device::open()?;
    let slow = device.create_session("slow")?;
    let file = recorder.open(Kind::A, 1)?;
    let mut number = 0;
    let mut next = || {
        number += 1;
        incoming(&device, &recorder, number - 1)
    };
    // The driver asks for an FLB, which is made of what was handed over.
    let held = |flb: &str| -> Result<Doer> {
        let line = format!("{flb}.retrieve");
        recorder.ask("can_preserve", flb)?;
        recorder.hold(&line, 1)?;
        let first = command(|| slow.preserve(&file, 1).map(done))?;
        recorder.wait_for(ctx, &line)?;
        Ok(first)
    };

    // Should anything fail, the first one is ended before these: they wait for it.
    let mut waiting = Vec::new();
    let first = held("x")?;
    for signal in BOTH {
        let other = Scene {
            device: &device,
            session: device.create_session(&format!("{signal:?}"))?,
            file: recorder.open(Kind::B, 3)?,
        };
        for (waiter, scene) in [(ELSEWHERE, other), (RETRIEVE, next()?), (FINISH, next()?)] {
            let doer = command(|| (waiter.act)(&scene))?;
            waiting.push((waiter, scene, doer, signal));
        }
    }
    for (_, _, doer, signal) in &waiting {
        send(ctx, *signal, doer)?;
    }
    send(ctx, HANDLED, &first)?;
    recorder.open_gate()?;
    ends(first, HANDLED, "done").context("who asked first")?;
    for (waiter, scene, doer, signal) in waiting {
        let done = waiter.is_done(&scene, doer, signal);
        done.with_context(|| format!("{}, {signal:?}", waiter.what))?;
    }
    let record = recorder.take()?;
    for (line, wanted) in DONE {
        let times = record.iter().filter(|it| *it == line).count();
        ensure!(times == wanted, "{times} times {line}: {record:?}");
    }

    // The first one is killed: that ends the driver's wait, and the second takes its turn.
    slow.unpreserve(1)?;
    let first = held("y")?;
    let scene = next()?;
    let second = command(|| (RETRIEVE.act)(&scene))?;
    // Should anything fail, this one is ended first.
    let first = first;
    send(ctx, HANDLED, &second)?;
    first.0.kill()?;
    RETRIEVE.is_done(&scene, second, HANDLED)?;
    refused("y", recorder.value("incoming-y"), Errno::EINTR)?;
    ensure!(slow.tokens()? == [1], "the driver has said yes");
    drop((scene, slow, file));
    finish_all(device, recorder, number)
}

// SPDX-License-Identifier: GPL-2.0

//! The exact sequence of callbacks, when all goes well and when any of them fails.

use super::common::luo::{Device, Session};
use super::common::modules::{id_of, Kind, Recorder};
use super::common::refused;
use crate::ctx::Ctx;
use crate::kexec;
use crate::process::Child;
use crate::test::{Config, Test};
use anyhow::{ensure, Context, Result};
use nix::errno::Errno;

/// The cases.
pub const TESTS: &[Test] = &[
    Test::new("preserve_fails", Config::new(), &[preserve_fails]),
    Test::new("flb_preserve_fails", Config::new(), &[flb_preserve_fails]),
    Test::new("unpreserve", Config::new(), &[unpreserve]),
    Test::new("killed", Config::new(), &[killed]),
    Test::new("freeze_fails", Config::new(), &[freeze_fails, all_there]),
    Test::new("good", Config::new(), &[hand_on, good]),
    Test::new(
        "retrieve_fails",
        Config::new().look_for_leaks(),
        &[hand_on, retrieve_fails],
    ),
    Test::new("finds_nothing", Config::new(), &[hand_on, finds_nothing]),
    Test::new(
        "can_finish_refuses",
        Config::new(),
        &[hand_on, can_finish_refuses],
    ),
    Test::new(
        "killed_after_retrieve",
        Config::new(),
        &[hand_on, killed_after_retrieve],
    ),
    Test::new("ordered", Config::new(), &[hand_on, ordered]),
    Test::new(
        "ordered_no_more",
        Config::new(),
        &[hand_on, ordered_no_more],
    ),
];

/// Four files in two sessions, with one number for id and token.
const FILES: [(usize, Kind, u64); 4] = [
    (0, Kind::A, 1),
    (0, Kind::B, 2),
    (1, Kind::A, 3),
    (1, Kind::B, 4),
];
const NAMES: [&str; 2] = ["first", "second"];

fn put(recorder: &Recorder, session: &Session, kind: Kind, id: u64) -> Result<(), Errno> {
    let file = recorder.open(kind, id).map_err(|_| Errno::EIO)?;
    session.preserve(&file, id)
}

fn sessions(device: &Device) -> Result<[Session; 2]> {
    let [first, second] = NAMES;
    Ok([
        device.create_session(first)?,
        device.create_session(second)?,
    ])
}

/// The two sessions with all files, and an empty record.
fn filled(recorder: &Recorder) -> Result<[Session; 2]> {
    let sessions = sessions(&Device::open()?)?;
    for (i, kind, id) in FILES {
        put(recorder, &sessions[i], kind, id).with_context(|| format!("token {id}"))?;
    }
    recorder.expect(
        "PRESERVE_FD",
        "x.preserve, y.preserve, preserve a1, preserve b2, preserve a3, preserve b4",
    )?;
    Ok(sessions)
}

/// What is recorded when the sessions are closed, the first one first.
const CLOSED: &str =
    "unpreserve b2, unpreserve a1, unpreserve b4, unpreserve a3, y.unpreserve, x.unpreserve";

/// Closes all; nothing may be left.
fn close(recorder: Recorder, sessions: [Session; 2]) -> Result<()> {
    recorder.take()?;
    drop(sessions);
    recorder.expect("closing", CLOSED)?;
    leave(recorder)
}

/// Nothing is preserved any more, and the module not in use.
fn leave(recorder: Recorder) -> Result<()> {
    recorder.nothing_left()?;
    recorder.remove()
}

fn preserve_fails(ctx: &mut Ctx) -> Result<()> {
    let recorder = Recorder::new(ctx)?;
    for k in 1..=FILES.len() {
        let sessions = sessions(&Device::open()?)?;
        for errno in [Errno::EIO, Errno::ENOMEM] {
            recorder.fail("preserve", k, errno)?;
            for (n, (i, kind, id)) in FILES.into_iter().enumerate().take(k) {
                let what = format!("file {}, the {k}th fails", n + 1);
                let result = put(&recorder, &sessions[i], kind, id);
                match n + 1 == k {
                    true => refused(&what, result, errno)?,
                    false => result.context(what)?,
                }
            }
            let live = recorder.live()?;
            let wanted = if k == 1 { 0 } else { k - 1 + 2 };
            ensure!(
                live == wanted,
                "{live} pages are preserved, not {wanted}: {:?}",
                recorder.take()?
            );
            for (i, _, id) in &FILES[..k - 1] {
                sessions[*i].unpreserve(*id)?;
            }
            ensure!(recorder.live()? == 0);
        }
        // The same sessions take all of them now.
        recorder.take()?;
        for (i, kind, id) in FILES {
            put(&recorder, &sessions[i], kind, id).with_context(|| format!("token {id}"))?;
        }
        recorder.take()?;
        drop(sessions);
        recorder.expect("closing", CLOSED)?;
    }
    // The very first one: what was made for it is unmade.
    let session = Device::open()?.create_session("alone")?;
    recorder.fail("preserve", 1, Errno::EIO)?;
    let result = put(&recorder, &session, Kind::A, 1);
    refused("the first", result, Errno::EIO)?;
    recorder.expect(
        "the first",
        "x.preserve, y.preserve, preserve a1, y.unpreserve, x.unpreserve",
    )?;
    drop(session);
    leave(recorder)
}

fn flb_preserve_fails(ctx: &mut Ctx) -> Result<()> {
    let recorder = Recorder::new(ctx)?;
    let session = Device::open()?.create_session("alone")?;
    let cases = [
        ("x.preserve", "x.preserve"),
        ("y.preserve", "x.preserve, y.preserve, x.unpreserve"),
    ];
    for (callback, record) in cases {
        recorder.fail(callback, 1, Errno::ENOSPC)?;
        let result = put(&recorder, &session, Kind::A, 1);
        refused(callback, result, Errno::ENOSPC)?;
        recorder.expect(callback, record)?;
        ensure!(recorder.live()? == 0);
    }
    // With a file of the other kind there already, only y is made anew.
    put(&recorder, &session, Kind::B, 2)?;
    recorder.fail("y.preserve", 1, Errno::EIO)?;
    let result = put(&recorder, &session, Kind::A, 1);
    refused("y.preserve", result, Errno::EIO)?;
    recorder.expect("y beside x", "x.preserve, preserve b2, y.preserve")?;
    put(&recorder, &session, Kind::A, 1)?;
    recorder.expect("at last", "y.preserve, preserve a1")?;
    drop(session);
    recorder.expect(
        "closing",
        "unpreserve a1, y.unpreserve, unpreserve b2, x.unpreserve",
    )?;
    leave(recorder)
}

fn unpreserve(ctx: &mut Ctx) -> Result<()> {
    let recorder = Recorder::new(ctx)?;
    let [first, second] = filled(&recorder)?;
    first.unpreserve(1)?;
    recorder.expect("UNPRESERVE_FD", "unpreserve a1")?;
    second.unpreserve(3)?;
    recorder.expect("the last of kind a", "unpreserve a3, y.unpreserve")?;
    put(&recorder, &first, Kind::A, 1)?;
    recorder.expect("again", "y.preserve, preserve a1")?;
    drop(second);
    recorder.expect("closing the second", "unpreserve b4")?;
    // The file that was put there last is the first to go.
    drop(first);
    recorder.expect(
        "closing the first",
        "unpreserve a1, y.unpreserve, unpreserve b2, x.unpreserve",
    )?;
    leave(recorder)
}

fn killed(ctx: &mut Ctx) -> Result<()> {
    let recorder = Recorder::new(ctx)?;
    for count in 1..=FILES.len() {
        let holder = Child::holder(|| {
            let sessions = sessions(&Device::open()?)?;
            for (i, kind, id) in &FILES[..count] {
                put(&recorder, &sessions[*i], *kind, *id)?;
            }
            Ok(sessions)
        })?;
        recorder.take()?;
        holder.kill()?;
        let record = recorder.take()?;
        let gone = record.iter().filter(|line| line.starts_with("unpreserve "));
        ensure!(gone.count() == count, "{record:?}");
        ensure!(record.last().is_some_and(|line| line == "x.unpreserve"));
        ensure!(recorder.live()? == 0);
    }
    close_after_use(recorder)
}

/// After whatever happened, the same can be done as ever.
fn close_after_use(recorder: Recorder) -> Result<()> {
    let sessions = filled(&recorder)?;
    close(recorder, sessions)
}

fn freeze_fails(ctx: &mut Ctx) -> Result<()> {
    let recorder = Recorder::new(ctx)?;
    let sessions = filled(&recorder)?;
    let all = ["a1", "b2", "a3", "b4"];
    ctx.kexec_load()?;
    for (k, errno) in (1..=FILES.len()).zip([Errno::EIO, Errno::EBUSY, Errno::ENOMEM, Errno::EPERM])
    {
        for prepared in [false, true] {
            if prepared {
                sessions[1].prepare().map_err(|(errno, _)| errno)?;
            }
            recorder.fail("freeze", k, errno)?;
            let said = kexec::execute();
            ensure!(said == errno, "reboot() says {said:?} instead of {errno:?}");
            let frozen = all[..k].iter().map(|file| format!("freeze {file}"));
            let back = all[..k - 1].iter().rev();
            let thawed = back.map(|file| format!("unfreeze {file}"));
            let wanted = frozen.chain(thawed).collect::<Vec<_>>().join(", ");
            recorder.expect(&format!("the {k}th refuses"), &wanted)?;
            ensure!(sessions[1].state()?.0 == if prepared { 2 } else { 1 });
            sessions[1].cancel()?;
            // All works as before.
            for session in &sessions {
                put(&recorder, session, Kind::B, 9)?;
                session.unpreserve(9)?;
            }
            recorder.take()?;
            ensure!(recorder.live()? == FILES.len() + 2);
        }
    }
    // Without the file that refuses, or with it once it does not, the kexec takes place.
    ctx.keep((recorder, sessions));
    Ok(())
}

fn all_there(ctx: &mut Ctx) -> Result<()> {
    let recorder = Recorder::new(ctx)?;
    let device = Device::open()?;
    for (i, name) in NAMES.into_iter().enumerate() {
        let session = device.retrieve_session(name)?;
        for (_, _, id) in FILES.iter().filter(|(at, _, _)| *at == i) {
            ensure!(id_of(&session.retrieve(*id)?)? == *id);
        }
        session.finish()?;
    }
    leave(recorder)
}

fn hand_on(ctx: &mut Ctx) -> Result<()> {
    let recorder = Recorder::new(ctx)?;
    let sessions = filled(&recorder)?;
    ctx.keep((recorder, sessions));
    Ok(())
}

fn good(ctx: &mut Ctx) -> Result<()> {
    let recorder = Recorder::new(ctx)?;
    let device = Device::open()?;
    let second = device.retrieve_session(NAMES[1])?;
    recorder.expect("RETRIEVE_SESSION", "")?;
    for id in [4, 3] {
        ensure!(id_of(&second.retrieve(id)?)? == id);
    }
    second.retrieve(4).context("a second time")?;
    recorder.expect("RETRIEVE_FD", "retrieve b4, retrieve a3")?;
    second.finish()?;
    recorder.expect(
        "FINISH",
        "can_finish a3 1, can_finish b4 1, finish b4 1, finish a3 1",
    )?;
    second.finish().context("FINISH a second time")?;
    drop(second);
    recorder.expect("closing it", "")?;
    // The first one is never retrieved from, only closed; its files are the last.
    drop(device.retrieve_session(NAMES[0])?);
    recorder.expect(
        "closing",
        "can_finish a1 0, can_finish b2 0, finish b2 0, finish a1 0, \
         y.retrieve, y.finish, x.retrieve, x.finish",
    )?;
    leave(recorder)
}

fn retrieve_fails(ctx: &mut Ctx) -> Result<()> {
    let recorder = Recorder::new(ctx)?;
    let device = Device::open()?;
    let first = device.retrieve_session(NAMES[0])?;
    let second = device.retrieve_session(NAMES[1])?;
    recorder.fail("retrieve", 1, Errno::EIO)?;
    refused("it fails", first.retrieve(1), Errno::EIO)?;
    refused("and is final", first.retrieve(1), Errno::EIO)?;
    recorder.expect("only called once", "retrieve a1")?;
    first.retrieve(2).context("another of the session")?;
    recorder.fail("retrieve", 2, Errno::ENOMEM)?;
    second.retrieve(4)?;
    refused("the next", second.retrieve(3), Errno::ENOMEM)?;
    recorder.take()?;
    first.finish()?;
    recorder.expect(
        "FINISH",
        "can_finish a1 -5, can_finish b2 1, finish b2 1, finish a1 -5",
    )?;
    drop(second);
    recorder.expect(
        "closing",
        "can_finish a3 -12, can_finish b4 1, finish b4 1, finish a3 -12, \
         y.retrieve, y.finish, x.retrieve, x.finish",
    )?;
    leave(recorder)
}

/// A handler's own ENOENT is not the one for want of a handler, for which the advice would be to load it.
fn finds_nothing(ctx: &mut Ctx) -> Result<()> {
    let recorder = Recorder::new(ctx)?;
    let session = Device::open()?.retrieve_session(NAMES[0])?;
    recorder.fail("retrieve", 1, Errno::ENOENT)?;
    for _ in 0..2 {
        refused("it finds nothing", session.retrieve(1), Errno::ENOENT)?;
    }
    ctx.log().expect("there is no second try")?;
    recorder.expect("only called once", "retrieve a1")?;
    session.finish()?;
    drop(session);
    leave(recorder)
}

fn can_finish_refuses(ctx: &mut Ctx) -> Result<()> {
    let recorder = Recorder::new(ctx)?;
    let device = Device::open()?;
    let mut session = device.retrieve_session(NAMES[0])?;
    session.retrieve(1)?;
    recorder.take()?;
    for round in 0..2 {
        recorder.fail("can_finish", 1, Errno::EBUSY)?;
        refused("the first", session.finish(), Errno::EBUSY)?;
        recorder.expect("the first", "can_finish a1 1")?;
        recorder.fail("can_finish", 2, Errno::EBUSY)?;
        refused("the last", session.finish(), Errno::EBUSY)?;
        recorder.expect("the last", "can_finish a1 1, can_finish b2 0")?;
        session.retrieve(1).context("nothing was finished")?;
        if round == 0 {
            // Closing it is no other: it is there to be retrieved again.
            recorder.fail("can_finish", 2, Errno::EBUSY)?;
            drop(session);
            recorder.expect("closing", "can_finish a1 1, can_finish b2 0")?;
            session = device.retrieve_session(NAMES[0])?;
        }
    }
    session.retrieve(2)?;
    recorder.expect("retrieved after a refusal", "retrieve b2")?;
    session.finish()?;
    recorder.expect(
        "FINISH",
        "can_finish a1 1, can_finish b2 1, finish b2 1, finish a1 1",
    )?;
    drop(device.retrieve_session(NAMES[1])?);
    leave(recorder)
}

fn killed_after_retrieve(ctx: &mut Ctx) -> Result<()> {
    let recorder = Recorder::new(ctx)?;
    let holder = Child::holder(|| {
        let device = Device::open()?;
        let session = device.retrieve_session(NAMES[0])?;
        let file = session.retrieve(2)?;
        Ok((session, file))
    })?;
    recorder.take()?;
    holder.kill()?;
    recorder.expect(
        "killed",
        "can_finish a1 0, can_finish b2 1, finish b2 1, finish a1 0",
    )?;
    let device = Device::open()?;
    let again = device.retrieve_session(NAMES[0]);
    refused("it is finished", again, Errno::ENOENT)?;
    drop(device.retrieve_session(NAMES[1])?);
    leave(recorder)
}

fn ordered(ctx: &mut Ctx) -> Result<()> {
    let recorder = Recorder::new(ctx)?;
    let device = Device::open()?;
    let session = device.retrieve_session(NAMES[0])?;
    session.set_flags(1)?;
    refused("not its turn", session.retrieve(2), Errno::EBUSY)?;
    recorder.expect("the handler is not asked", "")?;
    // One that could not be made does not keep the others from their turn.
    recorder.fail("retrieve", 1, Errno::EIO)?;
    refused("it fails", session.retrieve(1), Errno::EIO)?;
    session.retrieve(2)?;
    recorder.expect("the turn of the next", "retrieve a1, retrieve b2")?;
    session.finish()?;
    drop((session, device.retrieve_session(NAMES[1])?));
    leave(recorder)
}

/// Who retrieves a session again has not asked for an order.
fn ordered_no_more(ctx: &mut Ctx) -> Result<()> {
    let recorder = Recorder::new(ctx)?;
    let device = Device::open()?;
    let session = device.retrieve_session(NAMES[0])?;
    session.set_flags(1)?;
    recorder.fail("can_finish", 1, Errno::EBUSY)?;
    drop(session);
    let session = device.retrieve_session(NAMES[0])?;
    session.retrieve(2).context("in any order")?;
    session.finish()?;
    drop((session, device.retrieve_session(NAMES[1])?));
    leave(recorder)
}

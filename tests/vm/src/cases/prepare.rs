// SPDX-License-Identifier: GPL-2.0

//! PREPARE, and the other callbacks of a handler in Rust: the exact sequence, when all goes well and when any of them
//! fails at any position.

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
    Test::new("sequence", Config::new(), &[sequence]),
    Test::new("each_fails", Config::new(), &[each_fails]),
    Test::new("preserve_fails", Config::new(), &[preserve_fails]),
    Test::new("killed", Config::new(), &[killed]),
    Test::new("handed_over", Config::new(), &[kexec_refused, handed_over]),
];

const FILES: [u64; 4] = [1, 2, 3, 4];

fn put(recorder: &Recorder, session: &Session, id: u64) -> Result<(), Errno> {
    let file = recorder.open(Kind::C, id).map_err(|_| Errno::EIO)?;
    session.preserve(&file, id)
}

fn prepare(session: &Session) -> Result<(), Errno> {
    session.prepare().map_err(|(errno, _)| errno)
}

/// The record of one callback for these files.
fn each(callback: &str, ids: &[u64]) -> String {
    let lines = ids.iter().map(|id| format!("{callback} c{id}"));
    lines.collect::<Vec<_>>().join(", ")
}

/// The same in reverse order.
fn each_rev(callback: &str, ids: &[u64]) -> String {
    let ids: Vec<_> = ids.iter().rev().copied().collect();
    each(callback, &ids)
}

/// A session with these files, and an empty record.
fn filled(recorder: &Recorder, name: &str, ids: &[u64]) -> Result<Session> {
    let session = Device::open()?.create_session(name)?;
    for &id in ids {
        put(recorder, &session, id).with_context(|| format!("token {id}"))?;
    }
    recorder.take()?;
    Ok(session)
}

fn close(recorder: Recorder, session: Session, ids: &[u64]) -> Result<()> {
    recorder.take()?;
    drop(session);
    let wanted = each_rev("unpreserve", ids) + ", z.unpreserve";
    recorder.expect("closing", &wanted)?;
    recorder.nothing_left()?;
    recorder.remove()
}

fn sequence(ctx: &mut Ctx) -> Result<()> {
    let recorder = Recorder::with_rust(ctx)?;
    let device = Device::open()?;
    let (first, second) = (
        device.create_session("first")?,
        device.create_session("second")?,
    );
    for (session, id) in [(&first, 1), (&first, 2), (&second, 3), (&second, 4)] {
        put(&recorder, session, id)?;
    }
    let wanted = "z.preserve, ".to_string() + &each("preserve", &FILES);
    recorder.expect("PRESERVE_FD", &wanted)?;
    for _ in 0..2 {
        prepare(&first)?;
        recorder.expect("PREPARE of the first", "prepare c1, prepare c2")?;
    }
    prepare(&second)?;
    recorder.expect("PREPARE of the second", "prepare c3, prepare c4")?;
    refused("PRESERVE_FD", put(&recorder, &first, 9), Errno::EBUSY)?;
    refused("UNPRESERVE_FD", first.unpreserve(2), Errno::EBUSY)?;
    first.cancel()?;
    recorder.expect("CANCEL", "")?;
    first.unpreserve(1)?;
    recorder.expect("UNPRESERVE_FD", "unpreserve c1")?;
    drop(first);
    recorder.expect("closing the first", "unpreserve c2")?;
    // One that is prepared closes as any other.
    close(recorder, second, &[3, 4])
}

fn each_fails(ctx: &mut Ctx) -> Result<()> {
    let recorder = Recorder::with_rust(ctx)?;
    let session = filled(&recorder, "each", &FILES)?;
    for (k, errno) in (1..=4).zip([Errno::EIO, Errno::EBUSY, Errno::ENOMEM, Errno::EAGAIN]) {
        recorder.fail("prepare", k, errno)?;
        let result = session.prepare();
        ensure!(result == Err((errno, k as u64)), "the {k}th: {result:?}");
        recorder.expect(&format!("the {k}th"), &each("prepare", &FILES[..k]))?;
        ensure!(session.state()? == (1, 4, 0), "{:?}", session.state());
        // The set of files is not closed for changes; and without the failure it can be.
        put(&recorder, &session, 9)?;
        session.unpreserve(9)?;
        recorder.take()?;
        prepare(&session)?;
        recorder.expect("after it", &each("prepare", &FILES))?;
        // One that was prepared before is so still when it is checked again and fails.
        recorder.fail("prepare", k, errno)?;
        let result = session.prepare();
        ensure!(result == Err((errno, k as u64)), "the {k}th: {result:?}");
        ensure!(session.state()?.0 == 2, "{:?}", session.state());
        session.cancel()?;
        recorder.take()?;
    }
    close(recorder, session, &FILES)
}

fn preserve_fails(ctx: &mut Ctx) -> Result<()> {
    let recorder = Recorder::with_rust(ctx)?;
    let session = Device::open()?.create_session("fails")?;
    recorder.fail("z.preserve", 1, Errno::ENOSPC)?;
    let result = put(&recorder, &session, 1);
    refused("the FLB", result, Errno::ENOSPC)?;
    recorder.expect("the FLB", "z.preserve")?;
    for k in 1..=FILES.len() {
        recorder.fail("preserve", k, Errno::EIO)?;
        for id in &FILES[..k - 1] {
            put(&recorder, &session, *id)?;
        }
        recorder.take()?;
        let result = put(&recorder, &session, FILES[k - 1]);
        refused("the file", result, Errno::EIO)?;
        let wanted = match k {
            1 => "z.preserve, preserve c1, z.unpreserve".to_string(),
            _ => format!("preserve c{k}"),
        };
        recorder.expect(&format!("the {k}th"), &wanted)?;
        for id in FILES[..k - 1].iter().rev() {
            session.unpreserve(*id)?;
        }
        recorder.take()?;
    }
    for id in FILES {
        put(&recorder, &session, id)?;
    }
    close(recorder, session, &FILES)
}

fn killed(ctx: &mut Ctx) -> Result<()> {
    let recorder = Recorder::with_rust(ctx)?;
    for count in 1..=FILES.len() {
        for is_prepared in [false, true] {
            let ids = &FILES[..count];
            let holder = Child::holder(|| {
                let session = filled(&recorder, "killed", ids)?;
                if is_prepared {
                    prepare(&session)?;
                }
                Ok(session)
            })?;
            recorder.take()?;
            holder.kill()?;
            let wanted = each_rev("unpreserve", ids) + ", z.unpreserve";
            recorder.expect(&format!("{count} files"), &wanted)?;
            recorder.nothing_left()?;
        }
    }
    recorder.remove()
}

/// Each file refuses the kexec, by PREPARE's check and by freeze; then none does.
fn kexec_refused(ctx: &mut Ctx) -> Result<()> {
    let recorder = Recorder::with_rust(ctx)?;
    let first = filled(&recorder, "first", &FILES[..2])?;
    let second = filled(&recorder, "second", &FILES[2..])?;
    ctx.kexec_load()?;
    // The first session was checked by PREPARE, and is not checked again.
    let checked = |id: u64| id <= 2;
    let frozen = |id: &u64| match checked(*id) {
        true => format!("freeze c{id}"),
        false => format!("prepare c{id}, freeze c{id}"),
    };
    for callback in ["prepare", "freeze"] {
        for (i, id) in FILES.into_iter().enumerate() {
            if callback == "prepare" && checked(id) {
                continue;
            }
            prepare(&first)?;
            recorder.take()?;
            // Of prepare's calls those for the first session do not take place.
            let k = if callback == "prepare" { i - 1 } else { i + 1 };
            recorder.fail(callback, k, Errno::EIO)?;
            let errno = kexec::execute();
            ensure!(errno == Errno::EIO, "{callback} of c{id}: {errno:?}");
            let mut wanted: Vec<_> = FILES[..i].iter().map(frozen).collect();
            wanted.push(match callback {
                "prepare" => format!("prepare c{id}"),
                _ => frozen(&id),
            });
            if i > 0 {
                wanted.push(each_rev("unfreeze", &FILES[..i]));
            }
            let what = format!("{callback} of c{id} refuses");
            recorder.expect(&what, &wanted.join(", "))?;
            ensure!((first.state()?.0, second.state()?.0) == (2, 1), "{what}");
            first.cancel()?;
            for session in [&first, &second] {
                put(&recorder, session, 9)?;
                session.unpreserve(9)?;
            }
            recorder.take()?;
        }
    }
    ctx.keep((first, second, recorder));
    Ok(())
}

fn handed_over(ctx: &mut Ctx) -> Result<()> {
    let recorder = Recorder::with_rust(ctx)?;
    let device = Device::open()?;
    let second = device.retrieve_session("second")?;
    recorder.fail("retrieve", 2, Errno::ENOMEM)?;
    ensure!(id_of(&second.retrieve(4)?)? == 4);
    refused("the next", second.retrieve(3), Errno::ENOMEM)?;
    refused("again", second.retrieve(3), Errno::ENOMEM)?;
    recorder.expect("RETRIEVE_FD", "retrieve c4, retrieve c3")?;
    recorder.fail("can_finish", 2, Errno::EBUSY)?;
    refused("FINISH", second.finish(), Errno::EBUSY)?;
    let asked = "can_finish c3 -12, can_finish c4 1";
    recorder.expect("FINISH is refused", asked)?;
    second.finish()?;
    let wanted = format!("{asked}, finish c4 1, finish c3 -12");
    recorder.expect("FINISH", &wanted)?;
    drop(second);
    drop(device.retrieve_session("first")?);
    recorder.expect(
        "closing the first",
        "can_finish c1 0, can_finish c2 0, finish c2 0, finish c1 0, z.retrieve, z.finish",
    )?;
    recorder.nothing_left()?;
    recorder.remove()
}

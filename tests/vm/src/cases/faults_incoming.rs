// SPDX-License-Identifier: GPL-2.0

//! Every step fails once of what brings files back: insmod of luo.ko with what the previous kernel left, and every command
//! of the sessions in it. Whatever fails, a file can be had again or is refused; it is never wrong.

use super::common::data::{self, Extent};
use super::common::ext::{ORDERED, UPDATED};
use super::common::faults::{self, Faults, Insmod, Points, Sweep, INSMOD_LOG};
use super::common::held::Growth;
use super::common::luo::{Device, Session};
use super::common::memfd;
use super::common::modules::{id_of, Kind, Recorder};
use super::common::owned::Owned;
use super::common::pages::PAGE;
use super::common::scene::Scene;
use crate::ctx::Ctx;
use crate::test::{Config, Orchestrator, Test};
use anyhow::{bail, ensure, Context, Result};
use nix::errno::Errno;
use std::fs::File;
use std::time::Instant;

/// The cases.
pub const TESTS: &[Test] = &[
    Test::new(
        "insmod",
        CONFIG
            .orchestrators(&[Orchestrator::Rust, Orchestrator::None])
            .allow_log(INSMOD_LOG),
        &[leave_few, insmod],
    ),
    Test::new("sessions", ROOMY, &[leave, take]),
    Test::new("sessions_v2", ROOMY.params("memfd_v2=1"), &[leave, take]),
];

const CONFIG: Config = Config::new().timeout_s(1800).with_faults();
const ROOMY: Config = CONFIG.memory_mib(2048);
const P: u64 = PAGE as u64;

/// Sessions of one file: one for each point of RETRIEVE_SESSION.
const SINGLE: u64 = 40;
/// Sessions of two memfds and a file with FLBs: one for each point of FINISH.
const PAIRS: u64 = 100;
/// Files with FLBs of the session "recorded": the same.
const RECORDED: u64 = 40;
/// Files of the session "many": one for each point of RETRIEVE_FD.
const FILES: u64 = 120;
/// Every other page of them is filled, more than there is room for in the page of the description.
pub(super) const PAGES: u64 = 520;

const fn page(i: u64) -> Extent {
    Extent {
        start: i * P,
        len: P,
    }
}

/// Behind the pages, large folios of as many KiB: more than are claimed at a time, or a few.
const FOLIO_KIB: u64 = 16;
fn folios(pages: u64) -> Extent {
    let size = FOLIO_KIB << 10;
    Extent {
        start: (pages * P).next_multiple_of(size),
        len: size * if pages == PAGES { 66 } else { 2 },
    }
}

/// Behind these, where a file has many of them: two tables. The next kernel gets the pages of the first as a run in memory,
/// each of the second's by itself.
fn tables(pages: u64) -> [Extent; 2] {
    let folios = folios(pages);
    let start = (folios.start + folios.len).next_multiple_of(TABLE);
    let len = if pages == PAGES { TABLE } else { 0 };
    [start, start + len].map(|start| Extent { start, len })
}
const TABLE: u64 = 512 * P;

/// What the file called `token` of a session has: pieces, and a size that no other has.
pub(super) fn contents(token: u64, pages: u64) -> (u64, Vec<Extent>) {
    let tables = tables(pages);
    let extents = (0..pages).step_by(2).map(page).chain([folios(pages)]);
    (
        tables[1].start + tables[1].len + token,
        extents.chain(tables).collect(),
    )
}

/// Puts files with these tokens into a session. Gives the files.
pub(super) fn put(
    session: &Session,
    tokens: impl Iterator<Item = u64>,
    pages: u64,
) -> Result<Vec<File>> {
    let files: Vec<_> = tokens
        .map(|token| {
            let file = memfd::create(contents(token, pages).0)?;
            memfd::fill_with_folios(&file, folios(pages), FOLIO_KIB)?;
            memfd::scatter(&[&file], tables(pages)[0])?;
            Ok((token, file))
        })
        .collect::<Result<_>>()?;
    let all: Vec<_> = files.iter().map(|(_, file)| file).collect();
    memfd::scatter(&all, tables(pages)[1])?;
    for (token, file) in &files {
        for extent in contents(*token, pages).1 {
            data::fill(file, *token, extent)?;
        }
        session.preserve(file, *token)?;
    }
    Ok(files.into_iter().map(|(_, file)| file).collect())
}

pub(super) fn is_right(file: &File, token: u64, pages: u64) -> Result<()> {
    let (size, extents) = contents(token, pages);
    data::check(file, token, size, &extents).with_context(|| format!("token {token}"))
}

fn leave(ctx: &mut Ctx) -> Result<()> {
    super::common::raise_fd_limit(4096)?;
    let recorder = Recorder::new(ctx)?;
    let device = Device::open()?;
    let many = device.create_session("many")?;
    put(&many, 1..=FILES, PAGES)?;
    ctx.keep(many);
    let recorded = device.create_session("recorded")?;
    for i in 1..=RECORDED {
        recorded.preserve(&recorder.open(Kind::A, i)?, i)?;
    }
    ctx.keep(recorded);
    for i in 1..=SINGLE {
        let session = device.create_session(&format!("single {i}"))?;
        put(&session, [i].into_iter(), 2)?;
        ctx.keep(session);
    }
    for i in 0..=PAIRS {
        let session = device.create_session(&format!("pair {i}"))?;
        put(&session, 1..=2, 6)?;
        session.preserve(&recorder.open(Kind::A, i)?, 3)?;
        ctx.keep(session);
    }
    ctx.keep(recorder);
    Ok(())
}

fn leave_few(ctx: &mut Ctx) -> Result<()> {
    let recorder = Recorder::new(ctx)?;
    let device = Device::open()?;
    for name in ["one", "two"] {
        let session = device.create_session(name)?;
        put(&session, [1].into_iter(), 6)?;
        session.preserve(&recorder.open(Kind::A, 5)?, 2)?;
        ctx.keep(session);
    }
    ctx.keep(recorder);
    Ok(())
}

fn insmod(ctx: &mut Ctx) -> Result<()> {
    let owned = Owned::now()?;
    let check = || {
        let (sessions, total) = Device::open()?.list_sessions(0, 8)?;
        let files: u64 = sessions.iter().map(|entry| entry.nr_files).sum();
        ensure!((total, files) == (2, 4), "{total} sessions, {files} files");
        Ok(())
    };
    Insmod::luo().run(ctx, &Faults::new()?, check, || Ok(()))?;
    ctx.rmmod()?;
    owned.expect_no_more(ctx, "after insmod and rmmod")?;
    ctx.insmod("")?;
    let recorder = Recorder::new(ctx)?;
    ensure!(recorder.value("incoming").is_ok(), "FLB x is not there");
    let device = Device::open()?;
    for name in ["one", "two"] {
        let session = device.retrieve_session(name)?;
        is_right(&session.retrieve(1)?, 1, 6)?;
        ensure!(id_of(&session.retrieve(2)?)? == 5);
        session.finish()?;
    }
    recorder.remove()
}

fn take(ctx: &mut Ctx) -> Result<()> {
    let scene = Scene::new(ctx)?;
    retrieve_sessions(ctx, &scene)?;
    retrieve_recorded(ctx, &scene)?;
    finish(ctx, &scene)?;
    let value = scene.recorder.value("incoming");
    ensure!(
        value == Err(Errno::ENODATA),
        "FLB x is not finished: {value:?}"
    );
    scene.expect_no_more(ctx)?;
    let many = scene.device.retrieve_session("many")?;
    look(ctx, &scene, &many)?;
    retrieve_files(ctx, &scene, many)?;
    Ok(())
}

/// RETRIEVE_SESSION.
fn retrieve_sessions(ctx: &Ctx, scene: &Scene) -> Result<()> {
    let mut points = Points::default();
    let start = Instant::now();
    for i in 1..=SINGLE {
        let before = scene.state()?;
        let name = format!("single {i}");
        let (result, failed) = scene
            .faults
            .inject(i as u32, || scene.device.retrieve_session(&name))?;
        let at = || format!("RETRIEVE_SESSION, point {i}, {failed:?}: {result:?}");
        if let Some(kind) = failed {
            points.count(kind, result.is_ok());
        }
        let again = match (&result, failed) {
            (Ok(_), _) => None,
            (Err(_), None) => bail!("{}", at()),
            (Err(errno), Some(kind)) => {
                ensure!(kind.explains(*errno), "{}", at());
                let after = scene.state()?;
                ensure!(after == before, "{}: {after} instead of {before}", at());
                Some(scene.device.retrieve_session(&name).with_context(at)?)
            }
        };
        let session = again.as_ref().or(result.as_ref().ok()).context("none")?;
        is_right(&session.retrieve(i)?, i, 2)?;
        session.finish()?;
        if failed.is_none() {
            return points.report(ctx, "RETRIEVE_SESSION", start);
        }
    }
    bail!("more than {SINGLE} points: {points}")
}

/// GET_NAME, GET_STATE, LIST_FDS and SET_FLAGS.
fn look(ctx: &Ctx, scene: &Scene, session: &Session) -> Result<()> {
    let state = || scene.state_with(session);
    let faults = &scene.faults;
    Sweep::new("GET_NAME of an incoming session", || session.name())
        .check(|name| {
            ensure!(name == "many");
            Ok(())
        })
        .run(ctx, faults, state)?;
    Sweep::new("GET_STATE of an incoming session", || session.state())
        .check(|state| {
            ensure!(*state == (UPDATED, FILES, 0), "{state:?}");
            Ok(())
        })
        .run(ctx, faults, state)?;
    Sweep::new("LIST_FDS of an incoming session", || {
        session.list_fds(0, 512)
    })
    .check(|(files, total)| {
        ensure!(*total == FILES && files.len() as u64 == FILES);
        Ok(())
    })
    .run(ctx, faults, state)?;
    Sweep::new("SET_FLAGS of an incoming session", || {
        session.set_flags(ORDERED)
    })
    .undo(|()| Ok(session.set_flags(0)?))
    .run(ctx, faults, state)?;
    Ok(())
}

/// FINISH of a session with a memfd that was retrieved, one that was not, and a file with FLBs, either way.
fn finish(ctx: &Ctx, scene: &Scene) -> Result<()> {
    // What goes with such a session.
    let before = scene.recorder.unrestored()?.0;
    scene.device.retrieve_session("pair 0")?.finish()?;
    let whole = before - scene.recorder.unrestored()?.0;
    let mut pairs = 1..=PAIRS;
    for recorded in [false, true] {
        finish_pairs(ctx, scene, whole, recorded, &mut pairs)?;
    }
    for i in pairs {
        let rest = scene.device.retrieve_session(&format!("pair {i}"))?;
        rest.finish()?;
    }
    Ok(())
}

/// The same with the file with FLBs retrieved, or not. `whole` is what KHO keeps for one of the sessions.
fn finish_pairs(
    ctx: &Ctx,
    scene: &Scene,
    whole: u64,
    recorded: bool,
    pairs: impl Iterator<Item = u64>,
) -> Result<()> {
    let unrestored = || Ok::<_, anyhow::Error>(scene.recorder.unrestored()?.0);
    let mut points = Points::default();
    let mut kept = 0;
    let what = if recorded {
        "FINISH, FLBs known"
    } else {
        "FINISH"
    };
    let mut growth = Growth::new(ctx)?;
    let start = Instant::now();
    for (point, i) in (1..).zip(pairs) {
        let before = unrestored()?;
        let session = scene.device.retrieve_session(&format!("pair {i}"))?;
        let file = session.retrieve(1)?;
        // What FLBs it has is known then, and asked once more.
        let other = recorded.then(|| session.retrieve(3)).transpose()?;
        let seen = scene.state_with(&session)?;
        let (result, failed) = scene.faults.inject(point, || session.finish())?;
        let at = || format!("FINISH, point {point}, {failed:?}: {result:?}");
        if let Some(kind) = failed {
            points.count(kind, result.is_ok());
        }
        match (result, failed) {
            (Ok(()), _) => {}
            (Err(_), None) => bail!("{}", at()),
            (Err(errno), Some(kind)) => {
                ensure!(kind.explains(errno), "{}", at());
                let after = scene.state_with(&session)?;
                ensure!(after == seen, "{}: {after} instead of {seen}", at());
                is_right(&file, 1, 6).with_context(at)?;
                session.finish().with_context(at)?;
            }
        }
        ensure!(session.state()? == (UPDATED, 0, 0), "{}", at());
        is_right(&file, 1, 6).with_context(at)?;
        drop((session, other, file));
        let is_kept = before - unrestored()? < whole;
        if is_kept {
            // For memory it waits a little.
            ensure!(failed == Some(faults::Kind::Own), "{} kept memory", at());
            kept += 1;
        }
        growth.look(is_kept)?;
        if failed.is_none() {
            points.report(ctx, what, start)?;
            ctx.figure(&format!(
                "{what}: {kept} times what nobody wanted was kept until the next kexec"
            ));
            return growth.expect_none(what);
        }
    }
    bail!("more than {PAIRS} points: {points}")
}

/// RETRIEVE_FD of a file with FLBs. Its handler, in C, is called once: what else can fail comes before, and an error of its
/// own is final.
fn retrieve_recorded(ctx: &Ctx, scene: &Scene) -> Result<()> {
    let mut points = Points::default();
    let start = Instant::now();
    let session = scene.device.retrieve_session("recorded")?;
    scene.recorder.take()?;
    for i in 1..=RECORDED {
        let (result, failed) = scene.faults.inject(i as u32, || session.retrieve(i))?;
        let at = || format!("RETRIEVE_FD with FLBs, point {i}, {failed:?}: {result:?}");
        let calls = || -> Result<usize> {
            let record = scene.recorder.take()?;
            let call = format!("retrieve a{i}");
            Ok(record.iter().filter(|line| **line == call).count())
        };
        if let Some(kind) = failed {
            points.count(kind, result.is_ok());
        }
        match (&result, failed) {
            (Ok(file), _) => ensure!(id_of(file)? == i && calls()? == 1, "{}", at()),
            (Err(_), None) => bail!("{}", at()),
            (Err(errno), Some(kind)) => {
                ensure!(kind.explains(*errno), "{}", at());
                let was_called = calls()? != 0;
                let again = session.retrieve(i);
                let calls = calls()?;
                match again {
                    Ok(file) => {
                        ensure!(!was_called && calls == 1 && id_of(&file)? == i, "{}", at())
                    }
                    Err(again) => ensure!(
                        was_called && calls == 0 && again == *errno && kind != faults::Kind::Own,
                        "{}; then {again:?}",
                        at()
                    ),
                }
            }
        }
        if failed.is_none() {
            points.report(ctx, "RETRIEVE_FD with FLBs", start)?;
            return Ok(session.finish()?);
        }
    }
    bail!("more than {RECORDED} points: {points}")
}

/// RETRIEVE_FD. An error of the handler that has touched something is final for the file, and for no other; and no other
/// error is: as long as KHO has all of the file, it can be had.
fn retrieve_files(ctx: &Ctx, scene: &Scene, session: Session) -> Result<()> {
    let mut points = Points::default();
    let mut lost = 0;
    let mut files = Vec::new();
    let mut growth = Growth::new(ctx)?;
    let start = Instant::now();
    for i in 1..=FILES {
        let before = scene.state_with(&session)?;
        let unrestored = scene.recorder.unrestored()?;
        let (result, failed) = scene.faults.inject(i as u32, || session.retrieve(i))?;
        let at = || format!("RETRIEVE_FD, point {i}, {failed:?}: {result:?}");
        if let Some(kind) = failed {
            points.count(kind, result.is_ok());
        }
        let again = match (&result, failed) {
            (Ok(_), _) => None,
            (Err(_), None) => bail!("{}", at()),
            (Err(errno), Some(kind)) => {
                // As memfd_create(2) answers where there is no memory for an inode.
                let inode = kind == faults::Kind::Slab && *errno == Errno::ENOSPC;
                ensure!(inode || kind.explains(*errno), "{}", at());
                let after = scene.state_with(&session)?;
                let is_touched = scene.recorder.unrestored()? != unrestored;
                let again = session.retrieve(i);
                ensure!(
                    again.is_err() == is_touched,
                    "{}, of the file in the handover {}; then {again:?}",
                    at(),
                    if is_touched {
                        "a part is gone"
                    } else {
                        "all is there"
                    }
                );
                let is_same = is_touched || after == before;
                ensure!(is_same, "{}: {after} instead of {before}", at());
                Some(again)
            }
        };
        let is_lost = match again.unwrap_or(result) {
            Ok(file) => {
                is_right(&file, i, PAGES)?;
                files.push((i, file));
                false
            }
            Err(errno) => {
                ensure!(errno != Errno::EINVAL, "{i}: taken for damaged");
                // For memory it waits, once something was taken over.
                ensure!(
                    failed == Some(faults::Kind::Own),
                    "{i} is lost by {failed:?}"
                );
                lost += 1;
                true
            }
        };
        growth.look(is_lost)?;
        if failed.is_none() {
            points.report(ctx, "RETRIEVE_FD", start)?;
            growth.expect_none("RETRIEVE_FD")?;
            ctx.figure(&format!(
                "RETRIEVE_FD: {lost} of the errors are final for their file"
            ));
            session.finish()?;
            for (token, file) in &files {
                is_right(file, *token, PAGES).context("after FINISH")?;
            }
            drop((session, files));
            return scene.expect_no_more(ctx);
        }
    }
    bail!("more than {FILES} points: {points}")
}

// SPDX-License-Identifier: GPL-2.0

//! Every step fails once of what is done with a file that is to be handed over: a memfd in both formats, and a file
//! whose handler has FLBs.

use super::common::data::{self, Extent};
use super::common::ext::{NORMAL, PREPARED};
use super::common::faults::{self, Points, Sweep};
use super::common::luo::Session;
use super::common::memfd;
use super::common::modules::Kind;
use super::common::pages::PAGE;
use super::common::refused;
use super::common::scene::{free, Scene};
use crate::ctx::Ctx;
use crate::test::{Config, Test};
use anyhow::{ensure, Context, Result};
use nix::errno::Errno;
use std::fs::File;

/// The cases.
pub const TESTS: &[Test] = &[
    Test::new("memfd", CONFIG, &[all_of_memfd]),
    Test::new("memfd_v2", V2, &[all_of_memfd]),
    Test::new("with_flbs", CONFIG, &[with_flbs]),
];

const CONFIG: Config = Config::new().timeout_s(1800).with_faults();
const V2: Config = CONFIG.params("memfd_v2=1");
const P: u64 = PAGE as u64;
/// Its own file's contents.
const SEED: u64 = 7;

/// Every other page of it is filled, more than there is room for in the page of the description.
const PAGES: u64 = 560;
const SIZE: u64 = PAGES * P - 1000;

fn extents() -> Vec<Extent> {
    let page = |i| Extent {
        start: i * P,
        len: P,
    };
    (0..PAGES - 1).step_by(2).map(page).collect()
}

/// A memfd in many pieces, with a position and a seal.
fn file() -> Result<File> {
    let file = memfd::create(SIZE)?;
    for extent in extents() {
        data::fill(&file, SEED, extent)?;
    }
    memfd::add_seals(&file, libc::F_SEAL_SEAL)?;
    memfd::seek(&file, 12345)?;
    Ok(file)
}

/// What a session and a memfd show that is in no session.
fn apart(scene: &Scene, session: &Session, file: &File) -> Result<String> {
    data::check(file, SEED, SIZE, &extents())?;
    Ok(format!("{}, {}", scene.state_with(session)?, free(file)?))
}

/// Fails unless the memfd is in the session, and cannot change its size any more.
fn is_held(session: &Session, file: &File) -> Result<()> {
    ensure!(session.tokens()? == [1], "{:?}", session.tokens());
    let refused = memfd::truncate(file, SIZE + P);
    ensure!(refused.is_err(), "it can still grow");
    data::check(file, SEED, SIZE, &extents())
}

fn all_of_memfd(ctx: &mut Ctx) -> Result<()> {
    let scene = Scene::new(ctx)?;
    let session = scene.device.create_session("one")?;
    let file = file()?;
    preserve(ctx, &scene, &session, &file)?;
    unpreserve(ctx, &scene, &session, &file)?;
    drop(session);
    prepare(ctx, &scene)?;
    close(ctx, &scene, &file)?;
    drop(file);
    scene.close(ctx)
}

fn preserve(ctx: &Ctx, scene: &Scene, session: &Session, file: &File) -> Result<Points> {
    Sweep::new("PRESERVE_FD", || session.preserve(file, 1))
        .check(|()| is_held(session, file))
        .undo(|()| Ok(session.unpreserve(1)?))
        .run(ctx, &scene.faults, || apart(scene, session, file))
}

fn unpreserve(ctx: &Ctx, scene: &Scene, session: &Session, file: &File) -> Result<Points> {
    session.preserve(file, 1)?;
    let points = Sweep::new("UNPRESERVE_FD", || session.unpreserve(1))
        .check(|()| apart(scene, session, file).map(drop))
        .undo(|()| Ok(session.preserve(file, 1)?))
        .run(ctx, &scene.faults, || {
            is_held(session, file)?;
            scene.state_with(session)
        })?;
    session.unpreserve(1)?;
    Ok(points)
}

/// PREPARE of a memfd in which holes were filled since it was preserved.
fn prepare(ctx: &Ctx, scene: &Scene) -> Result<Points> {
    let session = scene.device.create_session("one")?;
    let file = file()?;
    let late = Extent {
        start: P,
        len: 3 * P,
    };
    let put = || -> Result<()> {
        session.preserve(&file, 1)?;
        data::fill(&file, SEED, late)
    };
    put()?;
    Sweep::new("PREPARE", || session.prepare().map_err(|(errno, _)| errno))
        .check(|()| {
            ensure!(session.state()?.0 == PREPARED);
            Ok(())
        })
        .undo(|()| {
            session.cancel()?;
            session.unpreserve(1)?;
            memfd::punch(&file, late.start, P)?;
            memfd::punch(&file, late.start + 2 * P, P)?;
            put()
        })
        .run(ctx, &scene.faults, || {
            ensure!(session.state()?.0 == NORMAL);
            scene.state_with(&session)
        })
}

/// Closing a session cannot fail: whatever does, if anything, all of it is let go.
fn close(ctx: &Ctx, scene: &Scene, file: &File) -> Result<()> {
    let session = || -> Result<Session> {
        let session = scene.device.create_session("one")?;
        session.preserve(file, 1)?;
        Ok(session)
    };
    let state = || Ok::<_, anyhow::Error>(format!("{}, {}", scene.state()?, free(file)?));
    faults::leaving_nothing(
        ctx,
        "close",
        || session().map(drop),
        || {
            let before = state()?;
            let mut points = Points::default();
            for nth in 1.. {
                let session = session()?;
                let ((), failed) = scene.faults.inject(nth, || drop(session))?;
                let at = || format!("close, point {nth}, {failed:?}");
                let now = state().with_context(at)?;
                ensure!(now == before, "{}: {now} instead of {before}", at());
                match failed {
                    Some(kind) => points.count(kind, true),
                    None => break,
                }
            }
            // There may be none.
            ctx.figure(&format!("close: {points}"));
            Ok(())
        },
    )
}

fn with_flbs(ctx: &mut Ctx) -> Result<()> {
    let scene = Scene::new(ctx)?;
    let session = scene.device.create_session("one")?;
    let file = scene.recorder.open(Kind::A, 5)?;
    let value = || scene.recorder.value("outgoing");
    Sweep::new("PRESERVE_FD with two FLBs", || session.preserve(&file, 1))
        .check(|()| {
            ensure!(session.tokens()? == [1]);
            ensure!(value().is_ok(), "FLB x: {:?}", value());
            Ok(())
        })
        .undo(|()| Ok(session.unpreserve(1)?))
        .run(ctx, &scene.faults, || {
            refused("FLB x", value(), Errno::ENOENT)?;
            scene.state_with(&session)
        })?;
    drop((session, file));
    scene.close(ctx)
}

// SPDX-License-Identifier: GPL-2.0

//! Every step of every command fails once, in turn: of the device, and of sessions that are to be handed over. What was
//! there is as before then, and the same command works. Those about a file are in `faults_file`.

use super::common::ext::{NORMAL, ORDERED, PREPARED};
use super::common::faults::{Faults, Insmod, Sweep, INSMOD_LOG};
use super::common::luo::{Device, DEVICE};
use super::common::modules::{self, Kind, Recorder};
use super::common::owned::Owned;
use super::common::scene::{references, Scene};
use super::common::{io_errno, memfd, open_fds, refused};
use crate::ctx::Ctx;
use crate::test::{Config, Orchestrator, Test};
use anyhow::{ensure, Result};
use nix::errno::Errno;
use std::fs::{File, OpenOptions};

/// The cases.
pub const TESTS: &[Test] = &[
    Test::new("insmod", BARE, &[insmod]),
    Test::new("insmod_with_handlers", CONFIG, &[insmod_with_handlers]),
    Test::new("rmmod", BARE, &[rmmod]),
    Test::new("device", CONFIG, &[device]),
    Test::new("session", CONFIG, &[session]),
];

const CONFIG: Config = Config::new().timeout_s(1800).with_faults();
const BARE: Config = CONFIG
    .orchestrators(&[Orchestrator::None])
    .allow_log(INSMOD_LOG);
fn open() -> Result<Device, Errno> {
    let file = OpenOptions::new().read(true).write(true).open(DEVICE);
    file.map(Device).map_err(io_errno)
}

fn insmod(ctx: &mut Ctx) -> Result<()> {
    let faults = Faults::new()?;
    // What is made when it is first asked for, and stays.
    ctx.insmod("")?;
    ctx.rmmod()?;
    let owned = Owned::now()?;
    let check = || {
        let (_, total) = Device::open()?.list_sessions(0, 0)?;
        ensure!(total == 0, "{total} sessions");
        Ok(())
    };
    Insmod::luo().run(ctx, &faults, check, || Ok(()))?;
    ctx.rmmod()?;
    owned.expect_no_more(ctx, "after insmod and rmmod")
}

/// A module in C that registers handlers and FLBs: where one of them cannot be registered, it unregisters the others and
/// says that there was no memory.
fn insmod_with_handlers(ctx: &mut Ctx) -> Result<()> {
    modules::need(ctx, Recorder::NAME)?;
    let faults = Faults::new()?;
    faults.need_own()?;
    // The one depends on both FLBs, the other on one of them.
    let check = || -> Result<()> {
        let session = Device::open()?.create_session("recorded")?;
        session.preserve(&Recorder::open_file(Kind::A, 1)?, 1)?;
        session.preserve(&Recorder::open_file(Kind::B, 2)?, 2)?;
        Ok(())
    };
    // What is made when it is first asked for, and stays.
    let recorder = Recorder::new(ctx)?;
    check()?;
    recorder.remove()?;
    let owned = Owned::of_inserted()?;
    let before = references()?;
    let same = || -> Result<()> {
        let now = references()?;
        ensure!(
            now == before,
            "luo.ko has {now} references instead of {before}"
        );
        Ok(())
    };
    Insmod::of(Recorder::NAME).run(ctx, &faults, check, same)?;
    Recorder::new(ctx)?.remove()?;
    same()?;
    owned.expect_no_more(ctx, "after insmod and rmmod of handlers in C")
}

/// Nothing fails here: but this kernel tells whose an object is.
fn rmmod(ctx: &mut Ctx) -> Result<()> {
    let with_handlers = || {
        ctx.insmod("")?;
        Recorder::new(ctx)?.remove()?;
        ctx.rmmod()
    };
    // What is made when it is first asked for, and stays.
    with_handlers()?;
    let owned = Owned::now()?;
    with_handlers()?;
    owned.expect_no_more(ctx, "after handlers and FLBs in C, and rmmod")
}

fn device(ctx: &mut Ctx) -> Result<()> {
    let scene = Scene::new(ctx)?;
    let Scene { device, faults, .. } = &scene;
    let state = || scene.state();
    let create = Sweep::new("CREATE_SESSION", || device.create_session("two")).check(|two| {
        ensure!(two.name()? == "two" && two.state()? == (NORMAL, 0, 0));
        Ok(())
    });
    // The first session, which brings about what the others find.
    create.run(ctx, faults, state)?;
    let one = device.create_session("one")?;
    let info = Sweep::new("GET_INFO", || device.info()).check(|info| {
        ensure!(info.liveupdate_num == 0 && info.implementation.starts_with(b"luo.ko"));
        Ok(())
    });
    let list = Sweep::new("LIST_SESSIONS", || device.list_sessions(0, 8)).check(|(list, total)| {
        ensure!(*total == 1 && list[0].name() == "one", "{list:?}");
        Ok(())
    });
    info.run(ctx, faults, state)?;
    list.run(ctx, faults, state)?;
    drop(one);
    scene.close(ctx)?;

    // While it is open nobody else can open it.
    let faults = Faults::new()?;
    let state = || {
        let (references, descriptors) = (references()?, open_fds()?);
        Ok(format!(
            "{references} references, {descriptors} descriptors"
        ))
    };
    let open = Sweep::new("open", open).check(|device| {
        ensure!(device.info()?.liveupdate_num == 0);
        Ok(())
    });
    open.run(ctx, &faults, state)?;
    Ok(())
}

fn session(ctx: &mut Ctx) -> Result<()> {
    let scene = Scene::new(ctx)?;
    let faults = &scene.faults;
    let session = scene.device.create_session("one")?;
    let files: Vec<File> = (0..3).map(|_| memfd::create(4096)).collect::<Result<_>>()?;
    for (file, token) in files.iter().zip(1..) {
        session.preserve(file, token)?;
    }
    let state = || scene.state_with(&session);
    let prepare = || session.prepare().map_err(|(errno, _)| errno);
    let is = |wanted: u32| {
        let (state, files, _) = session.state()?;
        ensure!((state, files) == (wanted, 3), "state {state}");
        Ok(())
    };
    let name = Sweep::new("GET_NAME", || session.name()).check(|name| {
        ensure!(name == "one");
        Ok(())
    });
    let get_state = Sweep::new("GET_STATE", || session.state()).check(|state| {
        ensure!(*state == (NORMAL, 3, 0), "{state:?}");
        Ok(())
    });
    let list = Sweep::new("LIST_FDS", || session.list_fds(0, 8)).check(|(files, total)| {
        ensure!(*total == 3 && files[2].token == 3, "{files:?}");
        Ok(())
    });
    let flags = Sweep::new("SET_FLAGS", || session.set_flags(ORDERED))
        .check(|()| refused("out of order", session.unpreserve(1), Errno::EBUSY))
        .undo(|()| Ok(session.set_flags(0)?));
    let do_prepare = Sweep::new("PREPARE", prepare)
        .check(|()| is(PREPARED))
        .undo(|()| Ok(session.cancel()?));
    let cancel = Sweep::new("CANCEL", || session.cancel())
        .check(|()| is(NORMAL))
        .undo(|()| Ok(prepare()?));
    name.run(ctx, faults, state)?;
    get_state.run(ctx, faults, state)?;
    list.run(ctx, faults, state)?;
    flags.run(ctx, faults, state)?;
    do_prepare.run(ctx, faults, state)?;
    prepare()?;
    cancel.run(ctx, faults, state)?;
    drop((session, files));
    scene.close(ctx)
}

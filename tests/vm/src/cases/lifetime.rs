// SPDX-License-Identifier: GPL-2.0

//! A session lasts until its last descriptor is closed, by whatever way, and then lets go of everything.

use super::common::luo::{Device, Session};
use super::common::nobody::as_nobody;
use super::common::pages::PAGE;
use super::common::{data, memfd, open_fds, refused, still_works, FdLimit};
use crate::ctx::Ctx;
use crate::process::Child;
use crate::test::{Config, Test};
use anyhow::{ensure, Context, Result};
use nix::errno::Errno;
use std::fs::File;
use std::time::Duration;

/// The cases.
pub const TESTS: &[Test] = &[
    Test::new("close", Config::new(), &[close]),
    Test::new("last_descriptor", Config::new(), &[last_descriptor]),
    Test::new("killed_holder", Config::new(), &[killed_holder]),
    Test::new("killed_while_preserving", Config::new(), &[killed_in_call]),
    Test::new("no_memory_lost", Config::new(), &[no_memory_lost]),
    Test::new("no_room_for_fd", Config::new(), &[no_room]),
    Test::new(
        "no_room_for_fd_incoming",
        Config::new(),
        &[hand_on, no_room_incoming],
    ),
    Test::new(
        "no_more_files_incoming",
        Config::new(),
        &[hand_on, no_more_files],
    ),
    Test::new(
        "finished_is_not_lost",
        Config::new(),
        &[hand_on_finished, keep_finished, nothing_more],
    ),
];

/// What is said to be lost under this name fails the test: the harness reads it on the console.
const FINISHED: &str = "finished";

const SIZE: u64 = 300_000;

fn filled() -> Result<File> {
    let file = memfd::create(SIZE)?;
    data::fill(&file, 9, data::whole(SIZE))?;
    Ok(file)
}

fn is_free(file: &File) -> Result<()> {
    data::check(file, 9, SIZE, &[data::whole(SIZE)])?;
    memfd::truncate(file, SIZE + 1).context("growing it")?;
    memfd::punch(file, SIZE, PAGE as u64).context("punching a hole")?;
    memfd::truncate(file, SIZE).context("shrinking it")?;
    Ok(())
}

fn is_held(file: &File) -> Result<()> {
    data::check(file, 9, SIZE, &[data::whole(SIZE)])?;
    refused("growing it", memfd::truncate(file, SIZE + 1), Errno::EPERM)
}

fn close(_: &mut Ctx) -> Result<()> {
    let files = (0..50).map(|_| filled()).collect::<Result<Vec<_>>>()?;
    let fds = open_fds()?;
    for round in 0..3 {
        let session = Device::open()?.create_session("closed")?;
        for (token, file) in files.iter().enumerate() {
            session
                .preserve(file, token as u64)
                .with_context(|| format!("token {token} in round {round}"))?;
            is_held(file)?;
        }
        drop(session);
        files.iter().try_for_each(is_free)?;
    }
    ensure!(open_fds()? == fds, "descriptors leaked");
    Ok(())
}

fn last_descriptor(_: &mut Ctx) -> Result<()> {
    let file = filled()?;
    let session = Device::open()?.create_session("copied")?;
    session.preserve(&file, 1)?;
    let copy = Session(session.0.try_clone()?);
    drop(session);
    is_held(&file)?;
    still_works(&copy)?;
    let heir = Child::holder(|| Ok(()))?;
    drop(copy);
    // The child was forked with a copy of its own.
    is_held(&file)?;
    let taken = Device::open()?.create_session("copied");
    refused("its name", taken, Errno::EEXIST)?;
    heir.kill()?;
    is_free(&file)?;
    Device::open()?.create_session("copied")?;
    Ok(())
}

fn killed_holder(_: &mut Ctx) -> Result<()> {
    let files = [filled()?, filled()?, filled()?];
    for round in 0..3 {
        let holder = Child::holder(|| {
            let device = Device::open()?;
            let one = device.create_session("killed-1")?;
            let two = device.create_session("killed-2")?;
            one.preserve(&files[0], 0)?;
            two.preserve(&files[1], 0)?;
            one.preserve(&files[2], u64::MAX)?;
            Ok((device, one, two))
        })?;
        files.iter().try_for_each(is_held)?;
        ensure!(Device::open().is_err(), "it holds the device, too");
        holder.kill()?;

        let device = Device::open()?;
        let one = device.create_session("killed-1").context("the name")?;
        files.iter().try_for_each(is_free)?;
        for (token, file) in files.iter().enumerate() {
            one.preserve(file, token as u64)
                .with_context(|| format!("file {token} in round {round}"))?;
        }
        device.create_session("killed-2").context("the name")?;
        still_works(&one)?;
    }
    files.iter().try_for_each(is_free)
}

/// SIGKILL while PRESERVE_FD has much to do, at ever later moments.
fn killed_in_call(_: &mut Ctx) -> Result<()> {
    const LARGE: u64 = 64 << 20;
    let file = memfd::create(LARGE)?;
    let extent = data::Extent {
        start: LARGE - SIZE,
        len: SIZE,
    };
    memfd::fallocate(&file, 0, 0, LARGE)?;
    data::fill(&file, 10, extent)?;
    // The first find it before or within the call, the last behind it.
    for delay in [0, 2, 4, 8, 12, 16, 24, 32, 64, 128, 256, 512] {
        let child = Child::spawn(|_| {
            let work = || -> Result<Session> {
                let session = Device::open()?.create_session("large")?;
                session.preserve(&file, 1)?;
                Ok(session)
            };
            let _held = work();
            nix::unistd::pause();
        })?;
        std::thread::sleep(Duration::from_millis(delay));
        child.kill()?;
        memfd::truncate(&file, LARGE + 1)
            .with_context(|| format!("growing it, killed after {delay} ms"))?;
        memfd::truncate(&file, LARGE)?;
    }
    data::check(&file, 10, LARGE, &[extent])?;
    let session = Device::open()?.create_session("large")?;
    session.preserve(&file, 1).context("by somebody else")
}

/// Preserving and letting go, over and over, uses up no memory; nor do attempts that fail.
fn no_memory_lost(ctx: &mut Ctx) -> Result<()> {
    let large = memfd::create(16 << 20)?;
    memfd::fallocate(&large, 0, 0, 16 << 20)?;
    let named = File::open("/dev/null")?;
    let round = || -> Result<()> {
        let device = Device::open()?;
        for i in 0..20 {
            let session = device.create_session(&format!("round-{i}"))?;
            session.preserve(&large, 1)?;
            session.preserve(&filled()?, 2)?;
            refused("a named file", session.preserve(&named, 3), Errno::ENOENT)?;
            let taken = device.create_session(&format!("round-{i}"));
            refused("a name in use", taken, Errno::EEXIST)?;
        }
        Ok(())
    };
    // What the kernel keeps at hand for the next time is taken once.
    for _ in 0..5 {
        round()?;
    }
    let before = free_kib(ctx)?;
    for _ in 0..10 {
        round()?;
    }
    let after = free_kib(ctx)?;
    // 200 sessions with 18 MiB each went by: one page of each would be 800 KiB.
    ensure!(
        after + 600 > before,
        "{} KiB less are free after 200 sessions",
        before.saturating_sub(after)
    );
    Ok(())
}

/// Free memory when the kernel has given back what it holds for speed.
fn free_kib(ctx: &Ctx) -> Result<u64> {
    let mut best = 0;
    for _ in 0..5 {
        std::fs::write("/proc/sys/vm/drop_caches", "3")?;
        std::fs::write("/proc/sys/vm/compact_memory", "1")?;
        std::thread::sleep(Duration::from_millis(50));
        best = best.max(ctx.free_kib()?);
    }
    Ok(best)
}

fn no_room(_: &mut Ctx) -> Result<()> {
    let device = Device::open()?;
    {
        let _limit = FdLimit::room_for(0)?;
        for _ in 0..10 {
            let session = device.create_session("room");
            refused("CREATE_SESSION", session, Errno::EMFILE)?;
            let session = device.retrieve_session("room");
            refused("RETRIEVE_SESSION", session, Errno::EMFILE)?;
        }
    }
    let session = device.create_session("room").context("with room")?;
    still_works(&session)?;
    let file = filled()?;
    {
        // Preserving takes no descriptor.
        let _limit = FdLimit::room_for(0)?;
        session.preserve(&file, 1)?;
        ensure!(session.name()? == "room");
    }
    Ok(())
}

fn hand_on(ctx: &mut Ctx) -> Result<()> {
    let session = Device::open()?.create_session("room")?;
    session.preserve(&filled()?, 1)?;
    session.preserve(&filled()?, 2)?;
    ctx.keep(session);
    Ok(())
}

fn no_room_incoming(_: &mut Ctx) -> Result<()> {
    let device = Device::open()?;
    let session = {
        let limit = FdLimit::room_for(0)?;
        for _ in 0..10 {
            let session = device.retrieve_session("room");
            refused("RETRIEVE_SESSION", session, Errno::EMFILE)?;
        }
        drop(limit);
        let _limit = FdLimit::room_for(1)?;
        device
            .retrieve_session("room")
            .context("with room for it")?
    };
    {
        let _limit = FdLimit::room_for(0)?;
        for _ in 0..10 {
            for token in [1, 2, 3] {
                refused("RETRIEVE_FD", session.retrieve(token), Errno::EMFILE)?;
            }
        }
    }
    for token in [1, 2] {
        is_free(&session.retrieve(token).context("with room for it")?)?;
    }
    session.finish()?;
    Ok(())
}

/// The kernel makes no file for a user any more. What was not touched for that can be had when it does again.
fn no_more_files(ctx: &mut Ctx) -> Result<()> {
    const FILE_MAX: &str = "/proc/sys/fs/file-max";
    let session = Device::open()?.retrieve_session("room")?;
    let before = std::fs::read(FILE_MAX)?;
    std::fs::write(FILE_MAX, "0")?;
    let tried = as_nobody(|| {
        for _ in 0..3 {
            for token in [1, 2] {
                refused("RETRIEVE_FD", session.retrieve(token), Errno::ENFILE)?;
            }
        }
        Ok(())
    });
    std::fs::write(FILE_MAX, before)?;
    tried?;
    ctx.log()
        .expect("nothing was touched: it can be tried again")?;
    ensure!(session.state()?.2 == 0, "something was retrieved");
    for token in [1, 2] {
        is_free(&session.retrieve(token).context("when it does again")?)?;
    }
    session.finish()?;
    Ok(())
}

fn hand_on_finished(ctx: &mut Ctx) -> Result<()> {
    let session = Device::open()?.create_session(FINISHED)?;
    session.preserve(&filled()?, 1)?;
    ctx.keep(session);
    Ok(())
}

/// The next kexec comes while a session has its descriptor, and nothing else any more.
fn keep_finished(ctx: &mut Ctx) -> Result<()> {
    let session = Device::open()?.retrieve_session(FINISHED)?;
    is_free(&session.retrieve(1)?)?;
    session.finish()?;
    ctx.keep(session);
    Ok(())
}

fn nothing_more(_: &mut Ctx) -> Result<()> {
    let session = Device::open()?.retrieve_session(FINISHED);
    refused("a session of two kernels before", session, Errno::ENOENT)
}

// SPDX-License-Identifier: GPL-2.0

//! Who else has a memfd has the lock of its inode for as long as they like, in a write() whose data do not come. To be
//! killed ends what waits for that, and no other signal does.

use super::{command, done, ends, send, Scene, BOTH, HANDLED, KILLED};
use crate::cases::common::data::{self, whole};
use crate::cases::common::luo::{Device, Session};
use crate::cases::common::memfd::{self, Mapping};
use crate::cases::common::modules::{Kind, Recorder};
use crate::cases::common::pages::PAGE;
use crate::cases::common::stalled::StalledWrite;
use crate::cases::common::{only_ours, refused, seen};
use crate::cases::races::{Doer, LONG};
use crate::ctx::Ctx;
use crate::kexec;
use crate::kmsg::Log;
use crate::process::Child;
use anyhow::{ensure, Context, Result};
use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::pipe;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;

/// Many times as many as FINISH, or a touch, brings in at a time.
const PAGES: usize = 1000;
const SIZE: u64 = (PAGES * PAGE) as u64;
/// Sessions of the next kernel, each with a memfd. Its number is the seed of the contents.
const SESSIONS: [&str; 5] = [
    "finished",
    "finish killed",
    "closed",
    "close killed",
    "never closed",
];

pub fn hand_on(ctx: &mut Ctx) -> Result<()> {
    let device = Device::open()?;
    for (seed, name) in (0..).zip(SESSIONS) {
        let file = memfd::create(SIZE)?;
        data::fill(&file, seed, whole(SIZE))?;
        let session = device.create_session(name)?;
        session.preserve(&file, 1)?;
        ctx.keep(session);
    }
    Ok(())
}

/// Kills a process, and fails unless that ends it.
fn kill_beside(ctx: &Ctx, process: Child, writer: &StalledWrite) -> Result<()> {
    kill(process.pid(), KILLED)?;
    ends_beside(ctx, process, writer).context("it was killed")
}

/// Fails unless a process ends although somebody has the lock.
fn ends_beside(ctx: &Ctx, process: Child, writer: &StalledWrite) -> Result<()> {
    let ended = ctx.wait_for("the end of a process", LONG, || {
        process.has_ended().unwrap_or(false)
    });
    if ended.is_err() {
        // Else this would wait for it, too.
        writer.kill()?;
    }
    process.wait()?;
    ended
}

/// A memfd of the previous kernel that nobody has touched, and its session.
struct Retrieved<'a> {
    scene: Scene<'a>,
    seed: u64,
}

impl<'a> Retrieved<'a> {
    fn new(device: &'a Device, seed: u64) -> Result<Self> {
        let session = device.retrieve_session(SESSIONS[seed as usize])?;
        let file = session.retrieve(1)?;
        let scene = Scene {
            device,
            session,
            file,
        };
        Ok(Self { scene, seed })
    }
}

/// Fails unless all of a file was brought in, or little, and nothing of it is lost.
fn check(file: &File, seed: u64, brought_in: bool) -> Result<()> {
    let resident = seen::resident(file)?;
    // The page that is written to may have been touched by that, and what is around it.
    let wanted = if brought_in {
        PAGES..=PAGES
    } else {
        0..=PAGES / 10
    };
    ensure!(wanted.contains(&resident), "{resident} pages are there");
    data::check(file, seed, SIZE, &[whole(SIZE)])
}

/// FINISH waits for it, and those that finish the session once more. Who asks for something else does not.
pub fn finish(ctx: &mut Ctx) -> Result<()> {
    only_ours(ctx, "it has brought in all before")?;
    let device = Device::open()?;
    for (seed, signal) in (0..).zip(BOTH) {
        let Retrieved { scene, seed } = Retrieved::new(&device, seed)?;
        let writer = StalledWrite::new(&scene.file)?;
        let finish = || command(|| scene.session.finish().map(done));
        let first = finish()?;
        send(ctx, HANDLED, &first)?;
        let again = BOTH.map(|signal| -> Result<_> {
            let again = finish()?;
            send(ctx, signal, &again)?;
            Ok(again)
        });
        at_once(&scene)?;
        if signal == KILLED {
            kill_beside(ctx, first.0, &writer)?;
        } else {
            writer.kill()?;
            ends(first, HANDLED, "done")?;
        }
        for (again, signal) in again.into_iter().zip(BOTH) {
            ends(again?, signal, "done").context("once more")?;
        }
        at_once(&scene)?;
        writer.end()?;
        let Scene { session, file, .. } = scene;
        drop(session);
        let name = SESSIONS[seed as usize];
        refused("it again", device.retrieve_session(name), Errno::ENOENT)?;
        check(&file, seed, signal != KILLED).with_context(|| format!("{signal:?}"))?;
    }
    Ok(())
}

/// A session that is being finished tells so, and takes no commands but those that make no difference.
fn at_once(scene: &Scene<'_>) -> Result<()> {
    let told = command(|| scene.told().map_err(|_| Errno::EIO))?;
    told.says("what there is", "(4, 0, 0) 0 [], signals: 0")?;
    let retrieve = command(|| scene.session.retrieve(1).map(drop).map(done))?;
    retrieve.says("RETRIEVE_FD", "ENOENT, signals: 0")?;
    let flags = command(|| scene.session.set_flags(0).map(done))?;
    flags.says("SET_FLAGS", "done, signals: 0")
}

/// A process that has the only descriptor of a session, and lets go of it when it is told to.
fn closer(session: Session, let_go: fn(Session)) -> Result<(Doer, OwnedFd)> {
    let (wait, go) = pipe()?;
    let closer = command(move || {
        let told = File::from(wait).read(&mut [0]);
        let_go(session);
        told.map(|_| "closed".into()).map_err(|_| Errno::EIO)
    })?;
    Ok((closer, go))
}

/// close(2) of a session that was not finished waits as well; the end of a process that has one does not.
pub fn close(ctx: &mut Ctx) -> Result<()> {
    only_ours(ctx, "it has brought in all before")?;
    let device = Device::open()?;
    for (seed, signal) in (2..).zip(BOTH) {
        let Retrieved { scene, seed } = Retrieved::new(&device, seed)?;
        let Scene { session, file, .. } = scene;
        let (closer, go) = closer(session, drop)?;
        let writer = StalledWrite::new(&file)?;
        File::from(go).write_all(b"!")?;
        send(ctx, HANDLED, &closer)?;
        let name = SESSIONS[seed as usize];
        refused("it meanwhile", device.retrieve_session(name), Errno::EINVAL)?;
        if signal == KILLED {
            kill_beside(ctx, closer.0, &writer)?;
        } else {
            writer.kill()?;
            ends(closer, HANDLED, "closed")?;
        }
        refused("it again", device.retrieve_session(name), Errno::ENOENT)?;
        writer.end()?;
        check(&file, seed, signal != KILLED).with_context(|| format!("{signal:?}"))?;
    }
    let Retrieved { scene, seed } = Retrieved::new(&device, 4)?;
    let Scene { session, file, .. } = scene;
    let (holder, go) = closer(session, std::mem::forget)?;
    let writer = StalledWrite::new(&file)?;
    File::from(go).write_all(b"!")?;
    ends_beside(ctx, holder.0, &writer)?;
    let name = SESSIONS[seed as usize];
    refused("it again", device.retrieve_session(name), Errno::ENOENT)?;
    writer.end()?;
    check(&file, seed, false).context("the holder is gone")
}

/// PRESERVE_FD waits, and reboot() for PRESERVE_FD: in which session the log says.
pub fn preserve(ctx: &mut Ctx) -> Result<()> {
    let recorder = Recorder::new(ctx)?;
    let device = Device::open()?;
    let session = device.create_session("slow")?;
    let last = device.create_session("last")?;
    last.preserve(&recorder.open(Kind::B, 8)?, 8)?;
    ctx.kexec_load()?;
    let file = memfd::create(SIZE)?;
    data::fill(&file, 1, whole(SIZE))?;
    for signal in BOTH {
        recorder.fail("freeze", 1, Errno::EIO)?;
        let mut log = Log::from_now()?;
        let writer = StalledWrite::new(&file)?;
        let preserving = command(|| session.preserve(&file, 1).map(done))?;
        send(ctx, HANDLED, &preserving)?;
        let rebooter = command(|| Err(kexec::execute()))?;
        ctx.wait_for("a line of the log", LONG, || {
            log.expect("session [slow]: reboot() waits").is_ok()
        })?;
        kill(rebooter.0.pid(), HANDLED)?;
        if signal == KILLED {
            kill_beside(ctx, preserving.0, &writer)?;
        } else {
            writer.kill()?;
            ends(preserving, HANDLED, "done")?;
        }
        ends(rebooter, HANDLED, "EIO").context("reboot()")?;
        writer.end()?;
        let files = if signal == KILLED { 0 } else { 1 };
        let state = session.state()?;
        ensure!(state == (1, files, 0), "{signal:?}: {state:?}");
        if signal == KILLED {
            memfd::truncate(&file, SIZE / 2).context("what is not preserved")?;
            memfd::truncate(&file, SIZE)?;
            session.preserve(&file, 1).context("once more")?;
        }
        refused("a new size", memfd::truncate(&file, 0), Errno::EPERM)?;
        session.unpreserve(1)?;
    }
    data::check(&file, 1, SIZE, &[whole(SIZE / 2)])?;
    drop((session, last));
    recorder.remove()
}

/// PREPARE and reboot() do not take the lock, although they have new pages to look at; nor does UNPRESERVE_FD.
pub fn not_taken(ctx: &mut Ctx) -> Result<()> {
    let recorder = Recorder::new(ctx)?;
    let session = Device::open()?.create_session("quick")?;
    let file = memfd::create(SIZE)?;
    session.preserve(&file, 1)?;
    session.preserve(&recorder.open(Kind::B, 2)?, 2)?;
    ctx.kexec_load()?;
    let map = Mapping::new(&file, SIZE as usize)?;
    let writer = StalledWrite::new(&file)?;
    recorder.take()?;
    map.write(PAGE, 1);
    let prepare = command(|| session.prepare().map_err(|(errno, _)| errno).map(done))?;
    prepare.says("PREPARE", "done, signals: 0")?;
    map.write(2 * PAGE, 2);
    recorder.fail("freeze", 1, Errno::EIO)?;
    command(|| Err(kexec::execute()))?.says("reboot()", "EIO, signals: 0")?;
    recorder.expect("the file behind it", "freeze b2")?;
    ensure!(session.state()? == (2, 2, 0), "{:?}", session.state()?);
    session.cancel()?;
    let unpreserve = command(|| session.unpreserve(1).map(done))?;
    unpreserve.says("UNPRESERVE_FD", "done, signals: 0")?;
    writer.end()?;
    ensure!([map.read(PAGE), map.read(2 * PAGE)] == [1, 2]);
    memfd::truncate(&file, 0).context("truncating what was let go")?;
    drop(session);
    recorder.remove()
}

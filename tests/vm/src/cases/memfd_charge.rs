// SPDX-License-Identifier: GPL-2.0

//! Which memory cgroup a retrieved memfd is charged to, and what becomes of it where there is no room.

use super::common::cgroup::Cgroup;
use super::common::data::{self, whole, Extent};
use super::common::luo::{Device, Session};
use super::common::memfd::Mapping;
use super::common::pages::PAGE;
use super::common::{memfd, seen};
use crate::ctx::Ctx;
use crate::process::{Child, Said};
use crate::procfs::number_in;
use crate::test::{Config, Test};
use anyhow::{bail, ensure, Context, Result};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

/// The cases.
pub const TESTS: &[Test] = &[Test::new("cgroups", CONFIG, &[preserve, charge])];

const CONFIG: Config = Config::new().timeout_s(300);
const SIZE: u64 = 24 << 20;
const PAGES: usize = SIZE as usize / PAGE;
const SESSIONS: [&str; 6] = [
    "touched",
    "finished",
    "full",
    "left behind",
    "let go",
    "committed",
];
/// A session with a memfd that has a page in each of [`NODES`] nodes of its tree.
const SPREAD: &str = "spread";
const NODES: u64 = 2000;
/// Of the file, in bytes.
const NODE: u64 = 64 * PAGE as u64;
/// For what takes milliseconds on a machine that is not busy.
const PATIENCE: Duration = Duration::from_secs(60);

fn preserve(ctx: &mut Ctx) -> Result<()> {
    let device = Device::open()?;
    for (seed, name) in (0..).zip(SESSIONS) {
        let file = memfd::create(SIZE)?;
        data::fill(&file, seed, whole(SIZE))?;
        let session = device.create_session(name)?;
        session.preserve(&file, 1)?;
        ctx.keep(session);
    }
    let file = memfd::create(NODES * NODE)?;
    for page in spread() {
        data::fill(&file, 0, page)?;
    }
    let session = device.create_session(SPREAD)?;
    session.preserve(&file, 1)?;
    ctx.keep(session);
    Ok(())
}

fn spread() -> Vec<Extent> {
    let page = |node| Extent {
        start: node * NODE,
        len: PAGE as u64,
    };
    (0..NODES).map(page).collect()
}

fn charge(ctx: &mut Ctx) -> Result<()> {
    touched(ctx).context("touched")?;
    finished(ctx).context("finished")?;
    full(ctx).context("finished in a full cgroup")?;
    left_behind(ctx).context("left behind")?;
    let_go(ctx).context("let go")?;
    committed().context("retrieved where all is committed")?;
    in_a_full_cgroup().context("retrieved in a full cgroup")
}

fn retrieve(name: &str) -> Result<(Session, File)> {
    let session = Device::open()?.retrieve_session(name)?;
    let file = session.retrieve(1)?;
    ensure!(seen::resident(&file)? == 0, "it is there already");
    Ok((session, file))
}

/// Fails unless the cgroup is, before long, charged so many bytes of shared memory.
fn is_charged(ctx: &Ctx, cgroup: &Cgroup, bytes: u64) -> Result<()> {
    let mut charged = Ok(0);
    ctx.wait_for("charge", PATIENCE, || {
        charged = cgroup.stat("shmem");
        matches!(charged, Ok(charged) if charged == bytes)
    })
    .with_context(|| format!("{charged:?} are charged instead of {bytes}"))
}

/// Who touches a page first pays for it.
fn touched(ctx: &Ctx) -> Result<()> {
    let (session, file) = retrieve("touched")?;
    let payers = [Cgroup::new("first")?, Cgroup::new("second")?];
    for (half, payer) in payers.iter().enumerate() {
        payer.run(PATIENCE, || {
            let map = Mapping::new(&file, SIZE as usize)?;
            for page in 0..PAGES {
                // By turns, in blocks larger than what is brought in around a page that is touched; and what the other one
                // has brought in already costs nothing.
                if page / 64 % 2 == half || page < PAGES / 2 {
                    map.read(page * PAGE);
                }
            }
            Ok(())
        })?;
    }
    let all = [SIZE / 4 * 3, SIZE / 4];
    for (payer, bytes) in payers.iter().zip(all) {
        is_charged(ctx, payer, bytes)?;
    }
    session.finish()?;
    data::check(&file, 0, SIZE, &[whole(SIZE)])?;
    drop(file);
    for payer in &payers {
        is_charged(ctx, payer, 0).context("when the file is gone")?;
    }
    Ok(())
}

/// Who finishes the session pays for what nobody has touched.
fn finished(ctx: &Ctx) -> Result<()> {
    let (session, file) = retrieve("finished")?;
    let payer = Cgroup::new("finisher")?;
    payer.run(PATIENCE, || Ok(session.finish()?))?;
    is_charged(ctx, &payer, SIZE)?;
    data::check(&file, 1, SIZE, &[whole(SIZE)])?;
    is_charged(ctx, &payer, SIZE)?;
    drop(file);
    is_charged(ctx, &payer, 0).context("when the file is gone")
}

/// Where there is no room for all of it, nobody is killed and nothing is lost: the rest is charged when it is touched.
fn full(ctx: &Ctx) -> Result<()> {
    const LIMIT: u64 = SIZE / 3;
    let (session, file) = retrieve("full")?;
    let payer = Cgroup::new("full")?;
    payer.limit(Some(LIMIT))?;
    payer.run(PATIENCE, || Ok(session.finish()?))?;
    let killed = payer.events("oom_kill")?;
    ensure!(killed == 0, "{killed} processes were killed");
    let resident = seen::resident(&file)?;
    ensure!((1..PAGES).contains(&resident), "{resident} pages are there");
    ensure!(payer.stat("shmem")? <= LIMIT);

    // It is an ordinary memfd even so. A hole where nothing has been brought in yet, and on to the next kernel.
    memfd::punch(&file, SIZE - (4 << 20), 2 << 20)?;
    let outgoing = Device::open()?.create_session("from a full cgroup")?;
    payer.limit(None)?;
    payer.run(PATIENCE, || Ok(outgoing.preserve(&file, 1)?))?;
    is_charged(ctx, &payer, SIZE - (2 << 20))?;
    let rest = [
        whole(SIZE - (4 << 20)),
        Extent {
            start: SIZE - (2 << 20),
            len: 2 << 20,
        },
    ];
    data::check(&file, 2, SIZE, &rest)
}

/// Who ends without FINISH does not pay, and nobody else does in their place: who touches it does.
fn left_behind(ctx: &Ctx) -> Result<()> {
    let (leaver, user) = (Cgroup::new("leaver")?, Cgroup::new("user")?);
    let (wait, go) = nix::unistd::pipe()?;
    let mut child = Child::spawn(|pipe| {
        let ready = leaver.enter().and_then(|()| retrieve("left behind"));
        let said = match &ready {
            Ok((_, file)) => format!("{}", file.as_raw_fd()),
            Err(err) => format!("{err:#}"),
        };
        let _ = writeln!(pipe, "{said}");
        let _ = File::from(wait).read(&mut [0]);
        // The end of the process closes them.
        std::mem::forget(ready);
    })?;
    let fd: u32 = match child.listen(PATIENCE)? {
        Said::Line(line) => line.parse().context(line)?,
        other => bail!("the child process: {other:?}"),
    };
    let path = format!("/proc/{}/fd/{fd}", child.pid());
    let file = File::options().read(true).write(true).open(path)?;
    File::from(go).write_all(b"!")?;
    child.wait()?;
    ctx.wait_for("the end of the session", PATIENCE, || {
        Device::open().is_ok_and(|device| device.retrieve_session("left behind").is_err())
    })?;
    user.run(PATIENCE, || {
        data::check(&file, 3, SIZE, &[whole(SIZE)]).context("what was left behind")
    })?;
    is_charged(ctx, &user, SIZE)?;
    is_charged(ctx, &leaver, 0)
}

/// A file that nobody has any more is not brought in, only to be thrown away.
fn let_go(_: &Ctx) -> Result<()> {
    let (session, file) = retrieve("let go")?;
    drop(file);
    let payer = Cgroup::new("nobody")?;
    payer.limit(Some(SIZE / 3))?;
    payer.run(PATIENCE, || Ok(session.finish()?))?;
    let reclaims = payer.events("max")?;
    ensure!(reclaims == 0, "its cgroup was full {reclaims} times");
    Ok(())
}

/// Strict overcommit, with all that may be committed given to others, is no reason to lose memory that is in use anyway.
fn committed() -> Result<()> {
    let set = |name, value| {
        let path = format!("/proc/sys/vm/{name}");
        std::fs::write(&path, value).context(path)
    };
    set("overcommit_kbytes", "1")?;
    let before = number_in("/proc/meminfo", "Committed_AS:")?;
    let session = Device::open()?.retrieve_session("committed")?;
    set("overcommit_memory", "2")?;
    let other = memfd::create(SIZE).and_then(|file| Ok(memfd::write_at(&file, 0, b"more")?));
    let file = session.retrieve(1);
    set("overcommit_memory", "0")?;
    ensure!(other.is_err(), "that proves nothing: there is room");
    let file = file?;
    let blocks = || Ok::<_, anyhow::Error>(file.metadata()?.blocks() * 512);
    ensure!(blocks()? == SIZE, "blocks of {} bytes", blocks()?);
    data::check(&file, 5, SIZE, &[whole(SIZE)])?;
    session.finish()?;
    memfd::punch(&file, 0, SIZE / 2)?;
    ensure!(blocks()? == SIZE / 2, "blocks of {} bytes", blocks()?);
    drop(file);
    let after = number_in("/proc/meminfo", "Committed_AS:")?;
    // Of the process itself something may have come or gone.
    ensure!(
        after.abs_diff(before) < SIZE >> 12,
        "{after} KiB are committed, and {before} before"
    );
    Ok(())
}

/// Where there is no room for the tree of the file, it is made all the same: without it the memfd would be lost.
fn in_a_full_cgroup() -> Result<()> {
    const LIMIT: u64 = 512 << 10;
    let payer = Cgroup::new("retriever")?;
    payer.limit(Some(LIMIT))?;
    Child::run(PATIENCE, || {
        let (session, file) = payer.inside(|| {
            let session = Device::open()?.retrieve_session(SPREAD)?;
            let file = session.retrieve(1)?;
            Ok((session, file))
        })?;
        let charged = payer.charged()?;
        ensure!(charged > LIMIT, "that proves nothing: {charged} bytes");
        data::check(&file, 0, NODES * NODE, &spread())?;
        Ok(session.finish()?)
    })?;
    let killed = payer.events("oom_kill")?;
    ensure!(killed == 0, "{killed} processes were killed");
    Ok(())
}

// SPDX-License-Identifier: GPL-2.0

//! Which memory cgroup a retrieved memfd is charged to, and what becomes of it where there is no room.

use super::common::cgroup::Cgroup;
use super::common::data::{self, whole, Extent};
use super::common::luo::{Device, Session};
use super::common::memfd::Mapping;
use super::common::pages::PAGE;
use super::common::{memfd, refused, seen, where_all_is_committed};
use crate::ctx::Ctx;
use crate::process::{Child, Said};
use crate::procfs::number_in;
use crate::test::{Config, Test};
use anyhow::{bail, ensure, Context, Result};
use nix::errno::Errno;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::time::Duration;

/// The cases.
pub const TESTS: &[Test] = &[
    Test::new(
        "cgroups_from_extents",
        STAYING,
        &[preserve, charge, from_a_full_cgroup],
    ),
    Test::new(
        "cgroups_from_v2",
        STAYING.params("memfd_v2=1"),
        &[preserve, charge, from_a_full_cgroup],
    ),
    Test::new(
        "cgroups_from_tables",
        STAYING,
        &[preserve_scattered, charge, from_a_full_cgroup],
    ),
    Test::new(
        "cgroups_from_huge",
        CONFIG,
        &[preserve_huge, charge_huge, from_a_full_cgroup],
    ),
];

const CONFIG: Config = Config::new().timeout_s(300);
/// A scratch area so small that memory is not from there, and would be moved into large folios: of those the first to
/// touch a page pays for all.
const STAYING: Config = CONFIG.cmdline("kho_scratch=64M,16M,16M");
const SIZE: u64 = 24 << 20;
const PAGES: usize = SIZE as usize / PAGE;
const SESSIONS: [&str; 7] = [
    "touched",
    "finished",
    "full",
    "left behind",
    "let go",
    "committed",
    "opened again",
];
/// A session of the second kernel, and a hole that is in its memfd.
const FROM_FULL: &str = "from a full cgroup";
const HOLE: Extent = Extent {
    start: SIZE - (4 << 20),
    len: 2 << 20,
};
/// A session with a memfd that has a page in each of [`NODES`] nodes of its tree.
const SPREAD: &str = "spread";
const NODES: u64 = 2000;
/// Of the file, in bytes.
const NODE: u64 = 64 * PAGE as u64;
/// A session with a memfd of so many pages, with a hole between any two, that lie in memory the other way round.
const UNSORTED: &str = "unsorted";
const UNSORTED_PAGES: u64 = 20_000;
/// For what takes milliseconds on a machine that is not busy.
const PATIENCE: Duration = Duration::from_secs(60);

fn preserve(ctx: &mut Ctx) -> Result<()> {
    preserve_all(ctx, |_| Ok(()))
}

/// In tables, each of which is a page that nobody is charged for.
fn preserve_scattered(ctx: &mut Ctx) -> Result<()> {
    preserve_all(ctx, |files| {
        let files: Vec<_> = files.iter().collect();
        memfd::scatter(&files, whole(SIZE))
    })
}

fn preserve_huge(ctx: &mut Ctx) -> Result<()> {
    preserve_all(ctx, |files| {
        let mut files = files.iter();
        files.try_for_each(|file| memfd::fill_with_folios(file, whole(SIZE), 2048))
    })
}

/// Preserves files whose memory `allocate` chooses.
fn preserve_all(ctx: &mut Ctx, allocate: fn(&[File]) -> Result<()>) -> Result<()> {
    let device = Device::open()?;
    let files = SESSIONS.map(|_| memfd::create(SIZE));
    let files = files.into_iter().collect::<Result<Vec<_>>>()?;
    allocate(&files)?;
    for (seed, (name, file)) in (0..).zip(SESSIONS.iter().zip(files)) {
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

    let file = memfd::create(2 * UNSORTED_PAGES * PAGE as u64)?;
    for number in (0..UNSORTED_PAGES).rev() {
        file.write_all_at(&number.to_ne_bytes(), unsorted(number))?;
    }
    let session = device.create_session(UNSORTED)?;
    session.preserve(&file, 1)?;
    ctx.keep(session);
    Ok(())
}

/// Where a page of [`UNSORTED`] is in the file.
fn unsorted(number: u64) -> u64 {
    2 * number * PAGE as u64
}

fn spread() -> Vec<Extent> {
    let page = |node| Extent {
        start: node * NODE,
        len: PAGE as u64,
    };
    (0..NODES).map(page).collect()
}

fn charge(ctx: &mut Ctx) -> Result<()> {
    charge_all(ctx, [SIZE / 4 * 3, SIZE / 4])
}

/// Who touches a page of a large folio pays for all of it: each is touched by the first before the second.
fn charge_huge(ctx: &mut Ctx) -> Result<()> {
    charge_all(ctx, [SIZE, 0])
}

fn charge_all(ctx: &mut Ctx, by_turns: [u64; 2]) -> Result<()> {
    touched(ctx, by_turns).context("touched")?;
    finished(ctx).context("finished")?;
    opened_again(ctx).context("opened again")?;
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

/// Who touches a page first pays for it; `by_turns` is what each then pays.
fn touched(ctx: &Ctx, by_turns: [u64; 2]) -> Result<()> {
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
    for (payer, bytes) in payers.iter().zip(by_turns) {
        payer.is_charged(ctx, bytes)?;
    }
    session.finish()?;
    data::check(&file, 0, SIZE, &[whole(SIZE)])?;
    drop(file);
    for payer in &payers {
        payer.is_charged(ctx, 0).context("when the file is gone")?;
    }
    Ok(())
}

/// Who finishes the session pays for what nobody has touched.
fn finished(ctx: &Ctx) -> Result<()> {
    let (session, file) = retrieve("finished")?;
    finisher_pays(ctx, session, file, 1)
}

/// And so it is where the file is in use by another descriptor than that of RETRIEVE_FD.
fn opened_again(ctx: &Ctx) -> Result<()> {
    let (session, file) = retrieve("opened again")?;
    let again = memfd::reopen(&file, true)?;
    drop(file);
    finisher_pays(ctx, session, again, 6)
}

fn finisher_pays(ctx: &Ctx, session: Session, file: File, seed: u64) -> Result<()> {
    let payer = Cgroup::new("finisher")?;
    payer.run(PATIENCE, || Ok(session.finish()?))?;
    payer.is_charged(ctx, SIZE)?;
    data::check(&file, seed, SIZE, &[whole(SIZE)])?;
    payer.is_charged(ctx, SIZE)?;
    drop(file);
    payer.is_charged(ctx, 0).context("when the file is gone")
}

/// Where there is no room for all of it, nobody is killed and nothing is lost: the rest is charged when it is touched.
fn full(ctx: &mut Ctx) -> Result<()> {
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

    // It is an ordinary memfd even so, but there has to be room for it to go on to the next kernel.
    let outgoing = Device::open()?.create_session(FROM_FULL)?;
    // Without room for as much as a token a process is killed, whatever it does.
    payer.limit(Some(LIMIT + (1 << 20)))?;
    payer.run(PATIENCE, || {
        refused("PRESERVE_FD", outgoing.preserve(&file, 1), Errno::ENOMEM)
    })?;
    let killed = payer.events("oom_kill")?;
    ensure!(killed == 0, "{killed} processes were killed");
    // Nothing has been brought in there yet.
    memfd::punch(&file, HOLE.start, HOLE.len)?;
    payer.limit(None)?;
    payer.run(PATIENCE, || Ok(outgoing.preserve(&file, 1)?))?;
    payer.is_charged(ctx, SIZE - HOLE.len)?;
    data::check(&file, 2, SIZE, &around_hole())?;
    ctx.keep(outgoing);
    Ok(())
}

/// In a third kernel: much of it was untouched in the second, until it was preserved again.
fn from_a_full_cgroup(_: &mut Ctx) -> Result<()> {
    let session = Device::open()?.retrieve_session(FROM_FULL)?;
    let file = session.retrieve(1)?;
    data::check(&file, 2, SIZE, &around_hole())?;
    session.finish()?;
    Ok(())
}

fn around_hole() -> [Extent; 2] {
    let end = HOLE.start + HOLE.len;
    let rest = Extent {
        start: end,
        len: SIZE - end,
    };
    [whole(HOLE.start), rest]
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
    user.is_charged(ctx, SIZE)?;
    leaver.is_charged(ctx, 0)
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
    let before = number_in("/proc/meminfo", "Committed_AS:")?;
    let session = Device::open()?.retrieve_session("committed")?;
    let (other, file) = where_all_is_committed(|| {
        let other = memfd::create(SIZE).and_then(|file| Ok(memfd::write_at(&file, 0, b"more")?));
        (other, session.retrieve(1))
    })?;
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

/// Where there is no room for the tree of the file, it is made all the same: without it the memfd would be lost. And nobody
/// is killed for what can be done without.
fn in_a_full_cgroup() -> Result<()> {
    const LIMIT: u64 = 256 << 10;
    for name in [SPREAD, UNSORTED] {
        let payer = Cgroup::new(name)?;
        payer.limit(Some(LIMIT))?;
        let take = || -> Result<(Session, File)> {
            let session = Device::open()?.retrieve_session(name)?;
            let file = session.retrieve(1)?;
            Ok((session, file))
        };
        let retrieve = || -> Result<()> {
            let (session, file) = payer.inside(take)?;
            let charged = payer.charged()?;
            ensure!(charged > LIMIT, "that proves nothing: {charged} bytes");
            match name {
                SPREAD => data::check(&file, 0, NODES * NODE, &spread())?,
                _ => check_unsorted(&file)?,
            }
            Ok(session.finish()?)
        };
        Child::run(PATIENCE, retrieve).context(name)?;
        let killed = payer.events("oom_kill")?;
        ensure!(killed == 0, "{name}: {killed} processes were killed");
    }
    Ok(())
}

fn check_unsorted(file: &File) -> Result<()> {
    (0..UNSORTED_PAGES).try_for_each(|number| {
        let mut got = [0; 8];
        file.read_exact_at(&mut got, unsorted(number))?;
        ensure!(got == number.to_ne_bytes(), "page {number}: {got:?}");
        Ok(())
    })
}

// SPDX-License-Identifier: GPL-2.0

//! memfds of every size and shape through a kexec: they arrive as they were, and are memfds like any other.

use super::common::data::{self, whole, Extent};
use super::common::luo::Device;
use super::common::memfd::{self, Mapping};
use super::common::pages::PAGE;
use super::common::{refused, still_works};
use crate::ctx::Ctx;
use crate::test::{Config, Test};
use anyhow::{ensure, Context, Result};
use nix::errno::Errno;
use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;

/// The cases.
pub const TESTS: &[Test] = &[
    Test::new(
        "sizes",
        Config::new().look_for_leaks(),
        &[preserve_sizes, check_sizes],
    ),
    Test::new("shapes", Config::new(), &[preserve_shapes, check_shapes]),
    Test::new("positions", Config::new(), &[preserve_at, check_at]),
    Test::new("file_flags", Config::new(), &[preserve_odd, check_odd]),
    Test::new("again", Config::new(), &[first, second, third]),
    Test::new(
        "large",
        Config::new().timeout_s(120),
        &[preserve_large, check_large],
    ),
    Test::new("many", Config::new(), &[preserve_many, check_many]),
];

const P: u64 = PAGE as u64;

const SIZES: [u64; 16] = [
    0,
    1,
    P - 1,
    P,
    P + 1,
    2 * P,
    12_345,
    (64 << 10) - 1,
    64 << 10,
    (2 << 20) - 1,
    2 << 20,
    (2 << 20) + 1,
    3_000_001,
    8 << 20,
    (16 << 20) + 4095,
    20_000_000,
];

fn preserve_sizes(ctx: &mut Ctx) -> Result<()> {
    let session = Device::open()?.create_session("sizes")?;
    for (token, size) in (0..).zip(SIZES) {
        let file = memfd::create(size)?;
        data::fill(&file, token, whole(size))?;
        session
            .preserve(&file, token)
            .with_context(|| format!("preserving {size} bytes"))?;
        data::check(&file, token, size, &[whole(size)])?;
    }
    ctx.keep(session);
    Ok(())
}

fn check_sizes(_: &mut Ctx) -> Result<()> {
    let session = Device::open()?.retrieve_session("sizes")?;
    let mut files = Vec::new();
    for (token, size) in (0..).zip(SIZES) {
        let file = session.retrieve(token)?;
        data::check(&file, token, size, &[whole(size)])
            .with_context(|| format!("of {size} bytes"))?;
        let stat = nix::sys::stat::fstat(&file)?;
        let blocks = stat.st_blocks as u64 * 512;
        ensure!(
            blocks == size.next_multiple_of(P),
            "{size} bytes have blocks for {blocks}"
        );
        files.push(file);
    }
    session.finish()?;
    for (token, (file, size)) in (0..).zip(files.iter().zip(SIZES)) {
        is_a_memfd(file, token, size).with_context(|| format!("of {size} bytes"))?;
    }
    Ok(())
}

/// What can be done to a memfd can be done to one that arrived.
fn is_a_memfd(file: &File, seed: u64, size: u64) -> Result<()> {
    data::check(file, seed, size, &[whole(size)])?;
    if size > 0 {
        let map = Mapping::new(file, size as usize)?;
        let last = size as usize - 1;
        let byte = map.read(last);
        map.write(last, !byte);
        drop(map);
        let mut read = [0];
        std::os::unix::fs::FileExt::read_exact_at(file, &mut read, size - 1)?;
        ensure!(read[0] == !byte, "a mapping is of other pages");
        memfd::write_at(file, size - 1, &[byte])?;
    }
    // What lies behind the end must not come to light.
    memfd::truncate(file, size + 3 * P).context("growing")?;
    data::check(file, seed, size + 3 * P, &[whole(size)]).context("grown")?;
    let more = Extent {
        start: size,
        len: 3 * P,
    };
    data::fill(file, seed, more)?;
    data::check(file, seed, size + 3 * P, &[whole(size + 3 * P)]).context("filled")?;
    memfd::punch(file, 0, P).context("punching")?;
    let rest = Extent {
        start: P,
        len: size + 2 * P,
    };
    data::check(file, seed, size + 3 * P, &[rest]).context("punched")?;
    memfd::truncate(file, 0).context("truncating")?;
    let stat = nix::sys::stat::fstat(file)?;
    ensure!(stat.st_blocks == 0, "{} blocks when empty", stat.st_blocks);
    Ok(())
}

/// Sparse files: size, extents.
const SHAPES: [(u64, &[Extent]); 9] = [
    // all hole
    (1, &[]),
    (P, &[]),
    (5 << 20, &[]),
    // hole at the tail, at the head, at both ends, in the middle
    (10 * P, &[ext(0, P)]),
    (10 * P, &[ext(9 * P, P)]),
    (100 * P, &[ext(50 * P + 7, 3)]),
    (10 * P + 1, &[ext(0, 3 * P), ext(7 * P, 3 * P + 1)]),
    // a large one with little in it, across what might be huge pages
    (
        48 << 20,
        &[ext(0, 1), ext((2 << 20) - 5, 10), ext((48 << 20) - 1, 1)],
    ),
    // every second page
    (
        16 * P,
        &[
            ext(0, P),
            ext(2 * P, P),
            ext(4 * P, P),
            ext(6 * P, P),
            ext(8 * P, P),
            ext(14 * P, 1),
        ],
    ),
];

const fn ext(start: u64, len: u64) -> Extent {
    Extent { start, len }
}

fn preserve_shapes(ctx: &mut Ctx) -> Result<()> {
    let session = Device::open()?.create_session("shapes")?;
    for (token, (size, extents)) in (0..).zip(SHAPES) {
        let file = memfd::create(size)?;
        for &extent in extents {
            data::fill(&file, token, extent)?;
        }
        session
            .preserve(&file, token)
            .with_context(|| format!("{extents:?} of {size}"))?;
    }
    // Room that was allocated and never written reads as zeros.
    let file = memfd::create(0)?;
    memfd::fallocate(&file, 0, 0, 30 * P)?;
    data::fill(&file, 100, ext(10 * P + 100, 50))?;
    session.preserve(&file, 100)?;
    // Punched again, after it was full.
    let file = memfd::create(0)?;
    data::fill(&file, 101, whole(30 * P))?;
    memfd::punch(&file, 5 * P, 20 * P)?;
    session.preserve(&file, 101)?;
    // Allocated behind the end.
    let file = memfd::create(0)?;
    data::fill(&file, 102, whole(P))?;
    memfd::fallocate(&file, libc::FALLOC_FL_KEEP_SIZE, 0, 9 * P)?;
    session.preserve(&file, 102)?;
    ctx.keep(session);
    Ok(())
}

fn check_shapes(_: &mut Ctx) -> Result<()> {
    let session = Device::open()?.retrieve_session("shapes")?;
    for (token, (size, extents)) in (0..).zip(SHAPES) {
        let file = session.retrieve(token)?;
        data::check(&file, token, size, extents)
            .with_context(|| format!("{extents:?} of {size}"))?;
    }
    let allocated = session.retrieve(100)?;
    data::check(&allocated, 100, 30 * P, &[ext(10 * P + 100, 50)]).context("allocated")?;
    let punched = session.retrieve(101)?;
    data::check(&punched, 101, 30 * P, &[ext(0, 5 * P), ext(25 * P, 5 * P)]).context("punched")?;
    let behind = session.retrieve(102)?;
    data::check(&behind, 102, P, &[whole(P)]).context("allocated behind the end")?;
    session.finish()?;
    memfd::truncate(&behind, 9 * P)?;
    data::check(&behind, 102, 9 * P, &[whole(P)]).context("grown")
}

/// Positions: within, at the end, behind it, and the largest there is.
const POSITIONS: [u64; 7] = [0, 1, 4095, 9999, 10_000, 1 << 40, i64::MAX as u64];

fn preserve_at(ctx: &mut Ctx) -> Result<()> {
    let session = Device::open()?.create_session("positions")?;
    let mut files = Vec::new();
    for (token, position) in (0..).zip(POSITIONS) {
        let file = memfd::create(10_000)?;
        data::fill(&file, token, whole(10_000))?;
        if token % 2 == 0 {
            memfd::seek(&file, position)?;
        }
        session.preserve(&file, token)?;
        if token % 2 == 1 {
            // Moved after it was preserved: the position at the kexec counts.
            memfd::seek(&file, position)?;
        }
        files.push(file);
    }
    ctx.keep((session, files));
    Ok(())
}

fn check_at(_: &mut Ctx) -> Result<()> {
    let session = Device::open()?.retrieve_session("positions")?;
    for (token, position) in (0..).zip(POSITIONS) {
        let file = session.retrieve(token)?;
        let actual = memfd::position(&file)?;
        ensure!(actual == position, "{actual} instead of {position}");
        data::check(&file, token, 10_000, &[whole(10_000)])?;
    }
    session.finish()?;
    Ok(())
}

fn preserve_odd(ctx: &mut Ctx) -> Result<()> {
    let session = Device::open()?.create_session("odd")?;
    let file = memfd::create(20_000)?;
    data::fill(&file, 1, whole(20_000))?;
    session.preserve(&memfd::reopen(&file, false)?, 1)?;

    let path = "/tmp/memfd-kexec-unlinked";
    let options = || OpenOptions::new().read(true).write(true).to_owned();
    let file = options().create(true).truncate(true).open(path)?;
    data::fill(&file, 2, whole(20_000))?;
    std::fs::remove_file(path)?;
    session.preserve(&file, 2).context("an unlinked file")?;

    let file = options().custom_flags(libc::O_TMPFILE).open("/tmp")?;
    data::fill(&file, 3, whole(20_000))?;
    session.preserve(&file, 3).context("O_TMPFILE")?;

    let file = memfd::create(20_000)?;
    data::fill(&file, 4, whole(20_000))?;
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let appending = OpenOptions::new().append(true).open(path)?;
    session.preserve(&appending, 4).context("O_APPEND")?;
    ctx.keep(session);
    Ok(())
}

/// All arrive as what a memfd is: open for reading and writing, closed on exec, on tmpfs, without a name.
fn check_odd(_: &mut Ctx) -> Result<()> {
    const TMPFS_MAGIC: libc::c_long = 0x0102_1994;
    let session = Device::open()?.retrieve_session("odd")?;
    for token in 1..=4 {
        let file = session.retrieve(token)?;
        let check = || -> Result<()> {
            data::check(&file, token, 20_000, &[whole(20_000)])?;
            // SAFETY: asks for flags.
            let flags = Errno::result(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETFL) })?;
            ensure!(flags & libc::O_ACCMODE == libc::O_RDWR, "flags {flags:#o}");
            ensure!(flags & libc::O_APPEND == 0, "flags {flags:#o}");
            // SAFETY: as above.
            let fd_flags = Errno::result(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETFD) })?;
            ensure!(fd_flags & libc::FD_CLOEXEC != 0, "open on exec");
            ensure!(memfd::fs_magic(&file)? == TMPFS_MAGIC, "not on tmpfs");
            let link = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
            let link = link.to_string_lossy();
            ensure!(link.ends_with("(deleted)"), "called {link:?}");
            memfd::write_at(&file, 0, b"!").context("writing")?;
            memfd::truncate(&file, 1).context("truncating")?;
            Ok(())
        };
        check().with_context(|| format!("token {token}"))?;
    }
    session.finish()?;
    Ok(())
}

const AGAIN: u64 = 5_000_000;

fn first(ctx: &mut Ctx) -> Result<()> {
    let file = memfd::create(AGAIN)?;
    data::fill(&file, 1, whole(AGAIN / 2))?;
    let session = Device::open()?.create_session("again")?;
    session.preserve(&file, 1)?;
    ctx.keep(session);
    Ok(())
}

/// Takes it over, changes it, and hands it on under the same name.
fn second(ctx: &mut Ctx) -> Result<()> {
    let device = Device::open()?;
    let incoming = device.retrieve_session("again")?;
    let file = incoming.retrieve(1)?;
    data::check(&file, 1, AGAIN, &[whole(AGAIN / 2)])?;
    incoming.finish()?;
    drop(incoming);
    data::fill(&file, 1, ext(AGAIN - 100_000, 100_000))?;
    memfd::seek(&file, 42)?;
    let outgoing = device.create_session("again")?;
    outgoing.preserve(&file, 9)?;
    ctx.keep(outgoing);
    Ok(())
}

fn third(_: &mut Ctx) -> Result<()> {
    let device = Device::open()?;
    let session = device.retrieve_session("again")?;
    refused("the old token", session.retrieve(1), Errno::ENOENT)?;
    let file = session.retrieve(9)?;
    let extents = [whole(AGAIN / 2), ext(AGAIN - 100_000, 100_000)];
    data::check(&file, 1, AGAIN, &extents)?;
    ensure!(memfd::position(&file)? == 42);
    session.finish()?;
    still_works(&device.create_session("again")?)
}

const LARGE: u64 = 256 << 20;

fn preserve_large(ctx: &mut Ctx) -> Result<()> {
    let file = memfd::create(LARGE)?;
    data::fill(&file, 1, whole(LARGE))?;
    let session = Device::open()?.create_session("large")?;
    session.preserve(&file, 1)?;
    ctx.keep(session);
    Ok(())
}

fn check_large(ctx: &mut Ctx) -> Result<()> {
    let session = Device::open()?.retrieve_session("large")?;
    let file = session.retrieve(1)?;
    data::check(&file, 1, LARGE, &[whole(LARGE)])?;
    session.finish()?;
    // It is counted as what it is, and its memory comes back when it goes.
    let shmem = ctx.meminfo_kib("Shmem")?;
    ensure!(shmem >= LARGE >> 10, "only {shmem} KiB are shared memory");
    let before = ctx.free_kib()?;
    drop((session, file));
    let after = ctx.free_kib()?;
    let freed = after.saturating_sub(before);
    ensure!(
        freed > (LARGE >> 10) * 95 / 100,
        "it freed only {freed} KiB"
    );
    let shmem = ctx.meminfo_kib("Shmem")?;
    ensure!(shmem < LARGE >> 11, "{shmem} KiB are still shared memory");
    Ok(())
}

const MANY: u64 = 1000;

fn preserve_many(ctx: &mut Ctx) -> Result<()> {
    let session = Device::open()?.create_session("many")?;
    for token in 0..MANY {
        let file = memfd::create(token % 3 * 3000)?;
        data::fill(&file, token, whole(token % 3 * 3000))?;
        session
            .preserve(&file, token * token)
            .with_context(|| format!("file {token}"))?;
    }
    ctx.keep(session);
    Ok(())
}

fn check_many(_: &mut Ctx) -> Result<()> {
    let session = Device::open()?.retrieve_session("many")?;
    for i in 0..MANY {
        let token = i * 7 % MANY;
        let size = token % 3 * 3000;
        let file = session
            .retrieve(token * token)
            .with_context(|| format!("file {token}"))?;
        data::check(&file, token, size, &[whole(size)]).with_context(|| format!("file {token}"))?;
    }
    session.finish()?;
    Ok(())
}

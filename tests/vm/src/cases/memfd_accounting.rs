// SPDX-License-Identifier: GPL-2.0

//! What a preserved memfd cost comes back, in the old kernel and in the new one, whatever became of it.

use super::common::data::{self, whole};
use super::common::luo::{Device, Session};
use super::common::memfd::Mapping;
use super::common::modules::Recorder;
use super::common::pages::PAGE;
use super::common::{memfd, only_ours};
use crate::ctx::Ctx;
use crate::procfs::{number_in, refresh_vmstat};
use crate::test::{Config, Test};
use anyhow::{ensure, Context, Result};
use std::fs::File;
use std::path::Path;
use std::time::Duration;

/// The cases.
pub const TESTS: &[Test] = &[
    Test::new("all_comes_back", CONFIG, &[preserve, all_comes_back]),
    Test::new(
        "all_comes_back_from_v2",
        CONFIG.params("memfd_v2=1"),
        &[preserve, all_comes_back],
    ),
    Test::new("let_go_in_the_old_kernel", CONFIG, &[let_go]),
];

// One CPU: each keeps freed objects of every kind for itself, megabytes in all.
const CONFIG: Config = Config::new().memory_mib(1280).cpus(1).timeout_s(300);
const P: u64 = PAGE as u64;

/// Files of a session: so many small ones that a page lost with each is seen, a large one of many runs, and one in folios
/// of 2 MiB.
const SMALL: u64 = 500;
const SMALL_SIZE: u64 = 3 * P - 1;
const LARGE: u64 = 32 << 20;
const HUGE: u64 = 16 << 20;
const TOKENS: std::ops::Range<u64> = 0..SMALL + 2;
/// What is lost in MiB is more than what else happens in a kernel that does nothing.
const TOLERANCE_KIB: i64 = 1024;
const PATIENCE: Duration = Duration::from_secs(60);

fn file(token: u64) -> Result<File> {
    let size = match token {
        SMALL => LARGE,
        ..SMALL => SMALL_SIZE,
        _ => HUGE,
    };
    let file = memfd::create(size)?;
    if token < SMALL {
        data::fill(&file, token, whole(size))?;
        return Ok(file);
    }
    if token > SMALL {
        memfd::fill_with_folios(&file, whole(size), 2048)?;
        return Ok(file);
    }
    let map = Mapping::new(&file, size as usize)?;
    // Every second page, then the others from the end: hardly two that follow each other in memory, too.
    let pages = size as usize / PAGE;
    for page in (0..pages).step_by(2).chain((1..pages).step_by(2).rev()) {
        map.write(page * PAGE, page as u8 | 1);
    }
    Ok(file)
}

fn fill_session(session: &Session) -> Result<()> {
    for token in TOKENS {
        session
            .preserve(&file(token)?, token)
            .with_context(|| format!("file {token}"))?;
    }
    Ok(())
}

/// What there is of memory, in KiB.
#[derive(Clone, Copy, Debug)]
struct Memory {
    total: i64,
    used: i64,
    unavailable: i64,
    shmem: i64,
    /// What of it is in folios of 2 MiB.
    huge: i64,
    /// Not KiB: how many inodes memfds and other files on tmpfs have. One that is lost with each small file is not seen
    /// in the others.
    inodes: i64,
}

impl Memory {
    fn now(ctx: &Ctx) -> Result<Self> {
        // What each CPU has counted is added up only now and then.
        refresh_vmstat()?;
        let kib = |key| Ok::<_, anyhow::Error>(ctx.meminfo_kib(key)? as i64);
        let (total, kept) = (kib("MemTotal")?, kept_by_cpus_kib()?);
        Ok(Self {
            total,
            used: total - kib("MemFree")? - kept,
            unavailable: total - kib("MemAvailable")? - kept,
            shmem: kib("Shmem")?,
            huge: kib("ShmemHugePages")?,
            inodes: inodes()?,
        })
    }

    /// The same once nothing changes any more: what was let go of comes back bit by bit, and while it does so the
    /// figures, which are read one after the other, do not fit together.
    fn settled(ctx: &Ctx) -> Result<Self> {
        let mut now = Self::now(ctx)?;
        ctx.wait_for("memory that does not change", PATIENCE, || {
            let before = now;
            now = Self::now(ctx).unwrap_or(before);
            (now.used - before.used).abs() + (now.unavailable - before.unavailable).abs()
                < TOLERANCE_KIB / 8
        })?;
        Ok(now)
    }

    /// Fails unless as much is used as before, at the latest when all is done that the kernel puts off.
    fn is_back(&self, ctx: &Ctx) -> Result<()> {
        let mut now = Self::now(ctx)?;
        ctx.wait_for("memory", PATIENCE, || {
            now = Self::now(ctx).unwrap_or(Memory {
                used: i64::MAX,
                ..now
            });
            now.used - self.used < TOLERANCE_KIB
                && now.unavailable - self.unavailable < TOLERANCE_KIB
                && (now.shmem, now.huge, now.inodes) == (self.shmem, self.huge, self.inodes)
        })
        .with_context(|| format!("{now:?} now, {self:?} before"))
    }
}

/// The inodes of shmem that are in use.
fn inodes() -> Result<i64> {
    const CACHE: &str = "shmem_inode_cache";
    // What CPUs keep for themselves counts as used, until it is given back.
    let shrink = Path::new("/sys/kernel/slab").join(CACHE).join("shrink");
    std::fs::write(&shrink, "1").with_context(|| shrink.display().to_string())?;
    number_in("/proc/slabinfo", CACHE)
}

/// Free pages that a CPU keeps for itself: they are not counted as free, and can be many.
fn kept_by_cpus_kib() -> Result<i64> {
    let text = std::fs::read_to_string("/proc/zoneinfo")?;
    let counts = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("count:"));
    counts
        .map(|count| Ok(count.trim().parse::<i64>()? * 4))
        .sum()
}

/// What KHO and the orchestrator show in debugfs.
fn debugfs() -> Result<Vec<String>> {
    let mut lines = Vec::new();
    for dir in [
        "/sys/kernel/debug/kho/out",
        "/sys/kernel/debug/kho/out/sub_fdts",
    ] {
        for entry in std::fs::read_dir(dir).context(dir)? {
            lines.push(entry?.path().display().to_string());
        }
    }
    lines.sort();
    let handlers = Path::new("/sys/kernel/debug/luo/handlers");
    let handlers = std::fs::read_to_string(handlers).context("luo/handlers")?;
    lines.extend(handlers.lines().map(String::from));
    Ok(lines)
}

fn let_go(ctx: &mut Ctx) -> Result<()> {
    only_ours(ctx, "its debugfs is another")?;
    let recorder = Recorder::new(ctx)?;
    let kept = recorder.kept()?;
    let device = Device::open()?;
    let round = |name: &str| -> Result<()> {
        let session = device.create_session(name)?;
        fill_session(&session)?;
        // Half of them one by one, the others with the session.
        for token in TOKENS.step_by(2) {
            session.unpreserve(token)?;
        }
        Ok(())
    };
    // KHO keeps the nodes of its tree for ever.
    round("warm")?;
    let (memory, debug) = (Memory::settled(ctx)?, debugfs()?);
    for i in 0..4 {
        round(&format!("round {i}"))?;
    }
    memory.is_back(ctx)?;
    ensure!(debugfs()? == debug, "{:?} instead of {debug:?}", debugfs()?);
    // A refusal halfway costs nothing either: the large file is preserved in another session.
    let (held, other) = (
        device.create_session("held")?,
        device.create_session("other")?,
    );
    let large = file(SMALL)?;
    held.preserve(&large, 1)?;
    for token in 0..1000 {
        ensure!(other.preserve(&large, token).is_err(), "preserved twice");
    }
    drop((held, other, large));
    memory.is_back(ctx)?;
    ensure!(debugfs()? == debug, "{:?} instead of {debug:?}", debugfs()?);
    let now = recorder.kept()?;
    ensure!(now == kept, "KHO keeps {now:?} instead of {kept:?}");
    recorder.remove()
}

/// What becomes of the files of a session in the new kernel.
type Fate = fn(&Device, &str) -> Result<()>;

const FATES: [(&str, Fate); 6] = [
    ("touched, finished, closed", |device, name| {
        let session = device.retrieve_session(name)?;
        let files = retrieve(&session, TOKENS)?;
        files.iter().try_for_each(|file| touch(file, 1))?;
        Ok(session.finish()?)
    }),
    ("finished, touched, closed", |device, name| {
        let session = device.retrieve_session(name)?;
        let files = retrieve(&session, TOKENS)?;
        session.finish()?;
        files.iter().try_for_each(|file| touch(file, 1))
    }),
    ("closed untouched, finished", |device, name| {
        let session = device.retrieve_session(name)?;
        drop(retrieve(&session, TOKENS)?);
        Ok(session.finish()?)
    }),
    ("half touched, not finished", |device, name| {
        let session = device.retrieve_session(name)?;
        let files = retrieve(&session, TOKENS)?;
        // In the midst of folios that nobody has touched.
        memfd::punch(&files[SMALL as usize + 1], P, 3 << 20)?;
        memfd::truncate(&files[SMALL as usize + 1], HUGE / 2 + P + 1)?;
        files.iter().try_for_each(|file| touch(file, 2))?;
        memfd::punch(&files[SMALL as usize], 0, LARGE / 3)?;
        memfd::truncate(&files[SMALL as usize], LARGE / 2 + 1)?;
        drop(session);
        Ok(())
    }),
    ("half retrieved, finished", |device, name| {
        let session = device.retrieve_session(name)?;
        let files = retrieve(&session, SMALL / 2..SMALL)?;
        session.finish()?;
        drop(files);
        Ok(())
    }),
    ("never retrieved", |device, name| {
        drop(device.retrieve_session(name)?);
        Ok(())
    }),
];

fn retrieve(session: &Session, tokens: std::ops::Range<u64>) -> Result<Vec<File>> {
    tokens.map(|token| Ok(session.retrieve(token)?)).collect()
}

/// Touches every page, or every `step`th.
fn touch(file: &File, step: usize) -> Result<()> {
    let len = file.metadata()?.len() as usize;
    let map = Mapping::new(file, len)?;
    for index in (0..len).step_by(step * PAGE) {
        ensure!(map.read(index) != 0 || len < LARGE as usize, "it is empty");
    }
    Ok(())
}

fn preserve(ctx: &mut Ctx) -> Result<()> {
    ctx.set("total", ctx.meminfo_kib("MemTotal")?);
    let device = Device::open()?;
    for (name, _) in FATES {
        let session = device.create_session(name)?;
        fill_session(&session).context(name)?;
        ctx.keep(session);
    }
    Ok(())
}

fn all_comes_back(ctx: &mut Ctx) -> Result<()> {
    let limit = nix::sys::resource::Resource::RLIMIT_NOFILE;
    nix::sys::resource::setrlimit(limit, 2 * SMALL, 2 * SMALL)?;
    let device = Device::open()?;
    let recorder = Recorder::new(ctx)?;
    let start = Memory::settled(ctx)?;
    for (name, fate) in FATES {
        let before = Memory::settled(ctx)?;
        fate(&device, name).context(name)?;
        before.is_back(ctx).context(name)?;
        let now = Memory::now(ctx)?;
        let grown = now.total - before.total;
        let files = ((LARGE + HUGE) >> 10) as i64 + SMALL as i64 * 12;
        ensure!(
            grown >= files,
            "{name}: the machine got only {grown} KiB back"
        );
    }
    start.is_back(ctx).context("all in all")?;
    let (total, before) = (Memory::now(ctx)?.total, ctx.get("total")?.parse::<i64>()?);
    ensure!(
        (total - before).abs() < TOLERANCE_KIB,
        "the machine has {total} KiB, it had {before}"
    );
    let used: Vec<_> = debugfs()?
        .into_iter()
        .filter(|line| line.contains("files") && !line.ends_with("files 0"))
        .collect();
    ensure!(used.is_empty(), "in use: {used:?}");
    // What the handover itself consists of stays until the next one.
    let left = recorder.unrestored()?;
    ensure!(left.1 <= 3, "{left:?} are not restored");
    recorder.remove()
}

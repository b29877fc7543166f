// SPDX-License-Identifier: GPL-2.0

//! What sessions and preserved files cost in memory, who is charged for it, and that all of it comes back.

use super::common::luo::{Device, Session};
use super::common::pages::PAGE;
use super::common::{memfd, only_ours, raise_fd_limit};
use crate::ctx::Ctx;
use crate::process::Child;
use crate::procfs;
use crate::test::{Config, Orchestrator, Test};
use anyhow::{ensure, Context, Result};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The cases.
pub const TESTS: &[Test] = &[
    Test::new("session", Config::new(), &[session]),
    Test::new("empty_memfd", Config::new(), &[empty_memfd]),
    Test::new("one_page", Config::new(), &[one_page]),
    Test::new("charged", Config::new(), &[charged]),
    Test::new(
        "handed_over",
        Config::new().orchestrators(&[Orchestrator::Default, Orchestrator::None]),
        &[hand_on, handed_over],
    ),
];

/// So many of each: enough for the noise to be small.
const COUNT: u64 = 10_000;

/// Free memory in bytes, when the kernel has given back what it holds for speed, and each CPU has told what it has
/// counted: that may be half a megabyte.
///
/// MemTotal is of no use: what the previous kernel preserved is no part of it until it is restored.
fn free(ctx: &Ctx) -> Result<u64> {
    std::fs::write("/proc/sys/vm/drop_caches", "3")?;
    procfs::refresh_vmstat()?;
    Ok(ctx.free_kib()? * 1024)
}

/// The same, when what was freed of late has come back: RCU and the workers take their time.
fn settled(ctx: &Ctx) -> Result<u64> {
    let mut most = 0;
    for _ in 0..10 {
        most = most.max(free(ctx)?);
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(most)
}

/// Tells what one of [`COUNT`] costs, and fails if it is more than `most` bytes.
fn costs(ctx: &Ctx, what: &str, before: u64, after: u64, most: u64) -> Result<()> {
    let each = before.saturating_sub(after) / COUNT;
    ctx.figure(&format!("{what}: {each} bytes"));
    ensure!(each <= most, "{what}: {each} bytes, more than {most}");
    Ok(())
}

/// Fails unless what was free before is so again, but for 100 bytes of each.
fn comes_back(ctx: &Ctx, before: u64) -> Result<()> {
    let mut most = 0;
    let enough = || {
        most = free(ctx).unwrap_or(0).max(most);
        most + 100 * COUNT > before
    };
    ctx.wait_for("all of it is free again", Duration::from_secs(30), enough)
        .with_context(|| format!("{most} bytes are free instead of {before}"))
}

fn sessions(device: &Device, count: u64) -> Result<Vec<Session>> {
    (0..count)
        .map(|i| {
            let session = device.create_session(&format!("session-{i}"));
            session.with_context(|| format!("session {i}"))
        })
        .collect()
}

fn session(ctx: &mut Ctx) -> Result<()> {
    raise_fd_limit(2 * COUNT)?;
    let device = Device::open()?;
    let before = settled(ctx)?;
    let held = sessions(&device, COUNT)?;
    costs(ctx, "a session", before, settled(ctx)?, 1300)?;
    drop(held);
    comes_back(ctx, before)
}

/// Preserves [`COUNT`] memfds of so many bytes in a session.
fn memfds(ctx: &Ctx, what: &str, size: u64, most: u64) -> Result<()> {
    raise_fd_limit(2 * COUNT)?;
    let files = (0..COUNT)
        .map(|_| {
            let file = memfd::create(size)?;
            memfd::write_at(&file, 0, &vec![1; size as usize])?;
            Ok(file)
        })
        .collect::<Result<Vec<File>>>()?;
    let device = Device::open()?;
    let session = device.create_session("files")?;
    let before = settled(ctx)?;
    for (token, file) in files.iter().enumerate() {
        session
            .preserve(file, token as u64)
            .with_context(|| format!("file {token}"))?;
    }
    costs(ctx, what, before, settled(ctx)?, most)?;
    drop(session);
    comes_back(ctx, before)
}

fn empty_memfd(ctx: &mut Ctx) -> Result<()> {
    memfds(ctx, "an empty memfd in a session", 0, 5500)
}

fn one_page(ctx: &mut Ctx) -> Result<()> {
    memfds(ctx, "a memfd of a page in a session", PAGE as u64, 14_500)
}

/// A control group that is removed when this is dropped.
struct Group(PathBuf);

impl Group {
    fn new(name: &str) -> Result<Self> {
        let root = Path::new("/sys/fs/cgroup");
        std::fs::write(root.join("cgroup.subtree_control"), "+memory").context("+memory")?;
        let path = root.join(name);
        std::fs::create_dir(&path)?;
        Ok(Self(path))
    }

    /// Puts the calling process into it.
    fn enter(&self) -> Result<()> {
        Ok(std::fs::write(self.0.join("cgroup.procs"), "0")?)
    }

    /// Bytes that it is charged for. Up to a quarter of a megabyte a CPU may be charged in advance.
    fn charged(&self) -> Result<u64> {
        let text = std::fs::read_to_string(self.0.join("memory.current"))?;
        Ok(text.trim().parse()?)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.0);
    }
}

/// Whoever makes sessions and preserves files is charged for what that takes.
fn charged(ctx: &mut Ctx) -> Result<()> {
    only_ours(ctx, "charges nobody")?;
    const SESSIONS: u64 = 5000;
    const FILES: u64 = 1500;
    const MARGIN: u64 = 1 << 20;
    let group = Group::new("charged")?;
    let before = settled(ctx)?;
    let holder = Child::holder(|| {
        group.enter()?;
        raise_fd_limit(SESSIONS + 2 * FILES)?;
        let files = (0..FILES)
            .map(|_| memfd::create(0))
            .collect::<Result<Vec<_>>>()?;
        let device = Device::open()?;
        let at_first = group.charged()?;
        let held = sessions(&device, SESSIONS)?;
        let for_sessions = group.charged()? - at_first;
        for (token, file) in files.iter().enumerate() {
            held[0].preserve(file, token as u64)?;
        }
        let for_files = group.charged()? - at_first - for_sessions;
        ctx.figure(&format!(
            "charged: {} bytes a session, {} an empty memfd",
            for_sessions / SESSIONS,
            for_files / FILES
        ));
        // An object, an open file with its name, and an entry in a page.
        ensure!(for_sessions + MARGIN >= 1000 * SESSIONS);
        // A page, above all.
        ensure!(for_files + MARGIN >= PAGE as u64 * FILES);
        Ok((held, files))
    })?;
    holder.kill()?;
    let gone = || group.charged().is_ok_and(|bytes| bytes < MARGIN);
    ctx.wait_for("it is charged no more", Duration::from_secs(30), gone)?;
    comes_back(ctx, before)
}

fn hand_on(ctx: &mut Ctx) -> Result<()> {
    only_ours(ctx, "is no module")?;
    raise_fd_limit(2 * COUNT)?;
    let device = Device::open()?;
    let files = device.create_session("files")?;
    for token in 0..COUNT {
        files.preserve(&memfd::create(0)?, token)?;
    }
    ctx.keep((files, sessions(&device, COUNT)?));
    Ok(())
}

/// What was handed over and nobody has asked for yet.
fn handed_over(ctx: &mut Ctx) -> Result<()> {
    let before = settled(ctx)?;
    ctx.insmod("")?;
    let after = settled(ctx)?;
    costs(
        ctx,
        "a session and a file, handed over and not retrieved",
        before,
        after,
        1600,
    )?;
    let device = Device::open()?;
    for i in 0..COUNT {
        device.retrieve_session(&format!("session-{i}"))?.finish()?;
    }
    device.retrieve_session("files")?.finish()?;
    drop(device);
    // All of it is free, and what the previous kernel had left, too: a page of each file, above all.
    let enough = || free(ctx).is_ok_and(|now| now > after + (PAGE as u64 + 500) * COUNT);
    ctx.wait_for("all of it is free", Duration::from_secs(30), enough)?;
    ctx.rmmod()
}

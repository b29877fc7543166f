// SPDX-License-Identifier: GPL-2.0

//! A process with 64 MiB of memory preserves a large memfd, whose pages somebody else pays for: what the kernel needs to
//! do so, and what it keeps, is charged to that process.

use super::super::common::cgroup::Cgroup;
use super::super::common::luo::{Device, Session};
use super::super::common::memfd::{self, Mapping};
use super::super::common::pages::PAGE;
use super::super::common::{only_ours, still_works};
use super::limited::{LIMIT, PATIENCE};
use crate::ctx::Ctx;
use crate::process::{Child, Said};
use crate::test::Config;
use anyhow::{bail, ensure, Context, Result};
use std::fs::File;
use std::io::Write;

/// A scratch area so small that the pages are not from there, and would be moved.
pub const CONFIG: Config = Config::new()
    .memory_mib(2048)
    .cmdline("kho_scratch=64M,16M,16M")
    .timeout_s(600);

/// The pages of each memfd.
const PAGES: u64 = (512 << 20) / PAGE as u64;
/// What is charged in advance, or not given back yet: 64 pages for each of two CPUs.
const SLACK: u64 = 512 << 10;

/// A memfd, and what it takes, in bytes for each page: see "Memory" in Documentation/security.rst.
struct Kind {
    what: &'static str,
    /// Every so many pages of the file there is one.
    every: u64,
    /// While it is preserved.
    kept: u64,
    /// At the most, meanwhile.
    most: u64,
}

const KINDS: [Kind; 2] = [
    Kind {
        what: "every other page",
        every: 2,
        // A hole and an entry for each page.
        kept: 16 + 16,
        // The extents beside these.
        most: 16 + 16 + 16,
    },
    Kind {
        what: "every page",
        every: 1,
        // A table.
        kept: 8,
        // What it is made of beside it.
        most: 8 + 8,
    },
];

impl Kind {
    /// No two pages that follow each other in the file do so in memory.
    fn file(&self) -> Result<File> {
        const STRIDE: u64 = 64;
        let file = memfd::create(self.every * PAGES * PAGE as u64)?;
        let map = Mapping::new(&file, file.metadata()?.len() as usize)?;
        for start in 0..STRIDE {
            for page in (start..PAGES).step_by(STRIDE as usize) {
                map.write((page * self.every) as usize * PAGE, 1);
            }
        }
        Ok(file)
    }
}

/// What a cgroup was charged: before the command, with what it made, and at the most.
#[derive(Debug)]
struct Charged {
    before: u64,
    kept: u64,
    most: u64,
}

/// A process that has so much more memory than it needs for itself, and preserves a file as number 1 with it. Says how
/// that ended, and what was charged.
fn preserve(group: &Cgroup, room: u64, session: &Session, file: &File) -> Result<(Child, Said)> {
    let mut child = Child::spawn(|pipe| {
        let preserve = || -> Result<String> {
            group.enter()?;
            let before = group.charged()?;
            group.limit(Some(before + room))?;
            let done = session.preserve(file, 1);
            let (kept, most) = (group.charged()?, group.peak()?);
            Ok(format!("{done:?} {before} {kept} {most}"))
        };
        let said = preserve().unwrap_or_else(|err| format!("{err:#}"));
        let _ = writeln!(pipe, "{said}");
        nix::unistd::pause();
    })?;
    let said = child.listen(PATIENCE)?;
    Ok((child, said))
}

impl Charged {
    fn of(said: &Said) -> Result<Self> {
        let Said::Line(line) = said else {
            bail!("the child process: {said:?}");
        };
        let numbers = line.strip_prefix("Ok(()) ").context(line.clone())?;
        let numbers: Result<Vec<u64>, _> = numbers.split(' ').map(str::parse).collect();
        match numbers?[..] {
            [before, kept, most] => Ok(Self { before, kept, most }),
            _ => bail!("{line}"),
        }
    }
}

pub fn memfds(ctx: &mut Ctx) -> Result<()> {
    only_ours(ctx, "charges nobody")?;
    for kind in KINDS {
        let file = kind.file()?;
        let session = Device::open()?.create_session("limited")?;
        enough(ctx, &kind, &session, &file).context(kind.what)?;
        too_little(ctx, &kind, &session, &file)
            .with_context(|| format!("{}, with too little memory", kind.what))?;
    }
    Ok(())
}

/// It works, and all of it is charged, until the session is closed.
fn enough(ctx: &Ctx, kind: &Kind, session: &Session, file: &File) -> Result<()> {
    let group = Cgroup::new("limited")?;
    let (child, said) = preserve(&group, LIMIT, session, file)?;
    let charged = Charged::of(&said)?;
    let (kept, most) = (
        charged.kept.saturating_sub(charged.before),
        charged.most.saturating_sub(charged.before),
    );
    ctx.figure(&format!(
        "{}: {} KiB are kept, {} at the most",
        kind.what,
        kept >> 10,
        most >> 10
    ));
    for (what, actual, each) in [("kept", kept, kind.kept), ("needed", most, kind.most)] {
        let wanted = each * PAGES;
        ensure!(
            actual.abs_diff(wanted) <= SLACK,
            "{what}: {actual} bytes are charged instead of {wanted}"
        );
    }
    // As memory of the kernel: the pages of the file are not the process's.
    let mut stat = [Ok(0), Ok(0)];
    ctx.wait_for("memory.stat", PATIENCE, || {
        stat = ["kernel", "shmem"].map(|key| group.stat(key));
        matches!(stat, [Ok(kernel), Ok(shmem)] if kernel + SLACK >= kept && shmem < SLACK)
    })
    .with_context(|| format!("kernel and shmem: {stat:?}"))?;
    session.unpreserve(1)?;
    ctx.wait_for("what was kept", PATIENCE, || {
        group
            .charged()
            .is_ok_and(|now| now <= charged.before + SLACK)
    })
    .with_context(|| format!("{:?} of {charged:?}", group.charged()))?;
    drop(child);
    Ok(())
}

/// The process gets ENOMEM, or is killed, and nobody else has anything of it.
fn too_little(ctx: &Ctx, kind: &Kind, session: &Session, file: &File) -> Result<()> {
    let free = ctx.free_kib()?;
    let group = Cgroup::new("short")?;
    let (child, said) = preserve(&group, kind.most * PAGES / 2, session, file)?;
    match &said {
        Said::Line(line) => ensure!(line.starts_with("Err(ENOMEM)"), "{line}"),
        Said::Ended => {
            let killed = group.events("oom_kill")?;
            ensure!(killed == 1, "{killed} were killed for want of memory");
        }
        Said::Late => bail!("it goes on for ever"),
    }
    ctx.figure(&format!("{}: {said:?}", kind.what));
    ensure!(session.tokens()?.is_empty(), "it is preserved");
    drop(child);
    ctx.wait_for("its memory is not charged", PATIENCE, || {
        group.charged().is_ok_and(|now| now <= SLACK)
    })?;
    ctx.wait_for("its memory is free", PATIENCE, || {
        ctx.free_kib().is_ok_and(|now| now + (8 << 10) > free)
    })?;
    // Who has memory does what the other could not.
    memfd::punch(file, 0, PAGE as u64).context("punching what was not preserved")?;
    session.preserve(file, 1).context("without a limit")?;
    still_works(session)
}

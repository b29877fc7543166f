// SPDX-License-Identifier: GPL-2.0

//! PREPARE and reboot() look at what came into a memfd since it was preserved. To be killed ends that: of what came nothing
//! is preserved then, and all else is as before.

use super::{command, done};
use crate::cases::common::luo::{Device, Session};
use crate::cases::common::memfd::{self, Mapping};
use crate::cases::common::modules::{Kind, Recorder};
use crate::cases::common::pages::PAGE;
use crate::cases::common::scene::{pinned, pins};
use crate::cases::common::{only_ours, refused};
use crate::cases::races::LONG;
use crate::ctx::Ctx;
use crate::kexec;
use crate::test::Config;
use anyhow::{bail, ensure, Context, Result};
use nix::errno::Errno;
use std::fs::File;

pub const CONFIG: Config = Config::new().memory_mib(2048).timeout_s(600);
const SIZE: usize = 256 << 20;
const PAGES: usize = SIZE / PAGE;
/// So many pages are pinned when it has surely begun, and has most of its work before it.
const BEGUN: i64 = 1024;
/// A busy machine may kill it late: one attempt must come in time.
const ATTEMPTS: usize = 10;

type Command = fn(&Session) -> Result<String, Errno>;

/// A command that looks at the pages, and how it is answered.
const COMMANDS: [(&str, Command, &str); 2] = [
    (
        "PREPARE",
        |session| session.prepare().map_err(|(errno, _)| errno).map(done),
        "done",
    ),
    // The file behind it refuses.
    ("reboot()", |_| Err(kexec::execute()), "EIO"),
];

/// A session with a memfd of one page, and one with a file that is frozen behind it.
struct Large {
    recorder: Recorder,
    session: Session,
    _last: Session,
    file: File,
    map: Mapping,
}

pub fn killed(ctx: &mut Ctx) -> Result<()> {
    only_ours(ctx, "it looks at all when it freezes")?;
    let recorder = Recorder::new(ctx)?;
    let device = Device::open()?;
    let session = device.create_session("large")?;
    let last = device.create_session("last")?;
    last.preserve(&recorder.open(Kind::B, 8)?, 8)?;
    ctx.kexec_load()?;
    let file = memfd::create(SIZE as u64)?;
    let large = Large {
        recorder,
        session,
        _last: last,
        map: Mapping::new(&file, SIZE)?,
        file,
    };
    for (what, act, answer) in COMMANDS {
        let in_time = || large.attempt(ctx, act, answer).context(what);
        if !(0..ATTEMPTS)
            .map(|_| in_time())
            .find(|it| !matches!(it, Ok(false)))
            .transpose()?
            .unwrap_or(false)
        {
            bail!("{what}: all of it is done each time");
        }
    }
    let Large {
        recorder,
        session,
        _last: last,
        ..
    } = large;
    drop((session, last));
    recorder.nothing_left()?;
    recorder.remove()
}

impl Large {
    /// Kills a process in a command, and does it once more. Says whether the first was ended early.
    fn attempt(
        &self,
        ctx: &Ctx,
        act: fn(&Session) -> Result<String, Errno>,
        answer: &str,
    ) -> Result<bool> {
        let session = &self.session;
        memfd::punch(&self.file, 0, SIZE as u64)?;
        self.map.write(0, 0);
        session.preserve(&self.file, 1)?;
        self.fill();
        let before = (self.recorder.kept()?, pins()?);
        let pinned_before = pinned()?;
        self.recorder.take()?;
        self.recorder.fail("freeze", 1, Errno::EIO)?;

        let doer = command(|| act(session))?;
        ctx.wait_for("that it begins", LONG, || {
            pinned().is_ok_and(|now| now >= pinned_before + BEGUN)
        })?;
        doer.0.kill()?;
        let state = session.state()?;
        let is_late = state != (1, 1, 0) || !self.recorder.take()?.is_empty();
        if !is_late {
            let after = (self.recorder.kept()?, pins()?);
            ensure!(after == before, "{after:?} instead of {before:?}");
            let looked_at = pinned()? - pinned_before;
            ensure!(
                looked_at < PAGES as i64,
                "it was ended after {looked_at} of {PAGES} pages"
            );
            let punched = memfd::punch(&self.file, 0, PAGE as u64);
            refused("taking a preserved page", punched, Errno::EPERM)?;

            self.recorder.fail("freeze", 1, Errno::EIO)?;
            let again = command(|| act(session))?;
            again.says("once more", &format!("{answer}, signals: 0"))?;
            let kept = |kept: Option<(u64, u64)>| kept.map_or(0, |(_, pages)| pages);
            let more = kept(self.recorder.kept()?) - kept(before.0);
            ensure!(more >= PAGES as u64 - 1, "only {more} pages came");
        }
        session.cancel()?;
        session.unpreserve(1)?;
        let wrong = (0..PAGES).find(|&page| self.map.read(page * PAGE) != page as u8);
        ensure!(wrong.is_none(), "page {wrong:?} is wrong");
        Ok(!is_late)
    }

    /// In an order that makes it long work: no two pages that follow each other in the file do so in memory.
    fn fill(&self) {
        const STRIDE: usize = 64;
        for start in 0..STRIDE {
            for page in (start..PAGES).step_by(STRIDE) {
                self.map.write(page * PAGE, page as u8);
            }
        }
    }
}

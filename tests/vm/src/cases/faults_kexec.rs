// SPDX-License-Identifier: GPL-2.0

//! Every step of freeze fails once: then reboot(KEXEC) fails and all is as before, until it jumps and all arrives.

use super::common::cgroup::Cgroup;
use super::common::data::{self, Extent};
use super::common::ext::{self, NORMAL};
use super::common::faults::{Faults, Points};
use super::common::held::{self, Held};
use super::common::luo::{Device, Session};
use super::common::memfd::{self, Mapping};
use super::common::modules::{id_of, Kind, Recorder};
use super::common::open_fds;
use super::common::pages::PAGE;
use super::common::scene::references;
use crate::ctx::Ctx;
use crate::kexec;
use crate::test::{Config, Test};
use anyhow::{bail, ensure, Context, Result};
use nix::errno::Errno;
use std::fs::File;
use std::os::unix::fs::FileExt;

/// The cases.
pub const TESTS: &[Test] = &[
    Test::new("freeze", CONFIG, &[freeze, arrive]),
    Test::new("freeze_v2", CONFIG.params("memfd_v2=1"), &[freeze, arrive]),
];

const CONFIG: Config = Config::new().timeout_s(1800).with_faults();
const P: u64 = PAGE as u64;
const SEED: u64 = 11;
const SIZE: u64 = 30 * P + 5;
const EXTENTS: &[Extent] = &[
    Extent {
        start: 0,
        len: 3 * P,
    },
    Extent {
        start: 7 * P,
        len: P,
    },
    Extent {
        start: 29 * P,
        len: P + 5,
    },
];
/// Which file of a session is what.
const MEMFD: u64 = 1;
const LATE: u64 = 2;
const FLBS: u64 = 3;
/// Pages of the file called [`LATE`]. Each attempt fills one of them, and then none: what is found takes more steps
/// with each page, where no two are neighbours in memory, so that the attempts would never come to their end.
const PAGES: usize = 100;
/// Why the last file of all does not freeze.
const LAST: Errno = Errno::ECANCELED;

/// What is to be handed over.
struct Work {
    recorder: Recorder,
    faults: Faults,
    sessions: [Session; 2],
    /// A file for each of them that is filled bit by bit.
    late: [Mapping; 2],
    /// Page 0 of the first of these is a text for the next kernel.
    text: File,
    /// Has the file that freezes last.
    _last: Session,
    /// How many pages of each were filled.
    filled: usize,
    points: Points,
}

fn filled(recorder: &Recorder, name: &str) -> Result<(Session, File)> {
    let session = Device::open()?.create_session(name)?;
    let file = memfd::create(SIZE)?;
    for extent in EXTENTS {
        data::fill(&file, SEED, *extent)?;
    }
    let late = memfd::create((PAGES * PAGE) as u64)?;
    memfd::write_at(&late, 0, b"nothing filled yet")?;
    session.preserve(&file, MEMFD)?;
    session.preserve(&late, LATE)?;
    session.preserve(&recorder.open(Kind::A, 5)?, FLBS)?;
    Ok((session, late))
}

impl Work {
    fn new(ctx: &Ctx) -> Result<Self> {
        let faults = Faults::new()?;
        faults.need_own()?;
        let recorder = Recorder::new(ctx)?;
        let (first, text) = filled(&recorder, "first")?;
        let (second, other) = filled(&recorder, "second")?;
        let last = Device::open()?.create_session("last")?;
        last.preserve(&recorder.open(Kind::A, 6)?, FLBS)?;
        Ok(Self {
            late: [
                Mapping::new(&text, PAGES * PAGE)?,
                Mapping::new(&other, PAGES * PAGE)?,
            ],
            recorder,
            faults,
            sessions: [first, second],
            text,
            _last: last,
            filled: 0,
            points: Points::default(),
        })
    }

    fn state(&self) -> Result<String> {
        for session in &self.sessions {
            let (state, tokens) = (session.state()?, session.tokens()?);
            ensure!(state == (NORMAL, 3, 0) && tokens == [MEMFD, LATE, FLBS]);
        }
        let (references, descriptors) = (references()?, open_fds()?);
        Ok(format!(
            "{references} references, {descriptors} descriptors"
        ))
    }

    /// Fills a page of each late file, if there is one: it is found in the kexec.
    fn fill(&mut self) {
        if self.filled + 1 == PAGES {
            return;
        }
        self.filled += 1;
        for map in &self.late {
            map.store(self.filled * PAGE / 8, self.filled as u64);
        }
    }

    /// reboot(KEXEC) with a fault at a point. Returns only if it failed: with why, and whether a fault was the reason.
    fn attempt(&mut self, ctx: &mut Ctx, nth: u32) -> Result<bool> {
        let before = self.state()?;
        let text = format!("{} pages filled, {}\n", self.filled, self.points);
        memfd::write_at(&self.text, 0, text.as_bytes())?;
        let (errno, failed) = ctx.jump(|| self.faults.inject(nth, kexec::execute))?;
        let at = || format!("reboot(KEXEC), point {nth}, {failed:?}: {errno:?}");
        if let Some(kind) = failed {
            self.points.count(kind, errno == LAST);
        }
        ensure!(
            errno == LAST || failed.is_some_and(|kind| kind.explains(errno)),
            "{}",
            at()
        );
        let after = self.state().with_context(at)?;
        ensure!(after == before, "{}: {after} instead of {before}", at());
        for session in &self.sessions {
            let file = memfd::create(P)?;
            session.preserve(&file, 9).with_context(at)?;
            session.unpreserve(9).with_context(at)?;
        }
        Ok(failed.is_some())
    }

    /// Lets the last file refuse, so that no attempt goes well in which a failure was absorbed.
    fn hold_back(&self) -> Result<()> {
        self.recorder.fail("freeze", 3, LAST)
    }
}

/// With nothing to be found, what is preserved stays the same to the page, and what else the kernel has for it. Returns the
/// first number for which there is no point.
fn each_point(work: &mut Work, ctx: &mut Ctx, cgroup: &Cgroup) -> Result<u32> {
    work.hold_back()?;
    let failed = work.attempt(ctx, u32::MAX >> 1)?;
    ensure!(!failed, "that point should not exist");
    let kept = work.recorder.kept()?;
    let held = Held::now(cgroup)?;
    for nth in 1.. {
        work.hold_back()?;
        if !work.attempt(ctx, nth)? {
            ensure!(nth > 1, "nothing of reboot(KEXEC) can fail");
            held.expect_no_more(ctx, "reboot(KEXEC)")?;
            return Ok(nth);
        }
        let now = work.recorder.kept()?;
        ensure!(
            now == kept,
            "point {nth}: KHO has {now:?} instead of {kept:?}"
        );
    }
    bail!("there is no end to it")
}

fn freeze(ctx: &mut Ctx) -> Result<()> {
    let mut work = Work::new(ctx)?;
    ctx.kexec_load()?;
    let last = held::charged(|cgroup| each_point(&mut work, ctx, cgroup))?;
    ctx.figure(&format!("reboot(KEXEC): {}", work.points));
    let mut nth = 1;
    loop {
        work.fill();
        work.hold_back()?;
        if !work.attempt(ctx, nth)? {
            break;
        }
        nth += 1;
    }
    ctx.figure(&format!(
        "reboot(KEXEC), and with pages filled since: {}",
        work.points
    ));
    // What comes behind the last file, until it jumps.
    work.recorder.open_gate()?;
    for nth in last.. {
        work.attempt(ctx, nth)?;
    }
    bail!("it never jumps: {}", work.points)
}

fn arrive(ctx: &mut Ctx) -> Result<()> {
    let recorder = Recorder::new(ctx)?;
    let device = Device::open()?;
    for name in ["first", "second"] {
        let session = device.retrieve_session(name)?;
        ensure!(session.tokens()? == [MEMFD, LATE, FLBS], "{name}");
        data::check(&session.retrieve(MEMFD)?, SEED, SIZE, EXTENTS)?;
        let late = session.retrieve(LATE)?;
        let map = Mapping::new(&late, PAGES * PAGE)?;
        let arrived = (1..PAGES).take_while(|i| map.load(i * PAGE / 8) == *i as u64);
        let arrived = arrived.count();
        ensure!(arrived > 10, "{name}: only {arrived} pages");
        if name == "first" {
            let mut text = [0; PAGE];
            late.read_exact_at(&mut text, 0)?;
            let text = ext::text(&text);
            let text = text.lines().next().unwrap_or_default();
            ensure!(
                text.starts_with(&format!("{arrived} ")),
                "{arrived} pages of {text}"
            );
            ctx.figure(&format!("reboot(KEXEC), before it jumped: {text}"));
        }
        ensure!(id_of(&session.retrieve(FLBS)?)? == 5);
        session.finish()?;
    }
    ensure!(recorder.value("incoming").is_ok(), "FLB x is not there");
    device.retrieve_session("last")?.finish()?;
    drop(device);
    recorder.nothing_left()?;
    recorder.remove()
}

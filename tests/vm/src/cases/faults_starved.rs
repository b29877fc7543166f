// SPDX-License-Identifier: GPL-2.0

//! RETRIEVE_FD of a memfd of which something was taken over already waits for memory: half a minute in all, whatever signal
//! comes meanwhile; also for one who was killed, as the memfd is another's, too. After that it is lost, and nothing of it is
//! used for anything else.

use super::common::faults::Starvation;
use super::common::luo::{Device, Session};
use super::common::memfd::Mapping;
use super::common::pages::PAGE;
use super::common::refused;
use super::faults_incoming::{contents, is_right, put, PAGES};
use super::races::{Doer, LONG};
use super::signalled::{command, done, ends, BOTH};
use crate::ctx::Ctx;
use crate::frames;
use crate::process::{Child, Said};
use crate::procfs::number_in;
use crate::test::{Config, Test};
use anyhow::{bail, ensure, Context, Result};
use nix::errno::Errno;
use nix::sys::signal::kill;
use std::fs::File;
use std::time::Duration;

/// The cases.
pub const TESTS: &[Test] = &[
    Test::new("signalled", CONFIG, &[leave, signalled]),
    Test::new("for_good", CONFIG, &[leave, for_good]),
];

const CONFIG: Config = Config::new().timeout_s(600).with_faults();

/// What a call may allocate before nothing is left: a little more each time, until something was taken over by then.
const STEP: u64 = 64;
const STEPS: u64 = 1024;
/// Who has slept so often in a call waits for memory: nothing else in it has to.
const MANY: i64 = 20;
/// Longer than is waited for memory.
const AT_LAST: Duration = Duration::from_secs(120);

fn leave(ctx: &mut Ctx) -> Result<()> {
    let session = Device::open()?.create_session("starved")?;
    let files = put(&session, 1..=3, PAGES)?;
    let frames = frames_of(&files[0], 1)?;
    ctx.set_baggage(
        frames
            .iter()
            .flat_map(|frame| frame.to_le_bytes())
            .collect(),
    );
    ctx.keep(session);
    Ok(())
}

/// Where in memory the data of a file is.
fn frames_of(file: &File, token: u64) -> Result<Vec<u64>> {
    let (size, extents) = contents(token, PAGES);
    let map = Mapping::new(file, size as usize)?;
    let mut all = Vec::new();
    for extent in extents {
        let at = extent.start as usize..(extent.start + extent.len) as usize;
        for page in at.clone().step_by(PAGE) {
            map.read(page);
        }
        all.extend(frames::of_mapping(
            map.address() + at.start,
            at.len() / PAGE,
        )?);
    }
    ensure!(all.len() > PAGES as usize / 2 && !all.contains(&0));
    Ok(all)
}

/// A process in RETRIEVE_FD, which waits for memory.
struct Starved {
    starvation: Starvation,
    process: Doer,
    /// So many steps it took until it waited.
    steps: u64,
}

impl Starved {
    /// Tries it from so many steps on.
    fn retrieves(ctx: &Ctx, session: &Session, token: u64, first: u64) -> Result<Self> {
        for steps in first..STEPS {
            let bytes = steps * STEP;
            let starvation = Starvation::after(bytes)?;
            let mut process = command(|| {
                Starvation::is_mine().map_err(|_| Errno::ENOTSUP)?;
                session.retrieve(token).map(drop).map(done)
            })?;
            let child = &process.0;
            ctx.wait_for("an end or a wait", LONG, || {
                child.has_ended().unwrap_or(true) || sleeps(child).is_ok_and(|n| n > MANY)
            })?;
            if !child.has_ended()? {
                return Ok(Self {
                    starvation,
                    process,
                    steps,
                });
            }
            // Where nothing was touched, each of these is to be tried again.
            match process.0.listen(LONG)? {
                Said::Line(said) if said.starts_with("ENOMEM") || said.starts_with("ENOSPC") => {}
                said => bail!("with {bytes} bytes: {said:?}"),
            }
        }
        bail!("it never waits")
    }
}

/// How often a process has gone to sleep.
fn sleeps(process: &Child) -> Result<i64> {
    let status = format!("/proc/{}/status", process.pid());
    number_in(&status, "voluntary_ctxt_switches:")
}

/// Once there is memory it is done, and who lives is given the file.
fn signalled(ctx: &mut Ctx) -> Result<()> {
    let session = Device::open()?.retrieve_session("starved")?;
    let mut first = 0;
    for (token, signal) in (1..).zip(BOTH) {
        let Starved {
            starvation,
            process,
            steps,
        } = Starved::retrieves(ctx, &session, token, first)?;
        // The other file takes about as many.
        first = steps.saturating_sub(10);
        let child = &process.0;
        let before = sleeps(child)?;
        kill(child.pid(), signal)?;
        ctx.wait_for("that it goes on to wait", LONG, || {
            sleeps(child).is_ok_and(|n| n > before + 2) || child.has_ended().unwrap_or(true)
        })?;
        ensure!(!child.has_ended()?, "{signal:?}: it was given up");
        drop(starvation);
        ends(process, signal, "done").with_context(|| format!("{signal:?}"))?;
        is_right(&session.retrieve(token)?, token, PAGES)?;
    }
    is_right(&session.retrieve(3)?, 3, PAGES)?;
    Ok(session.finish()?)
}

fn for_good(ctx: &mut Ctx) -> Result<()> {
    let baggage = ctx.baggage()?.context("no frames")?;
    let frames: Vec<_> = baggage
        .chunks_exact(8)
        .map(|frame| u64::from_le_bytes(frame.try_into().expect("eight bytes")))
        .collect();
    let session = Device::open()?.retrieve_session("starved")?;
    let Starved {
        starvation,
        mut process,
        ..
    } = Starved::retrieves(ctx, &session, 1, 0)?;
    let said = process.0.listen(AT_LAST)?;
    ensure!(said == Said::Line("ENOMEM, signals: 0".into()), "{said:?}");
    process.0.wait()?;
    drop(starvation);
    refused("once lost", session.retrieve(1), Errno::ENOMEM)?;
    is_right(&session.retrieve(2)?, 2, PAGES)?;
    session.finish()?;
    let used = frames::in_use(&frames)?;
    ensure!(
        used.is_empty(),
        "of the pages of what was lost these are somebody's: {used:x?}"
    );
    Ok(())
}

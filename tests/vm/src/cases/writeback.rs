// SPDX-License-Identifier: GPL-2.0

//! The kernel can read the argument, but not write the answer: the command fails, and nothing is lost by it.

use super::common::command::Command;
use super::common::luo::{Device, Session};
use super::common::pages::{Pages, PAGE};
use super::common::{data, is_ours, memfd, no_fd_leak, only_ours, refused, still_works};
use crate::ctx::Ctx;
use crate::test::{Config, Test};
use anyhow::{ensure, Context, Result};
use nix::errno::Errno;

/// The cases.
pub const TESTS: &[Test] = &[
    Test::new("create_session", Config::new(), &[create_session]),
    Test::new("preserve_fd", Config::new(), &[preserve_fd]),
    Test::new("get_name", Config::new(), &[get_name]),
    Test::new("retrieve_fd", Config::new(), &[hand_on, retrieve_fd]),
    Test::new("finish", Config::new(), &[hand_on, finish]),
    Test::new(
        "retrieve_session",
        Config::new(),
        &[hand_on, retrieve_session],
    ),
];

/// Issues a command whose argument lies in memory that cannot be written, wholly or from behind the descriptor on.
pub fn unanswerable(command: &Command) -> Result<()> {
    let mut pages = Pages::new(2)?;
    for (read_only, offset) in [(0, 0), (0, PAGE - 8), (1, PAGE - 8), (1, PAGE - 4)] {
        let what = format!(
            "{} at offset {offset}, read-only from page {read_only}",
            command.what
        );
        pages.writable()?;
        let at = pages.put(offset, &command.arg);
        let end = offset + command.arg.len();
        if end <= read_only * PAGE {
            continue; // it would be answered
        }
        pages.read_only_from(read_only)?;
        no_fd_leak(&what, || {
            refused(&what, command.issue_at(at), Errno::EFAULT)
        })?;
    }
    Ok(())
}

fn create_session(_: &mut Ctx) -> Result<()> {
    let device = Device::open()?;
    for _ in 0..100 {
        unanswerable(&Command::create(&device, "unheard"))?;
    }
    let session = device.create_session("unheard").context("its name again")?;
    still_works(&session)
}

fn preserve_fd(_: &mut Ctx) -> Result<()> {
    const SIZE: u64 = 3 * PAGE as u64;
    let device = Device::open()?;
    let session = device.create_session("unheard")?;
    let file = memfd::create(SIZE)?;
    data::fill(&file, 1, data::whole(SIZE))?;
    let mut pages = Pages::new(1)?;
    let command = Command::preserve(&session, &file, 7);
    let at = pages.at_start(&command.arg);
    pages.read_only_from(0)?;
    no_fd_leak("PRESERVE_FD", || {
        refused("PRESERVE_FD", command.issue_at(at), Errno::EFAULT)
    })?;
    // Whether it counts as preserved now is not said; but it is one or the other.
    let again = session.preserve(&file, 7);
    ensure!(
        matches!(again, Ok(()) | Err(Errno::EEXIST)),
        "the same again: {again:?}"
    );
    still_works(&session)?;
    drop(session);
    data::check(&file, 1, SIZE, &[data::whole(SIZE)])?;
    memfd::truncate(&file, 2 * SIZE).context("growing it once the session is closed")?;
    let session = device.create_session("unheard")?;
    session.preserve(&file, 7).context("in another session")
}

fn get_name(_: &mut Ctx) -> Result<()> {
    let session = Device::open()?.create_session("unheard")?;
    unanswerable(&Command::get_name(&session))?;
    ensure!(session.name()? == "unheard");
    still_works(&session)
}

const SIZE: u64 = 100_000;

fn hand_on(ctx: &mut Ctx) -> Result<()> {
    let file = memfd::create(SIZE)?;
    data::fill(&file, 3, data::whole(SIZE))?;
    let session = Device::open()?.create_session("handed")?;
    session.preserve(&file, 3)?;
    ctx.keep(session);
    Ok(())
}

fn take(session: &Session) -> Result<()> {
    let file = session.retrieve(3).context("retrieving the file")?;
    data::check(&file, 3, SIZE, &[data::whole(SIZE)])
}

fn retrieve_fd(ctx: &mut Ctx) -> Result<()> {
    let session = Device::open()?.retrieve_session("handed")?;
    unanswerable(&Command::retrieve(&session, 3))?;
    if is_ours(ctx) {
        let (_, _, nr_retrieved) = session.state()?;
        ensure!(nr_retrieved == 0, "{nr_retrieved} count as retrieved");
    }
    take(&session)?;
    session.finish()?;
    Ok(())
}

fn finish(ctx: &mut Ctx) -> Result<()> {
    let device = Device::open()?;
    let session = device.retrieve_session("handed")?;
    let file = session.retrieve(3)?;
    unanswerable(&Command::finish(&session))?;
    data::check(&file, 3, SIZE, &[data::whole(SIZE)])?;
    if is_ours(ctx) {
        // It had no effect. (The C orchestrator finishes first, and answers then.)
        take(&session).context("nothing was finished")?;
    }
    session.finish().context("finishing with an answer")?;
    drop(session);
    data::check(&file, 3, SIZE, &[data::whole(SIZE)])?;
    let gone = device.retrieve_session("handed");
    refused("a finished session", gone, Errno::ENOENT)
}

fn retrieve_session(ctx: &mut Ctx) -> Result<()> {
    let device = Device::open()?;
    let command = Command::retrieve_session(&device, "handed");
    only_ours(ctx, "loses a session whose descriptor it cannot deliver")?;
    for _ in 0..100 {
        unanswerable(&command)?;
    }
    let session = device
        .retrieve_session("handed")
        .context("the session, with room for the answer")?;
    take(&session)?;
    session.finish()?;
    Ok(())
}

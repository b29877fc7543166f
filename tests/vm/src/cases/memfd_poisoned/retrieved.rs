// SPDX-License-Identifier: GPL-2.0

//! What is lost of a memfd that came from the previous kernel, before it is in the page cache.

use super::{
    folios, frame_of, is_kept, is_refused, lose_frame, read_page, stays, FOLIO, LONG, LOST, SEED,
    SIZE,
};
use crate::cases::common::cgroup::Cgroup;
use crate::cases::common::data::{self, whole, Extent};
use crate::cases::common::luo::Device;
use crate::cases::common::memfd;
use crate::cases::common::pages::PAGE;
use crate::cases::common::{only_ours, refused};
use crate::ctx::Ctx;
use crate::frames;
use anyhow::{ensure, Context, Result};
use nix::errno::Errno;

/// Another page that is lost, in the first folio.
const FIRST_LOST: u64 = 9 * PAGE as u64;

/// Preserves a file, and notes where its pages are that will be lost.
pub fn hand_on(ctx: &mut Ctx) -> Result<()> {
    let session = Device::open()?.create_session("lost")?;
    let file = folios(FOLIO)?;
    session.preserve(&file, 1)?;
    // Where they are in the next kernel, too.
    for place in [FIRST_LOST, LOST] {
        ctx.set(&place.to_string(), frame_of(&file, place)?);
    }
    ctx.keep((session, file));
    Ok(())
}

/// It was lost after RETRIEVE_FD, before anybody has touched its folio, and nobody gets it when that is let go, nor when it is
/// touched. The pages beside it are as good as before.
pub fn lose_untouched(ctx: &mut Ctx) -> Result<()> {
    only_ours(ctx, "nothing is untouched there")?;
    let session = Device::open()?.retrieve_session("lost")?;
    let file = session.retrieve(1)?;
    let (first, second) = (frame(ctx, FIRST_LOST)?, frame(ctx, LOST)?);
    lose_frame(second)?;
    let hole = Extent {
        start: LOST / FOLIO * FOLIO,
        len: FOLIO,
    };
    memfd::punch(&file, hole.start, hole.len)?;
    is_kept(second)?;

    lose_frame(first)?;
    let page = Extent {
        start: FIRST_LOST,
        len: PAGE as u64,
    };
    refused("what is lost", read_page(&file, page.start), Errno::EIO)?;
    session.finish()?;
    let next = Device::open()?.create_session("next")?;
    is_refused(&next, &file)?;
    memfd::punch(&file, page.start, page.len)?;
    let rest = [
        whole(page.start),
        between(page, hole.start),
        between(hole, SIZE),
    ];
    data::check(&file, SEED, SIZE, &rest)?;
    Ok(next.preserve(&file, 1)?)
}

/// What is behind one extent and before `end`.
fn between(extent: Extent, end: u64) -> Extent {
    let start = extent.start + extent.len;
    Extent {
        start,
        len: end - start,
    }
}

/// What [`hand_on`] noted of a page.
fn frame(ctx: &Ctx, place: u64) -> Result<u64> {
    Ok(ctx.get(&place.to_string())?.parse()?)
}

/// It was lost of a folio that was wanted already, and could not be charged to anybody, so that it is not in the page cache.
pub fn lose_uncharged(ctx: &mut Ctx) -> Result<()> {
    only_ours(ctx, "all is charged by RETRIEVE_FD there")?;
    let device = Device::open()?;
    let (session, next) = (
        device.retrieve_session("lost")?,
        device.create_session("next")?,
    );
    let file = session.retrieve(1)?;
    let full = Cgroup::new("full")?;
    full.limit(Some(FOLIO / 2))?;
    let (first, second) = (frame(ctx, FIRST_LOST)?, frame(ctx, LOST)?);
    let lose_once_made = |frame| -> Result<()> {
        ensure!(frames::is_of_folio(frame)?, "its folio is not made yet");
        lose_frame(frame)
    };

    // There is no room for what it brings in. Nobody touches this one any more.
    full.run(LONG, || Ok(session.finish()?))?;
    lose_once_made(first)?;
    let folio = LOST / FOLIO * FOLIO;
    memfd::punch(&file, 0, folio)?;
    stays(first)?;

    full.run(LONG, || {
        refused("PRESERVE_FD", next.preserve(&file, 1), Errno::ENOMEM)
    })?;
    lose_once_made(second)?;
    read_page(&file, folio).context("a page beside what is lost")?;
    refused("what is lost", read_page(&file, LOST), Errno::EIO)?;
    is_refused(&next, &file)?;
    memfd::punch(&file, folio, FOLIO)?;
    stays(second)?;
    Ok(next.preserve(&file, 1)?)
}

// SPDX-License-Identifier: GPL-2.0

//! A reboot into the next kernel that fails leaves everything as it was.

use super::common::luo::{Device, Session};
use super::common::{data, memfd, only_ours, refused, still_works};
use crate::ctx::Ctx;
use crate::kexec;
use crate::test::{Config, Test};
use anyhow::{ensure, Context, Result};
use nix::errno::Errno;
use std::fs::File;

/// The cases.
pub const TESTS: &[Test] = &[
    Test::new("no_image", Config::new(), &[no_image]),
    Test::new("image_unloaded", Config::new(), &[image_unloaded]),
    Test::new("then_a_good_one", Config::new(), &[fail_first, arrived]),
    Test::new(
        "loaded_before_preserve",
        Config::new(),
        &[load_first, arrived],
    ),
    Test::new("not_told", Config::new(), &[not_told, arrived]),
    Test::new("without_sessions", Config::new(), &[leave_nothing, nothing]),
];

const SIZE: u64 = 123_456;

fn preserve(_: &Ctx) -> Result<(Session, File)> {
    let session = Device::open()?.create_session("stays")?;
    let file = memfd::create(SIZE)?;
    data::fill(&file, 11, data::whole(SIZE))?;
    session.preserve(&file, 1)?;
    Ok((session, file))
}

fn as_before(_: &Ctx, session: &Session, file: &File) -> Result<()> {
    still_works(session)?;
    data::check(file, 11, SIZE, &[data::whole(SIZE)])?;
    refused("growing it", memfd::truncate(file, 2 * SIZE), Errno::EPERM)?;
    let device = Device::open()?;
    refused("its name", device.create_session("stays"), Errno::EEXIST)?;
    still_works(&device.create_session("new")?)
}

fn no_image(ctx: &mut Ctx) -> Result<()> {
    let (session, file) = preserve(ctx)?;
    for _ in 0..3 {
        let errno = kexec::execute();
        ensure!(errno == Errno::EINVAL, "reboot() says {errno:?}");
        as_before(ctx, &session, &file)?;
    }
    drop(session);
    memfd::truncate(&file, 2 * SIZE).context("growing it once it is free")?;
    memfd::truncate(&file, SIZE)?;
    data::check(&file, 11, SIZE, &[data::whole(SIZE)])
}

fn image_unloaded(ctx: &mut Ctx) -> Result<()> {
    let (session, file) = preserve(ctx)?;
    ctx.kexec_load()?;
    as_before(ctx, &session, &file)?;
    kexec::unload()?;
    let errno = kexec::execute();
    ensure!(errno == Errno::EINVAL, "reboot() says {errno:?}");
    as_before(ctx, &session, &file)
}

fn fail_first(ctx: &mut Ctx) -> Result<()> {
    let (session, file) = preserve(ctx)?;
    let errno = kexec::execute();
    ensure!(errno == Errno::EINVAL, "reboot() says {errno:?}");
    as_before(ctx, &session, &file)?;
    ctx.keep((session, file));
    Ok(())
}

/// A kernel that would not be told of what is preserved.
fn not_told(ctx: &mut Ctx) -> Result<()> {
    only_ours(ctx, "lets it go, and all is lost")?;
    let (session, file) = preserve(ctx)?;
    kexec::load_untold()?;
    ctx.log().lines()?;
    let errno = kexec::execute();
    ensure!(errno == Errno::EOPNOTSUPP, "reboot() says {errno:?}");
    ctx.log().expect("1 sessions would be lost")?;
    as_before(ctx, &session, &file)?;
    ctx.keep((session, file));
    Ok(())
}

fn load_first(ctx: &mut Ctx) -> Result<()> {
    // The framework loads the image again; that, too, has to work with sessions open.
    ctx.kexec_load()?;
    let (session, file) = preserve(ctx)?;
    as_before(ctx, &session, &file)?;
    ctx.keep((session, file));
    Ok(())
}

fn arrived(_: &mut Ctx) -> Result<()> {
    let device = Device::open()?;
    let session = device.retrieve_session("stays")?;
    let file = session.retrieve(1)?;
    data::check(&file, 11, SIZE, &[data::whole(SIZE)])?;
    session.finish()?;
    refused(
        "closed before",
        device.retrieve_session("new"),
        Errno::ENOENT,
    )
}

fn leave_nothing(ctx: &mut Ctx) -> Result<()> {
    drop(preserve(ctx)?);
    Ok(())
}

fn nothing(_: &mut Ctx) -> Result<()> {
    let device = Device::open()?;
    refused(
        "closed before",
        device.retrieve_session("stays"),
        Errno::ENOENT,
    )?;
    still_works(&device.create_session("stays")?)
}

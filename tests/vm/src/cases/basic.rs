// SPDX-License-Identifier: GPL-2.0

//! The shortest ways through the device.

use crate::ctx::Ctx;
use crate::test::{Config, Test};
use anyhow::{ensure, Result};
use liveupdate::Device;

/// The cases.
pub const TESTS: &[Test] = &[
    Test::new("open_close", Config::new(), &[open_close]),
    Test::new("session_name", Config::new(), &[session_name]),
];

fn open_close(ctx: &mut Ctx) -> Result<()> {
    let device = ctx.device()?;
    ensure!(Device::open().is_err(), "the device opens twice");
    drop(device);
    drop(ctx.device()?);
    Ok(())
}

fn session_name(ctx: &mut Ctx) -> Result<()> {
    let session = ctx.device()?.create_session("a name")?;
    ensure!(session.name()?.to_str() == Some("a name"));
    Ok(())
}

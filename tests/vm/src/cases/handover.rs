// SPDX-License-Identifier: GPL-2.0

//! What goes through a kexec.

use crate::ctx::Ctx;
use crate::test::{Config, Test};
use anyhow::{ensure, Result};
use nix::sys::memfd::{memfd_create, MFdFlags};
use std::fs::File;
use std::io::{Read, Seek, Write};

/// The cases.
pub const TESTS: &[Test] = &[Test::new(
    "memfd",
    Config::new(),
    &[preserve_memfd, retrieve_memfd],
)];

const TEXT: &str = "held through the kexec";

fn preserve_memfd(ctx: &mut Ctx) -> Result<()> {
    let mut file = File::from(memfd_create("text", MFdFlags::empty())?);
    file.write_all(TEXT.as_bytes())?;
    let session = ctx.device()?.create_session("one")?;
    session.preserve(&file, 1)?;
    ctx.set("len", TEXT.len());
    ctx.keep(session);
    Ok(())
}

fn retrieve_memfd(ctx: &mut Ctx) -> Result<()> {
    ensure!(ctx.get("len")? == TEXT.len().to_string());
    let session = ctx.device()?.retrieve_session("one")?;
    let mut file = File::from(session.retrieve(1)?);
    session.finish()?;
    let mut text = String::new();
    file.rewind()?;
    file.read_to_string(&mut text)?;
    ensure!(text == TEXT, "got {text:?}");
    Ok(())
}

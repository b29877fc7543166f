// SPDX-License-Identifier: GPL-2.0

//! Somebody without any right has a session in which others have files, too: of all that is outside of the session they get
//! nothing, and in it they may do what anybody may who has it.

use super::super::common::luo::{Device, Session};
use super::super::common::nobody::as_nobody;
use super::super::common::{data, errno_of, is_ours, memfd, refused};
use super::reach::no_further;
use crate::ctx::Ctx;
use anyhow::{ensure, Context, Result};
use nix::errno::Errno;
use std::fs::{File, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};

const SIZE: u64 = 9000;
const ROOTS: u64 = 1;
/// What nobody could only read, one that can be written to and one that is sealed.
const READABLE: u64 = 2;
const SEALED: u64 = 3;
/// What nobody takes the place of.
const REPLACED: u64 = 4;
const SEALS: i32 = libc::F_SEAL_WRITE | libc::F_SEAL_SHRINK;

/// A file of root's, which nobody else can open. Its token is the seed of the contents.
fn file_of_root(token: u64) -> Result<File> {
    let file = memfd::create(SIZE)?;
    data::fill(&file, token, data::whole(SIZE))?;
    // As it is made, a descriptor to read is one to write as well, by way of /proc.
    let readable = to_read(file.try_clone()?)?;
    as_nobody(|| memfd::reopen(&readable, true).map(drop)).context("a new memfd")?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    Ok(file)
}

/// Root's file as nobody is given it.
fn to_read(file: File) -> Result<File> {
    memfd::reopen(&file, false)
}

/// Fails unless a file can be read and not written to.
fn is_readable_only(file: &File, token: u64) -> Result<()> {
    data::check(file, token, SIZE, &[data::whole(SIZE)])?;
    refused("writing", memfd::write_at(file, 0, b"!"), Errno::EBADF)?;
    let again = memfd::reopen(file, true).map_err(|err| errno_of(&err));
    ensure!(
        matches!(again, Err(Some(Errno::EACCES))),
        "opened to write: {again:?}"
    );
    Ok(())
}

pub fn hand_on(ctx: &mut Ctx) -> Result<()> {
    let ours = is_ours(ctx);
    let device = Device::open()?;
    let session = device.create_session("shared")?;
    let other = device.create_session("another")?;
    drop(device);
    session.preserve(&file_of_root(ROOTS)?, ROOTS)?;
    session.preserve(&file_of_root(REPLACED)?, REPLACED)?;
    let readable = to_read(file_of_root(READABLE)?)?;
    let sealed = file_of_root(SEALED)?;
    memfd::add_seals(&sealed, SEALS)?;
    let sealed = to_read(sealed)?;
    as_nobody(|| {
        no_further(&session)?;
        is_readable_only(&readable, READABLE)?;
        is_readable_only(&sealed, SEALED)?;
        // What is in it does not come out of it in this kernel.
        for token in [ROOTS, REPLACED] {
            refused("root's file", session.retrieve(token), Errno::EINVAL)?;
        }
        refused("FINISH", session.finish(), Errno::EINVAL)?;
        session.preserve(&readable, READABLE).context("to read")?;
        session.preserve(&sealed, SEALED).context("sealed")?;
        if ours {
            take_over(&session)?;
        }
        no_further(&session)
    })?;
    if ours {
        let tokens = session.tokens()?;
        ensure!(tokens == [ROOTS, READABLE, SEALED, REPLACED], "{tokens:?}");
    }
    let name = other.name()?;
    ensure!(name == "another", "{name}");
    ctx.keep((session, other));
    Ok(())
}

/// What the commands do that the kernel's own orchestrator does not have.
fn take_over(session: &Session) -> Result<()> {
    let tokens = session.tokens()?;
    ensure!(tokens == [ROOTS, REPLACED, READABLE, SEALED], "{tokens:?}");
    session.set_flags(1).context("ORDERED")?;
    refused("out of order", session.unpreserve(ROOTS), Errno::EBUSY)?;
    session.set_flags(0).context("no order")?;
    let prepare = || session.prepare().map_err(|(errno, _)| errno);
    prepare().context("PREPARE")?;
    refused("prepared", session.unpreserve(ROOTS), Errno::EBUSY)?;
    session.cancel().context("CANCEL")?;
    // Whoever put it there.
    session.unpreserve(REPLACED).context("root's file")?;
    let own = memfd::create(SIZE)?;
    data::fill(&own, 0, data::whole(SIZE))?;
    session.preserve(&own, REPLACED).context("its token")
}

/// Whoever has the session then gets all of it, to read and write: what must stay as it is was sealed.
pub fn arrived(ctx: &mut Ctx) -> Result<()> {
    let ours = is_ours(ctx);
    let device = Device::open()?;
    let session = device.retrieve_session("shared")?;
    drop(device);
    as_nobody(|| {
        no_further(&session)?;
        for token in [ROOTS, READABLE] {
            let file = session.retrieve(token)?;
            let (mode, owner) = (file.metadata()?.mode() & 0o777, file.metadata()?.uid());
            ensure!(
                (mode, owner) == (0o777, nix::unistd::getuid().as_raw()),
                "{token} has mode {mode:o}, and belongs to {owner}"
            );
            data::check(&file, token, SIZE, &[data::whole(SIZE)])?;
            memfd::write_at(&file, 0, b"!").with_context(|| format!("writing to {token}"))?;
            memfd::truncate(&file, 0).with_context(|| format!("truncating {token}"))?;
        }
        let sealed = session.retrieve(SEALED)?;
        data::check(&sealed, SEALED, SIZE, &[data::whole(SIZE)])?;
        let seals = memfd::seals(&sealed)?;
        ensure!(seals == SEALS, "seals {seals:#x}");
        refused("writing", memfd::write_at(&sealed, 0, b"!"), Errno::EPERM)?;
        refused("truncating", memfd::truncate(&sealed, 0), Errno::EPERM)?;
        let replaced = session.retrieve(REPLACED)?;
        let seed = if ours { 0 } else { REPLACED };
        data::check(&replaced, seed, SIZE, &[data::whole(SIZE)])?;
        session.finish().context("FINISH")
    })?;
    let other = Device::open()?.retrieve_session("another");
    other.context("the other session")?.finish()?;
    Ok(())
}

// SPDX-License-Identifier: GPL-2.0

//! Who reaches what: the device is for whom its mode lets in, a session for whom somebody gave its descriptor.

use super::super::common::luo::{Device, Session, CREATE_SESSION, DEVICE, RETRIEVE_SESSION};
use super::super::common::modules::{Kind, Recorder};
use super::super::common::nobody::{as_bare_root, as_nobody};
use super::super::common::{
    data, errno_of, is_ours, memfd, name_bytes, refused, session_by_bytes, still_works,
};
use crate::ctx::Ctx;
use crate::kexec;
use anyhow::{bail, ensure, Context, Result};
use nix::errno::Errno;
use std::fs::{File, OpenOptions, Permissions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;

fn cannot_open() -> Result<()> {
    for options in [
        OpenOptions::new().read(true),
        OpenOptions::new().write(true),
        OpenOptions::new().read(true).write(true),
    ] {
        match options.open(DEVICE) {
            Ok(_) => bail!("nobody may open {DEVICE}"),
            Err(err) => ensure!(err.raw_os_error() == Some(libc::EACCES), "{err}"),
        }
    }
    Ok(())
}

/// The mode of the device decides, and nothing else: root's alone, unless root says otherwise.
pub fn device(_: &mut Ctx) -> Result<()> {
    let mode = std::fs::metadata(DEVICE)?.permissions().mode() & 0o7777;
    ensure!(mode == 0o600, "its mode is {mode:o}");
    as_nobody(cannot_open)?;
    std::fs::set_permissions(DEVICE, Permissions::from_mode(0o666))?;
    let opened = as_nobody(|| still_works(&Device::open()?.create_session("nobody's")?));
    std::fs::set_permissions(DEVICE, Permissions::from_mode(mode))?;
    opened?;
    as_nobody(cannot_open)?;
    // That of its owner: no capability is asked for.
    as_bare_root(|| still_works(&Device::open()?.create_session("bare root's")?))?;
    // One who has it open keeps others out, but only for so long.
    still_works(&Device::open()?.create_session("root's")?)
}

/// A session is no right to leave this kernel, nor is the device: that takes CAP_SYS_BOOT, and nothing is frozen before.
pub fn kexec_by_others(ctx: &mut Ctx) -> Result<()> {
    ctx.kexec_load()?;
    let recorder = Recorder::new(ctx)?;
    let device = Device::open()?;
    let passed = device.create_session("passed")?;
    passed.preserve(&recorder.open(Kind::B, 1)?, 1)?;
    recorder.take()?;
    let refuses = || {
        passed.preserve(&memfd::create(0)?, 2)?;
        refused("reboot()", Err::<(), _>(kexec::execute()), Errno::EPERM)?;
        passed.unpreserve(2)?;
        ensure!(passed.state()? == (1, 1, 0), "{:?}", passed.state()?);
        Ok(())
    };
    as_nobody(refuses)?;
    as_bare_root(refuses)?;
    recorder.expect("the file of the session", "")?;
    drop((passed, device));
    recorder.remove()
}

/// The session and nothing but the session.
pub fn no_further(session: &Session) -> Result<()> {
    cannot_open()?;
    // A session is no device.
    let as_device = Device(File::from(session.0.try_clone()?));
    for command in [CREATE_SESSION, RETRIEVE_SESSION] {
        for name in [b"another".as_slice(), b"root's", b"new"] {
            let made = session_by_bytes(&as_device, command, &name_bytes(name));
            refused("a session out of a session", made, Errno::EINVAL)?;
        }
    }
    // Nor a file that can be opened once more, with other rights.
    let again = File::open(format!("/proc/self/fd/{}", session.0.as_raw_fd()));
    let errno = again
        .map_err(anyhow::Error::from)
        .map_err(|err| errno_of(&err));
    let wanted = [Errno::ENXIO, Errno::EACCES];
    ensure!(
        matches!(errno, Err(Some(errno)) if wanted.contains(&errno)),
        "{errno:?}"
    );
    Ok(())
}

pub fn passed_session(ctx: &mut Ctx) -> Result<()> {
    const SIZE: u64 = 20_000;
    let device = Device::open()?;
    let other = device.create_session("another")?;
    let foreign = memfd::create(SIZE)?;
    other.preserve(&foreign, 1)?;
    let passed = device.create_session("passed")?;
    drop(device);
    let ours = is_ours(ctx);
    as_nobody(|| {
        no_further(&passed)?;
        let own = memfd::create(SIZE)?;
        data::fill(&own, 1, data::whole(SIZE))?;
        passed.preserve(&own, 1).context("a file of its own")?;
        refused("a token in use", passed.preserve(&own, 1), Errno::EEXIST)?;
        // What somebody else has preserved is theirs.
        refused(
            "a file of another session",
            passed.preserve(&foreign, 2),
            Errno::EBUSY,
        )?;
        ensure!(passed.name()? == "passed");
        for path in ["/proc/self/maps", "/dev/null"] {
            refused(path, passed.preserve(&File::open(path)?, 3), Errno::ENOENT)?;
        }
        if ours {
            ensure!(passed.tokens()? == [1], "{:?}", passed.tokens()?);
        }
        Ok(())
    })?;
    // The process is gone, its file is not.
    if ours {
        ensure!(passed.tokens()? == [1] && other.tokens()? == [1]);
    }
    refused(
        "the token of the gone",
        passed.preserve(&memfd::create(0)?, 1),
        Errno::EEXIST,
    )?;
    // It could not do anything to the other one.
    drop(other);
    memfd::truncate(&foreign, 2 * SIZE).context("a file that was let go")?;
    still_works(&passed)
}

pub fn hand_on(ctx: &mut Ctx) -> Result<()> {
    let device = Device::open()?;
    for (seed, name) in [(1, "passed"), (2, "another")] {
        let session = device.create_session(name)?;
        let file = memfd::create(5000)?;
        data::fill(&file, seed, data::whole(5000))?;
        session.preserve(&file, 7)?;
        ctx.keep(session);
    }
    Ok(())
}

pub fn passed_incoming(_: &mut Ctx) -> Result<()> {
    let device = Device::open()?;
    let passed = device.retrieve_session("passed")?;
    drop(device);
    as_nobody(|| {
        no_further(&passed)?;
        let file = passed.retrieve(7)?;
        data::check(&file, 1, 5000, &[data::whole(5000)])?;
        refused("another token", passed.retrieve(8), Errno::ENOENT)?;
        let preserved = passed.preserve(&memfd::create(0)?, 9);
        refused("a file for it", preserved, Errno::EINVAL)?;
        passed.finish().context("it may end it")
    })?;
    let device = Device::open()?;
    refused("the finished one", passed.retrieve(7), Errno::ENOENT)?;
    drop(passed);
    let another = device.retrieve_session("another")?;
    data::check(&another.retrieve(7)?, 2, 5000, &[data::whole(5000)])?;
    another.finish().context("another")
}

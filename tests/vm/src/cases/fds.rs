// SPDX-License-Identifier: GPL-2.0

//! What can be preserved and what cannot.

use super::common::luo::{Device, Session};
use super::common::pages::PAGE;
use super::common::{data, memfd, no_fd_leak, preserve_number, refused, still_works};
use crate::ctx::Ctx;
use crate::test::{Config, Test};
use anyhow::{Context, Result};
use nix::errno::Errno;
use std::fs::{File, OpenOptions};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;

/// The cases.
pub const TESTS: &[Test] = &[
    Test::new("not_open", Config::new(), &[not_open]),
    Test::new("other_types", Config::new(), &[other_types]),
    Test::new("sessions_themselves", Config::new(), &[sessions]),
    Test::new("path_only", Config::new(), &[path_only]),
    Test::new("tmpfs_files", Config::new(), &[tmpfs_files]),
    Test::new("hugetlb", Config::new(), &[hugetlb]),
    Test::new("too_large", Config::new(), &[too_large]),
    Test::new("used_token", Config::new(), &[used_token]),
    Test::new("same_file_twice", Config::new(), &[same_file_twice]),
    Test::new("read_only_memfd", Config::new(), &[read_only_memfd]),
    Test::new("any_token", Config::new(), &[any_token]),
];

const SIZE: u64 = 5 * PAGE as u64 + 17;

fn filled(seed: u64) -> Result<File> {
    let file = memfd::create(SIZE)?;
    data::fill(&file, seed, data::whole(SIZE))?;
    Ok(file)
}

/// Fails unless the file is as [`filled`] made it, and can do what one that is not preserved can.
fn is_free(file: &File, seed: u64) -> Result<()> {
    data::check(file, seed, SIZE, &[data::whole(SIZE)])?;
    memfd::truncate(file, SIZE + 1).context("growing it")?;
    memfd::truncate(file, SIZE).context("shrinking it")?;
    Ok(())
}

/// PRESERVE_FD is refused like this, however often, and leaves the token free.
fn refuse(session: &Session, what: &str, fd: RawFd, wanted: Errno) -> Result<()> {
    for _ in 0..3 {
        no_fd_leak(what, || {
            refused(what, preserve_number(session, fd, 77), wanted)
        })?;
    }
    Ok(())
}

fn not_open(_: &mut Ctx) -> Result<()> {
    let session = Device::open()?.create_session("fds")?;
    let closed = File::open("/dev/null")?.as_raw_fd();
    for fd in [-1, closed, 1 << 20, i32::MAX, i32::MIN, libc::AT_FDCWD] {
        refuse(&session, &format!("descriptor {fd}"), fd, Errno::EBADF)?;
    }
    still_works(&session)
}

fn other_types(_: &mut Ctx) -> Result<()> {
    let device = Device::open()?;
    let session = device.create_session("fds")?;
    for path in [
        "/dev/null",
        "/dev/zero",
        "/proc/self/maps",
        "/",
        "/proc",
        "/tmp",
    ] {
        let file = File::open(path)?;
        refuse(&session, path, file.as_raw_fd(), Errno::ENOENT)?;
    }
    let (reader, writer) = nix::unistd::pipe()?;
    refuse(&session, "a pipe", reader.as_raw_fd(), Errno::ENOENT)?;
    refuse(&session, "a pipe", writer.as_raw_fd(), Errno::ENOENT)?;
    // SAFETY: a number.
    let event = Errno::result(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) })?;
    let result = refuse(&session, "an eventfd", event, Errno::ENOENT);
    // SAFETY: made above, and not used any more.
    unsafe { libc::close(event) };
    result?;
    refuse(&session, "the device", device.0.as_raw_fd(), Errno::ENOENT)?;
    still_works(&session)
}

fn sessions(_: &mut Ctx) -> Result<()> {
    let device = Device::open()?;
    let session = device.create_session("fds")?;
    let other = device.create_session("other")?;
    let itself = session.0.as_raw_fd();
    refuse(&session, "the session itself", itself, Errno::ENOENT)?;
    refuse(&session, "a session", other.0.as_raw_fd(), Errno::ENOENT)?;
    still_works(&other)?;
    still_works(&session)?;
    drop(session);
    device.create_session("fds").context("its name again")?;
    Ok(())
}

fn path_only(_: &mut Ctx) -> Result<()> {
    let session = Device::open()?.create_session("fds")?;
    let file = filled(1)?;
    let path = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_PATH)
        .open(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    refuse(&session, "O_PATH", path.as_raw_fd(), Errno::EBADF)?;
    is_free(&file, 1)?;
    session.preserve(&file, 77)?;
    still_works(&session)
}

fn tmpfs_files(_: &mut Ctx) -> Result<()> {
    const PATH: &str = "/tmp/fds-named";
    const LINK: &str = "/tmp/fds-link";
    let session = Device::open()?.create_session("fds")?;
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(PATH)?;
    data::fill(&file, 2, data::whole(SIZE))?;
    refuse(&session, "a named file", file.as_raw_fd(), Errno::ENOENT)?;
    std::fs::hard_link(PATH, LINK)?;
    std::fs::remove_file(PATH)?;
    refuse(
        &session,
        "with a link left",
        file.as_raw_fd(),
        Errno::ENOENT,
    )?;
    std::fs::remove_file(LINK)?;
    is_free(&file, 2)?;
    session.preserve(&file, 77).context("an unlinked file")?;

    let unnamed = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_TMPFILE)
        .open("/tmp")?;
    session.preserve(&unnamed, 78).context("O_TMPFILE")?;

    std::fs::create_dir("/tmp/fds-folder")?;
    let folder = File::open("/tmp/fds-folder")?;
    std::fs::remove_dir("/tmp/fds-folder")?;
    let fd = folder.as_raw_fd();
    refused(
        "a removed folder",
        preserve_number(&session, fd, 79),
        Errno::ENOENT,
    )?;
    still_works(&session)?;
    drop(session);
    is_free(&file, 2)
}

fn hugetlb(_: &mut Ctx) -> Result<()> {
    let session = Device::open()?.create_session("fds")?;
    let file = memfd::create_with(libc::MFD_CLOEXEC | libc::MFD_HUGETLB, 2 << 20)?;
    refuse(&session, "hugetlb", file.as_raw_fd(), Errno::ENOENT)?;
    memfd::truncate(&file, 4 << 20).context("growing it")?;
    still_works(&session)
}

fn too_large(_: &mut Ctx) -> Result<()> {
    const PAGES: u64 = 1 << 32;
    let session = Device::open()?.create_session("fds")?;
    let file = filled(3)?;
    for size in [
        PAGES * PAGE as u64,
        (PAGES - 1) * PAGE as u64 + 1,
        2 * PAGES * PAGE as u64,
        i64::MAX as u64 & !(PAGE as u64 - 1),
    ] {
        memfd::truncate(&file, size)?;
        let what = format!("a file of {size} bytes");
        refuse(&session, &what, file.as_raw_fd(), Errno::EFBIG)?;
    }
    memfd::truncate(&file, SIZE).context("shrinking it")?;
    is_free(&file, 3)?;
    session.preserve(&file, 77).context("at a fair size")?;
    still_works(&session)
}

fn used_token(_: &mut Ctx) -> Result<()> {
    let device = Device::open()?;
    let session = device.create_session("fds")?;
    let (first, second) = (filled(4)?, filled(5)?);
    session.preserve(&first, 1)?;
    for _ in 0..3 {
        no_fd_leak("a used token", || {
            refused("a used token", session.preserve(&second, 1), Errno::EEXIST)
        })?;
    }
    // The token is looked at before the descriptor.
    for fd in [-1, first.as_raw_fd()] {
        let result = preserve_number(&session, fd, 1);
        refused("a used token, a bad file", result, Errno::EEXIST)?;
    }
    is_free(&second, 5)?;
    // Tokens are a session's own.
    let other = device.create_session("other")?;
    other.preserve(&second, 1)?;
    still_works(&session)
}

fn same_file_twice(_: &mut Ctx) -> Result<()> {
    let device = Device::open()?;
    let session = device.create_session("fds")?;
    let other = device.create_session("other")?;
    let file = filled(6)?;
    session.preserve(&file, 1)?;
    let copy = file.try_clone()?;
    let reopened = memfd::reopen(&file, true)?;
    let read_only = memfd::reopen(&file, false)?;
    for (what, same) in [
        ("the same descriptor", &file),
        ("a duplicate of it", &copy),
        ("a second open of the inode", &reopened),
        ("a read-only one", &read_only),
    ] {
        for to in [&session, &other] {
            no_fd_leak(what, || refused(what, to.preserve(same, 2), Errno::EBUSY))?;
        }
    }
    still_works(&session)?;
    still_works(&other)?;
    data::check(&file, 6, SIZE, &[data::whole(SIZE)])?;
    let shrunk = memfd::truncate(&file, 1);
    refused("shrinking it still", shrunk, Errno::EPERM)?;

    drop(session);
    is_free(&file, 6)?;
    other.preserve(&reopened, 2).context("once it is free")?;
    refused("shrinking it", memfd::truncate(&file, 1), Errno::EPERM)?;
    drop(other);
    is_free(&file, 6)
}

fn read_only_memfd(_: &mut Ctx) -> Result<()> {
    let session = Device::open()?.create_session("fds")?;
    let file = filled(7)?;
    session.preserve(&memfd::reopen(&file, false)?, 1)?;
    // Preserved is the file, not the descriptor.
    refused("growing it", memfd::truncate(&file, 2 * SIZE), Errno::EPERM)?;
    drop(session);
    is_free(&file, 7)
}

fn any_token(_: &mut Ctx) -> Result<()> {
    let session = Device::open()?.create_session("fds")?;
    let tokens = [
        0,
        1,
        u64::MAX,
        u64::MAX - 1,
        1 << 63,
        1 << 32,
        u64::from(u32::MAX),
    ];
    for token in tokens {
        session
            .preserve(&filled(8)?, token)
            .with_context(|| format!("token {token:#x}"))?;
    }
    for token in tokens {
        let what = format!("token {token:#x} again");
        refused(&what, session.preserve(&filled(8)?, token), Errno::EEXIST)?;
    }
    still_works(&session)
}

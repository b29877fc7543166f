// SPDX-License-Identifier: GPL-2.0

//! The device as a file: who may open it, and what a session's descriptor looks like from outside.

use super::common::luo::Device;
use super::common::{errno_of, memfd, no_fd_leak, refused, still_works};
use crate::ctx::Ctx;
use crate::process::Child;
use crate::test::{Config, Test};
use anyhow::{ensure, Result};
use nix::errno::Errno;
use std::os::fd::{AsRawFd, RawFd};

/// The cases.
pub const TESTS: &[Test] = &[
    Test::new("second_open", Config::new(), &[second_open]),
    Test::new("open_until_last_close", Config::new(), &[until_last_close]),
    Test::new("freed_by_death", Config::new(), &[freed_by_death]),
    Test::new("session_outlives_it", Config::new(), &[session_outlives_it]),
    Test::new("proc_link", Config::new(), &[proc_link]),
    Test::new("session_is_anonymous", Config::new(), &[anonymous]),
    Test::new("session_is_no_stream", Config::new(), &[no_stream]),
    Test::new("session_closes_on_exec", Config::new(), &[close_on_exec]),
];

/// Fails unless another open of the device is refused because it is in use.
fn busy() -> Result<()> {
    no_fd_leak("a second open", || match Device::open() {
        Ok(_) => anyhow::bail!("the device opens twice"),
        Err(err) => {
            ensure!(errno_of(&err) == Some(Errno::EBUSY), "{err:#}");
            Ok(())
        }
    })
}

fn second_open(_: &mut Ctx) -> Result<()> {
    let device = Device::open()?;
    for _ in 0..10 {
        busy()?;
    }
    still_works(&device.create_session("first")?)?;
    drop(device);
    Device::open()?.create_session("second")?;
    Ok(())
}

fn until_last_close(_: &mut Ctx) -> Result<()> {
    let device = Device::open()?;
    let copy = device.0.try_clone()?;
    drop(device);
    busy()?;
    drop(copy);
    for _ in 0..100 {
        drop(Device::open()?);
    }
    Ok(())
}

fn freed_by_death(_: &mut Ctx) -> Result<()> {
    let holder = Child::holder(Device::open)?;
    busy()?;
    holder.kill()?;
    drop(Device::open()?);
    Ok(())
}

fn session_outlives_it(_: &mut Ctx) -> Result<()> {
    let session = Device::open()?.create_session("orphan")?;
    still_works(&session)?;
    let device = Device::open()?;
    refused(
        "a name in use",
        device.create_session("orphan"),
        Errno::EEXIST,
    )?;
    drop(session);
    device.create_session("orphan")?;
    Ok(())
}

fn link_of(fd: RawFd) -> Result<String> {
    let link = std::fs::read_link(format!("/proc/self/fd/{fd}"))?;
    Ok(link.to_string_lossy().into_owned())
}

fn proc_link(_: &mut Ctx) -> Result<()> {
    let device = Device::open()?;
    let longest = "n".repeat(63);
    for name in ["systemd", "a name", "path/like", longest.as_str()] {
        let session = device.create_session(name)?;
        let link = link_of(session.0.as_raw_fd())?;
        let wanted = format!("anon_inode:[luo_session] {name}");
        ensure!(link == wanted, "{link:?} instead of {wanted:?}");
    }
    Ok(())
}

fn anonymous(_: &mut Ctx) -> Result<()> {
    const ANON_INODE_FS_MAGIC: libc::c_long = 0x0904_1934;
    let session = Device::open()?.create_session("anon")?;
    let magic = memfd::fs_magic(&session.0)?;
    ensure!(magic == ANON_INODE_FS_MAGIC, "fstatfs says {magic:#x}");
    Ok(())
}

fn no_stream(_: &mut Ctx) -> Result<()> {
    let session = Device::open()?.create_session("stream")?;
    let fd = session.0.as_raw_fd();

    // SAFETY: no pointers.
    let epoll = Errno::result(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
    let mut event = libc::epoll_event { events: 1, u64: 0 };
    // SAFETY: the kernel reads an event of ours.
    let added = unsafe { libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, fd, &mut event) };
    let added = Errno::result(added);
    // SAFETY: made above, and not used below.
    unsafe { libc::close(epoll) };
    refused("epoll_ctl(ADD)", added, Errno::EPERM)?;

    let mut byte = [0u8];
    // SAFETY: the kernel may write this byte of ours.
    let read = Errno::result(unsafe { libc::read(fd, byte.as_mut_ptr().cast(), 1) });
    refused("read", read, Errno::EINVAL)?;
    // SAFETY: the kernel may read this byte of ours.
    let written = Errno::result(unsafe { libc::write(fd, byte.as_ptr().cast(), 1) });
    refused("write", written, Errno::EINVAL)?;
    let file = std::fs::File::from(session.0.try_clone()?);
    refused("mmap", memfd::Mapping::new(&file, 4096), Errno::ENODEV)?;
    still_works(&session)
}

fn close_on_exec(_: &mut Ctx) -> Result<()> {
    let session = Device::open()?.create_session("exec")?;
    let fd = session.0.as_raw_fd();
    // SAFETY: asks for flags.
    let flags = Errno::result(unsafe { libc::fcntl(fd, libc::F_GETFD) })?;
    ensure!(flags & libc::FD_CLOEXEC != 0, "it stays open on exec");
    // SAFETY: as above.
    let mode = Errno::result(unsafe { libc::fcntl(fd, libc::F_GETFL) })?;
    ensure!(mode & libc::O_ACCMODE == libc::O_RDWR, "flags {mode:#o}");
    Ok(())
}

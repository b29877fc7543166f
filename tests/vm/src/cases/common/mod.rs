// SPDX-License-Identifier: GPL-2.0

//! What several modules of test cases need.

pub mod cgroup;
pub mod command;
pub mod data;
pub mod debugfs;
pub mod ext;
pub mod faults;
pub mod forger;
pub mod held;
pub mod history;
pub mod in_the_way;
pub mod journal;
pub mod kho;
pub mod luo;
pub mod luoctl;
pub mod memfd;
pub mod memfd_ops;
pub mod modules;
pub mod nobody;
pub mod owned;
pub mod pages;
pub mod passing;
pub mod scene;
pub mod seen;
pub mod stalled;

use crate::cases::common::luo::{ioctl, Device, FdArg, Session, SessionArg, PRESERVE_FD};
use crate::ctx::Ctx;
use anyhow::{bail, ensure, Context, Result};
use luo_vm_protocol::Orchestrator;
use nix::errno::Errno;
use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// Fails unless the result is this error.
pub fn refused<T>(what: &str, result: Result<T, Errno>, wanted: Errno) -> Result<()> {
    match result {
        Ok(_) => bail!("{what}: done, instead of {wanted:?}"),
        Err(errno) => {
            ensure!(errno == wanted, "{what}: {errno:?} instead of {wanted:?}");
            Ok(())
        }
    }
}

/// The errno of a failed call of the standard library.
pub fn io_errno(error: std::io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(0))
}

/// Does something under strict overcommit, with all that may be committed given to others.
pub fn where_all_is_committed<T>(body: impl FnOnce() -> T) -> Result<T> {
    let set = |name, value| {
        let path = format!("/proc/sys/vm/{name}");
        std::fs::write(&path, value).context(path)
    };
    set("overcommit_kbytes", "1")?;
    set("overcommit_memory", "2")?;
    let done = body();
    set("overcommit_memory", "0")?;
    Ok(done)
}

/// The errno at the bottom of an error.
pub fn errno_of(error: &anyhow::Error) -> Option<Errno> {
    error.chain().find_map(|cause| {
        let io = cause.downcast_ref::<std::io::Error>();
        let raw = io.and_then(std::io::Error::raw_os_error);
        cause
            .downcast_ref::<Errno>()
            .copied()
            .or(raw.map(Errno::from_raw))
    })
}

/// Number of descriptors that this process has open.
pub fn open_fds() -> Result<usize> {
    Ok(std::fs::read_dir("/proc/self/fd")?.count())
}

/// Runs `body`, and fails if more or fewer descriptors are open after it.
pub fn no_fd_leak(what: &str, body: impl FnOnce() -> Result<()>) -> Result<()> {
    let before = open_fds()?;
    body()?;
    let after = open_fds()?;
    ensure!(
        before == after,
        "{what}: {before} descriptors open before, {after} after"
    );
    Ok(())
}

/// Ends a case as skipped where the orchestrator is the kernel's own, which does not do what is asked of ours.
pub fn only_ours(ctx: &Ctx, why: &str) -> Result<()> {
    match is_ours(ctx) {
        true => Ok(()),
        false => ctx.skip(&format!("the C orchestrator: {why}")),
    }
}

/// True if luo.ko serves the device.
pub fn is_ours(ctx: &Ctx) -> bool {
    ctx.orchestrator() != Orchestrator::C
}

/// Fails unless the session still does its work: a new file can be put into it.
pub fn still_works(session: &Session) -> Result<()> {
    const TOKEN: u64 = 0x5711_1100;
    let count = open_fds()?;
    let file = memfd::create(0)?;
    session.name().context("the session's name")?;
    // Several checks of one session each need a token of their own.
    let token = (TOKEN..TOKEN + 1000)
        .find(|&token| session.preserve(&file, token) != Err(Errno::EEXIST))
        .context("a free token")?;
    refused(
        "the same token again",
        session.preserve(&file, token),
        Errno::EEXIST,
    )?;
    drop(file);
    ensure!(open_fds()? == count, "a descriptor leaked");
    Ok(())
}

/// PRESERVE_FD of any number, be it a descriptor or not.
pub fn preserve_number(session: &Session, fd: RawFd, token: u64) -> Result<(), Errno> {
    ioctl(
        session.0.as_raw_fd(),
        PRESERVE_FD,
        &mut FdArg::new(fd, token),
    )
    .map(drop)
}

/// CREATE_SESSION or RETRIEVE_SESSION with these 64 bytes for a name.
pub fn session_by_bytes(device: &Device, number: u32, name: &[u8; 64]) -> Result<Session, Errno> {
    let mut arg = SessionArg::new("");
    arg.name = *name;
    ioctl(device.0.as_raw_fd(), number, &mut arg)?;
    // SAFETY: the kernel just made this descriptor for us.
    Ok(Session(unsafe { OwnedFd::from_raw_fd(arg.fd) }))
}

/// A name as the kernel wants it, filled up with NUL.
pub fn name_bytes(name: &[u8]) -> [u8; 64] {
    let mut bytes = [0; 64];
    bytes[..name.len()].copy_from_slice(name);
    bytes
}

/// Names that together have every byte but NUL, as long as names can be.
pub fn names_of_every_byte() -> Vec<Vec<u8>> {
    let bytes: Vec<u8> = (1..=u8::MAX).collect();
    bytes.chunks(63).map(<[u8]>::to_vec).collect()
}

/// A limit on the number of open files that leaves room for just so many more; what it was before when dropped.
pub struct FdLimit {
    before: libc::rlimit,
    _fillers: Vec<File>,
}

impl FdLimit {
    /// Sets the limit.
    pub fn room_for(extra: libc::rlim_t) -> Result<Self> {
        // The limit is about the numbers, not about how many there are: the free ones below the highest are filled.
        let highest = std::fs::read_dir("/proc/self/fd")?
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .max()
            .unwrap_or(0);
        let mut fillers = Vec::new();
        loop {
            let filler = File::open("/dev/null")?;
            if filler.as_raw_fd() > highest {
                break;
            }
            fillers.push(filler);
        }
        let before = get_limit()?;
        let limit = libc::rlimit {
            rlim_cur: highest as libc::rlim_t + 1 + extra,
            ..before
        };
        set_limit(&limit)?;
        Ok(Self {
            before,
            _fillers: fillers,
        })
    }
}

impl Drop for FdLimit {
    fn drop(&mut self) {
        let _ = set_limit(&self.before);
    }
}

/// Lets this process have so many files open.
pub fn raise_fd_limit(files: u64) -> Result<()> {
    let limit = libc::rlimit {
        rlim_cur: files,
        rlim_max: files.max(get_limit()?.rlim_max),
    };
    set_limit(&limit).context("RLIMIT_NOFILE")
}

fn get_limit() -> Result<libc::rlimit> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the kernel writes to a struct of ours.
    Errno::result(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) })?;
    Ok(limit)
}

fn set_limit(limit: &libc::rlimit) -> Result<()> {
    // SAFETY: the kernel reads a struct of ours.
    Errno::result(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, limit) })?;
    Ok(())
}

// SPDX-License-Identifier: GPL-2.0

//! A page that does not come: who reads it waits, in a system call with all the locks that this holds. It is what
//! userfaultfd(2) makes of a page if nobody answers.

use super::memfd::{self, Mapping};
use super::pages::PAGE;
use crate::process::Child;
use anyhow::{ensure, Context, Result};
use nix::errno::Errno;
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
use nix::sys::signal::Signal;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

/// `UFFDIO_API`, and its argument: the version of the interface, and what there is beside it.
const UFFDIO_API: u32 = 0xc018_aa3f;
const UFFD_API: u64 = 0xaa;
/// `UFFDIO_REGISTER`, and its argument: where, how long, and for what: pages that are missing.
const UFFDIO_REGISTER: u32 = 0xc020_aa00;
const UFFDIO_REGISTER_MODE_MISSING: u64 = 1;
/// `UFFDIO_UNREGISTER`, and its argument: where, and how long.
const UFFDIO_UNREGISTER: u32 = 0x8010_aa01;

/// A page that does not come until it is told to.
#[derive(Debug)]
pub struct StalledPage {
    faults: OwnedFd,
    /// A hole of a memfd.
    page: Mapping,
}

impl StalledPage {
    /// Makes one.
    pub fn new() -> Result<Self> {
        // SAFETY: a number; what comes back is a new descriptor.
        let faults = unsafe {
            let fd = libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC | libc::O_NONBLOCK);
            OwnedFd::from_raw_fd(Errno::result(fd).context("userfaultfd")? as i32)
        };
        let page = Mapping::with_protection(&memfd::create(PAGE as u64)?, PAGE, libc::PROT_READ)?;
        let this = Self { faults, page };
        let mut api = [UFFD_API, 0, 0];
        super::luo::ioctl(this.faults.as_raw_fd(), UFFDIO_API, &mut api).context("UFFDIO_API")?;
        let mut register = [this.start(), PAGE as u64, UFFDIO_REGISTER_MODE_MISSING, 0];
        super::luo::ioctl(this.faults.as_raw_fd(), UFFDIO_REGISTER, &mut register)
            .context("UFFDIO_REGISTER")?;
        Ok(this)
    }

    fn start(&self) -> u64 {
        self.page.address() as u64
    }

    /// pwrite(2) of the page to the start of a file, which waits for the page.
    pub fn write_to(&self, file: &impl AsFd) -> Result<usize, Errno> {
        let fd = file.as_fd().as_raw_fd();
        // SAFETY: it is a page that can be read, once it is there.
        let written = unsafe { libc::pwrite(fd, self.start() as *const _, PAGE, 0) };
        Errno::result(written).map(|written| written as usize)
    }

    /// Waits until somebody waits for the page.
    pub fn awaited(&self, patience: Duration) -> Result<()> {
        let mut faults = [PollFd::new(self.faults.as_fd(), PollFlags::POLLIN)];
        poll(&mut faults, PollTimeout::try_from(patience)?)?;
        let seen = faults[0]
            .revents()
            .is_some_and(|it| it.contains(PollFlags::POLLIN));
        ensure!(seen, "nobody wants the page");
        Ok(())
    }

    /// Lets all go who wait: the page is zeroes.
    pub fn come(&self) -> Result<()> {
        let mut range = [self.start(), PAGE as u64];
        super::luo::ioctl(self.faults.as_raw_fd(), UFFDIO_UNREGISTER, &mut range)
            .context("UFFDIO_UNREGISTER")
            .map(drop)
    }
}

/// A process within a write() to a file whose data do not come: it has the lock of the inode until it is killed.
#[derive(Debug)]
pub struct StalledWrite(Child);

impl StalledWrite {
    /// Returns when it has the lock.
    pub fn new(file: &File) -> Result<Self> {
        const PATIENCE: Duration = Duration::from_secs(60);
        let begin = || {
            // For the thread, as long as there is one.
            let page: &'static StalledPage = Box::leak(Box::new(StalledPage::new()?));
            let file = file.try_clone()?;
            std::thread::spawn(move || page.write_to(&file));
            page.awaited(PATIENCE)
        };
        let wait = |()| loop {
            nix::unistd::pause();
        };
        Ok(Self(Child::service(PATIENCE, begin, wait)?))
    }

    /// Lets it end, and the lock be free.
    pub fn kill(&self) -> Result<()> {
        Ok(nix::sys::signal::kill(self.0.pid(), Signal::SIGKILL)?)
    }

    /// Ends it, with all that it had inherited. Nothing was written.
    pub fn end(self) -> Result<()> {
        self.0.kill().map(drop)
    }
}

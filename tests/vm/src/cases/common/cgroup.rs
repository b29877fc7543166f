// SPDX-License-Identifier: GPL-2.0

//! A memory cgroup, and processes in it.

use crate::ctx::Ctx;
use crate::frames;
use crate::process::Child;
use anyhow::{Context, Result};
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

const ROOT: &str = "/sys/fs/cgroup";
/// Far longer than it takes the kernel to bring `memory.stat` up to date.
const UP_TO_DATE: Duration = Duration::from_secs(60);

/// A cgroup with the memory controller. It is removed when this is dropped.
#[derive(Debug)]
pub struct Cgroup(PathBuf);

impl Cgroup {
    /// Makes it.
    pub fn new(name: &str) -> Result<Self> {
        let control = Path::new(ROOT).join("cgroup.subtree_control");
        std::fs::write(control, "+memory").context("the memory controller")?;
        let path = Path::new(ROOT).join(name);
        std::fs::create_dir(&path).with_context(|| path.display().to_string())?;
        Ok(Self(path))
    }

    /// Moves the calling process into it.
    pub fn enter(&self) -> Result<()> {
        std::fs::write(self.0.join("cgroup.procs"), "0").context("cgroup.procs")
    }

    /// Does something in a child process that is in it. An error is that of `body`, or tells how the child ended.
    pub fn run(&self, timeout: Duration, body: impl FnOnce() -> Result<()>) -> Result<()> {
        Child::run(timeout, || self.inside(body)).context("in the cgroup")
    }

    /// Does something while the calling process is in it, which should be one that may be killed.
    pub fn inside<T>(&self, body: impl FnOnce() -> Result<T>) -> Result<T> {
        // Where the cgroup is full now, whatever the process does next would get it killed: out of it again.
        let mut out = File::options()
            .write(true)
            .open(Path::new(ROOT).join("cgroup.procs"))?;
        let done = self.enter().and_then(|()| body());
        out.write_all(b"0").context("leaving the cgroup")?;
        done
    }

    /// Sets `memory.max`; `None` lifts the limit.
    pub fn limit(&self, bytes: Option<u64>) -> Result<()> {
        let limit = bytes.map_or("max".into(), |bytes| bytes.to_string());
        std::fs::write(self.0.join("memory.max"), limit).context("memory.max")
    }

    /// Lets it have not a page more than it has now, and put nothing out to swap.
    pub fn fill_up(&self) -> Result<()> {
        let set = |file, value: &str| std::fs::write(self.0.join(file), value).context(file);
        set("memory.swap.max", "0")?;
        // What the CPUs keep of what was charged goes back.
        set("memory.high", "0")?;
        set("memory.high", "max")?;
        self.limit(Some(self.charged()?))
    }

    /// Puts out of memory what can be: more than there is, which the kernel then says.
    pub fn reclaim(&self) -> Result<()> {
        match std::fs::write(self.0.join("memory.reclaim"), "1G") {
            Err(err) if err.raw_os_error() != Some(libc::EAGAIN) => {
                Err(err).context("memory.reclaim")
            }
            _ => Ok(()),
        }
    }

    /// A value of `memory.stat` in bytes. The kernel brings it up to date every few seconds.
    pub fn stat(&self, key: &str) -> Result<u64> {
        self.value("memory.stat", key)
    }

    /// Fails unless it is, before long, charged so many bytes of shared memory.
    pub fn is_charged(&self, ctx: &Ctx, bytes: u64) -> Result<()> {
        let mut charged = Ok(0);
        ctx.wait_for("charge", UP_TO_DATE, || {
            charged = self.stat("shmem");
            matches!(charged, Ok(charged) if charged == bytes)
        })
        .with_context(|| format!("{charged:?} are charged instead of {bytes}"))
    }

    /// How many pages the kernel has for those in it, but for those of small objects.
    pub fn kernel_pages(&self) -> Result<usize> {
        let inode = std::fs::metadata(&self.0)
            .context("a cgroup's inode")?
            .ino();
        frames::of_kernel(inode)
    }

    /// `memory.current`, in bytes.
    pub fn charged(&self) -> Result<u64> {
        self.number("memory.current")
    }

    /// `memory.peak`, in bytes.
    pub fn peak(&self) -> Result<u64> {
        self.number("memory.peak")
    }

    fn number(&self, file: &'static str) -> Result<u64> {
        let text = std::fs::read_to_string(self.0.join(file)).context(file)?;
        text.trim().parse().context(file)
    }

    /// A value of `memory.events`.
    pub fn events(&self, key: &str) -> Result<u64> {
        self.value("memory.events", key)
    }

    fn value(&self, file: &str, key: &str) -> Result<u64> {
        let text = std::fs::read_to_string(self.0.join(file)).context("reading a cgroup's file")?;
        let value = text
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
        Ok(value
            .with_context(|| format!("no {key} in {file}"))?
            .parse()?)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.0);
    }
}

// SPDX-License-Identifier: GPL-2.0

//! Pages that are still held after calls have failed, whatever they are for. [`Owned`](super::owned::Owned) knows of small
//! objects only.

use super::cgroup::Cgroup;
use crate::ctx::Ctx;
use crate::procfs::{self, number_in};
use anyhow::{ensure, Context, Result};
use std::path::Path;
use std::time::Duration;

const PAGE: i64 = 4096;

/// Does something in a cgroup of its own.
pub fn charged<T>(body: impl FnOnce(&Cgroup) -> Result<T>) -> Result<T> {
    let cgroup = Cgroup::new(&format!("held-{}", std::process::id()))?;
    cgroup.inside(|| body(&cgroup))
}

/// Pages that the kernel has for the calling process, which is charged for them.
#[derive(Debug)]
pub struct Held<'a> {
    cgroup: &'a Cgroup,
    before: usize,
}

impl<'a> Held<'a> {
    /// Counts, in the cgroup that the process is in.
    pub fn now(cgroup: &'a Cgroup) -> Result<Self> {
        let before = cgroup.kernel_pages()?;
        Ok(Self { cgroup, before })
    }

    /// Fails unless it comes to be no more than these: some are freed a little later.
    pub fn expect_no_more(&self, ctx: &Ctx, what: &str) -> Result<()> {
        let before = self.before;
        let mut now = usize::MAX;
        ctx.wait_for("all of it is freed", Duration::from_secs(60), || {
            now = self.cgroup.kernel_pages().unwrap_or(usize::MAX);
            now <= before
        })
        .with_context(|| format!("{what}: {now} pages are held instead of {before}"))
    }
}

/// How those pages become more that are in use and that the kernel does not count, as far as nobody is charged for them or
/// they came from the previous kernel.
pub struct Growth<'a> {
    ctx: &'a Ctx,
    last: i64,
    pages: i64,
    failures: u32,
}

impl<'a> Growth<'a> {
    /// From now on.
    pub fn new(ctx: &'a Ctx) -> Result<Self> {
        Ok(Self {
            ctx,
            last: uncounted(ctx)?,
            pages: 0,
            failures: 0,
        })
    }

    /// A call has failed since the last look, and all is as before, or was `kept` for good.
    pub fn look(&mut self, kept: bool) -> Result<()> {
        let now = uncounted(self.ctx)?;
        if !kept {
            self.pages += now - self.last;
            self.failures += 1;
        }
        self.last = now;
        Ok(())
    }

    /// Fails if each failure may have left a page.
    pub fn expect_none(&self, what: &str) -> Result<()> {
        let Self {
            pages, failures, ..
        } = self;
        self.ctx.figure(&format!(
            "{what}: {pages} pages more in use after {failures} failures"
        ));
        ensure!(
            *pages <= i64::from(*failures) / 2,
            "{what}: {failures} failures left {pages} pages"
        );
        Ok(())
    }
}

/// Pages that are in use and that nothing counts.
fn uncounted(ctx: &Ctx) -> Result<i64> {
    // A page of a file that is gone may still be in a CPU's list of those that are new. With a 4 it is done without a word.
    for word in ["4", "1"] {
        std::fs::write("/proc/sys/vm/drop_caches", word).context("drop_caches")?;
    }
    procfs::refresh_vmstat()?;
    let count = |word| number_in("/proc/vmstat", word);
    let counted = count("nr_file_pages")?
        + count("nr_anon_pages")?
        + count("nr_slab_reclaimable")?
        + count("nr_slab_unreclaimable")?
        + count("nr_page_table_pages")?
        // In KiB.
        + count("nr_kernel_stack")? * 1024 / PAGE;
    let managed = i64::try_from(ctx.meminfo_kib("MemTotal")?)? * 1024 / PAGE;
    let free = i64::try_from(ctx.free_kib()?)? * 1024 / PAGE;
    Ok(managed - free - counted - of_stacks()?)
}

/// Pages of the kernel's collection of stacks, which grows with each that is new.
fn of_stacks() -> Result<i64> {
    const STATS: &str = "/sys/kernel/debug/stackdepot/stats";
    match Path::new(STATS).exists() {
        true => Ok(number_in(STATS, "pools:")? * 4),
        false => Ok(0),
    }
}

// SPDX-License-Identifier: GPL-2.0

//! Pages that are still held after calls have failed, whatever they are for. [`Owned`](super::owned::Owned) knows of small
//! objects only.

use super::cgroup::Cgroup;
use crate::ctx::Ctx;
use anyhow::{Context, Result};
use std::time::Duration;

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

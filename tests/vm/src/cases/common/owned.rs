// SPDX-License-Identifier: GPL-2.0

//! The kernel's objects that luo.ko holds, by the functions that asked for them: takes a kernel with
//! `slab_debug=U,kmalloc-*`.

use crate::ctx::Ctx;
use anyhow::{ensure, Context, Result};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

const SLABS: &str = "/sys/kernel/debug/slab";
/// The same caches, where they are told what to do.
const CACHES: &str = "/sys/kernel/slab";

/// Whether a line of a stack is in luo.ko, or in a module that is not there any more.
fn is_ours(line: &str) -> bool {
    line.ends_with("[luo]") || line.starts_with("0x")
}

/// Whether a line of a stack is of an object with a cache of its own, or of the list of those who are charged for the
/// objects of a slab. What is asked for below it the allocator keeps for itself: a sheaf, in which free objects of that
/// cache are, or that list.
fn is_in_allocator(line: &str) -> bool {
    ["kmem_cache_alloc", "kmem_cache_free", "alloc_slab_obj_exts"]
        .iter()
        .any(|name| line.starts_with(name))
}

/// Number of objects by the first functions of luo.ko in the stack that asked for them.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Owned(BTreeMap<String, i64>);

impl Owned {
    /// Counts. Fails if there is nothing: luo.ko holds something as long as it is there.
    pub fn of_inserted() -> Result<Self> {
        let owned = Self::now()?;
        ensure!(!owned.0.is_empty(), "the kernel does not tell who asked");
        Ok(owned)
    }

    /// Counts.
    pub fn now() -> Result<Self> {
        let mut owned = Self::default();
        for cache in fs::read_dir(SLABS).context(SLABS)? {
            let cache = cache?;
            if !cache.file_name().to_string_lossy().starts_with("kmalloc-") {
                continue;
            }
            // KASAN keeps what was freed for a while, as if it were not.
            let shrink = Path::new(CACHES).join(cache.file_name()).join("shrink");
            let _ = fs::write(shrink, "1");
            let path = cache.path().join("alloc_traces");
            // A cache may go while we look.
            let text = fs::read_to_string(&path).unwrap_or_default();
            for record in text.split("\n\n") {
                let count = record
                    .split_whitespace()
                    .next()
                    .and_then(|n| n.parse().ok());
                owned.add(record, count.unwrap_or(0));
            }
        }
        Ok(owned)
    }

    fn add(&mut self, record: &str, count: i64) {
        let lines = record.lines().map(str::trim);
        let place: Vec<_> = lines.clone().filter(|line| is_ours(line)).take(3).collect();
        if !place.is_empty() && !lines.clone().any(is_in_allocator) {
            *self.0.entry(place.join(" < ")).or_default() += count;
        }
    }

    /// What there is more of now, and how much.
    fn more(&self, now: &Self) -> Vec<(i64, String)> {
        let more = now.0.iter().filter_map(|(place, count)| {
            let before = self.0.get(place).copied().unwrap_or(0);
            (*count > before).then(|| (count - before, place.clone()))
        });
        more.collect()
    }

    /// Fails unless luo.ko comes to hold no more than this: some of it is freed a little later.
    pub fn expect_no_more(&self, ctx: &Ctx, what: &str) -> Result<()> {
        let mut more = Vec::new();
        ctx.wait_for("all of it is freed", Duration::from_secs(20), || {
            more = Self::now().map_or_else(
                |err| vec![(i64::MAX, format!("{err:#}"))],
                |now| self.more(&now),
            );
            more.is_empty()
        })
        .with_context(|| format!("{what}: luo.ko still holds {more:#?}"))
    }
}

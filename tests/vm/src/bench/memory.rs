// SPDX-License-Identifier: GPL-2.0

//! How much memory is free, to the page.

use crate::procfs::number_in;
use anyhow::{Context, Result};

const PAGE: i64 = 4096;

/// Bytes of free memory, with the free pages that each CPU has put by, which MemFree leaves out.
pub fn free_bytes() -> Result<i64> {
    let zones = std::fs::read_to_string("/proc/zoneinfo").context("/proc/zoneinfo")?;
    Ok(free_pages(&zones) * PAGE)
}

/// Bytes of shared memory in folios of 2 MiB.
pub fn huge_bytes() -> Result<i64> {
    Ok(number_in("/proc/meminfo", "ShmemHugePages:")? << 10)
}

/// Bytes that could be had without swapping, as the kernel estimates.
pub fn available_bytes() -> Result<i64> {
    Ok(number_in("/proc/meminfo", "MemAvailable:")? << 10)
}

/// Pages that were moved since the kernel started.
pub fn moved_pages() -> Result<i64> {
    number_in("/proc/vmstat", "pgmigrate_success")
}

fn free_pages(zones: &str) -> i64 {
    let lines = zones.lines().map(str::trim);
    let numbers = lines.filter_map(|line| {
        let number = line
            .strip_prefix("pages free")
            .or_else(|| line.strip_prefix("count:"))?;
        number.trim().parse::<i64>().ok()
    });
    numbers.sum()
}

#[cfg(test)]
mod tests {
    #[test]
    fn zones_and_what_cpus_put_by() {
        let zones = "Node 0, zone      DMA\n  pages free     3840\n        min      33\n  pagesets\n    cpu: 0\n              count:    12\n              high:     4\n  nr_free_pages 3840\nNode 0, zone    DMA32\n  pages free     100\n    cpu: 0\n              count:    5\n";
        assert_eq!(super::free_pages(zones), 3840 + 12 + 100 + 5);
    }
}

// SPDX-License-Identifier: GPL-2.0

//! Where in memory something is, by page frame number.

use anyhow::{Context, Result};
use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::os::unix::fs::FileExt;

const PAGE: usize = 4096;
const PRESENT: u64 = 1 << 63;
const FRAME: u64 = (1 << 55) - 1;

/// The page frame of each of the first `count` pages of a mapping that begins at `address`; 0 where none is mapped.
pub fn of_mapping(address: usize, count: usize) -> Result<Vec<u64>> {
    const PATH: &str = "/proc/self/pagemap";
    let mut entries = vec![0; count * 8];
    File::open(PATH)
        .and_then(|pagemap| pagemap.read_exact_at(&mut entries, (address / PAGE * 8) as u64))
        .context(PATH)?;
    let frame = |bytes: &[u8]| {
        let entry = u64::from_ne_bytes(bytes.try_into().expect("eight bytes"));
        if entry & PRESENT == 0 {
            return 0;
        }
        entry & FRAME
    };
    Ok(entries.chunks_exact(8).map(frame).collect())
}

/// The page frames of the areas into which KHO will put the next kernel.
pub fn scratch() -> Result<Vec<Range<u64>>> {
    let [starts, lengths] = ["phys", "len"].map(|name| -> Result<Vec<u64>> {
        let path = format!("/sys/kernel/debug/kho/out/scratch_{name}");
        let text = std::fs::read_to_string(&path).context(path)?;
        let parse = |line: &str| u64::from_str_radix(line.trim_start_matches("0x"), 16);
        Ok(text.lines().map(parse).collect::<Result<_, _>>()?)
    });
    let page = PAGE as u64;
    let areas = starts?.into_iter().zip(lengths?);
    let frames = areas.map(|(start, len)| start / page..(start + len) / page);
    Ok(frames.collect())
}

/// Which of these frames are free, or in somebody's use: of a file or a process, or the kernel's own.
pub fn in_use(frames: &[u64]) -> Result<Vec<u64>> {
    flagged(frames, USED)
}

/// Whether a frame is one of a large folio.
pub fn is_of_folio(frame: u64) -> Result<bool> {
    Ok(!flagged(&[frame], COMPOUND)?.is_empty())
}

/// Whether the hardware is said to have lost a frame.
pub fn is_lost(frame: u64) -> Result<bool> {
    Ok(!flagged(&[frame], LOST)?.is_empty())
}

/// How many pages the kernel itself has that are charged to the cgroup with this inode: those that are neither of files nor
/// of processes, nor full of small objects, each of which is charged by itself.
pub fn of_kernel(cgroup: u64) -> Result<usize> {
    const PATH: &str = "/proc/kpagecgroup";
    let mut owners = File::open(PATH).context(PATH)?;
    let mut bytes = vec![0; 1 << 20];
    let (mut frame, mut charged) = (0, Vec::new());
    loop {
        let len = owners.read(&mut bytes).context(PATH)?;
        if len == 0 {
            break;
        }
        for owner in bytes[..len].chunks_exact(8) {
            if owner == cgroup.to_ne_bytes() {
                charged.push(frame);
            }
            frame += 1;
        }
    }
    let others = flagged(&charged, USED | SWAPBACKED)?.len();
    Ok(charged.len() - others)
}

/// Those of these frames that have any of these flags.
fn flagged(frames: &[u64], wanted: u64) -> Result<Vec<u64>> {
    const PATH: &str = "/proc/kpageflags";
    let flags = File::open(PATH).context(PATH)?;
    let has_one = |&frame: &u64| -> Result<Option<u64>> {
        let mut word = [0; 8];
        flags
            .read_exact_at(&mut word, frame * 8)
            .with_context(|| format!("{PATH} of frame {frame:#x}"))?;
        Ok((u64::from_ne_bytes(word) & wanted != 0).then_some(frame))
    };
    frames
        .iter()
        .filter_map(|frame| has_one(frame).transpose())
        .collect()
}

/// LRU, SLAB, BUDDY, MMAP, ANON and PGTABLE: include/uapi/linux/kernel-page-flags.h.
const USED: u64 = 1 << 5 | 1 << 7 | 1 << 10 | 1 << 11 | 1 << 12 | 1 << 26;
/// COMPOUND_HEAD and COMPOUND_TAIL.
const COMPOUND: u64 = 1 << 15 | 1 << 16;
/// HWPOISON.
const LOST: u64 = 1 << 19;
/// A page of a process or of a file in memory has it from the beginning, and is not in an LRU list for a while.
const SWAPBACKED: u64 = 1 << 14;

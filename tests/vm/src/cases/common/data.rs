// SPDX-License-Identifier: GPL-2.0

//! File contents that can be made again in another kernel to be compared with what arrived.

use anyhow::{ensure, Context, Result};
use std::fs::File;
use std::os::unix::fs::FileExt;

const CHUNK: usize = 1 << 16;

/// A part of a file that was written, all else being hole.
#[derive(Clone, Copy, Debug)]
pub struct Extent {
    /// Where it starts.
    pub start: u64,
    /// How long it is.
    pub len: u64,
}

/// All of a file of this size.
pub const fn whole(len: u64) -> Extent {
    Extent { start: 0, len }
}

/// The bytes of a file: no two chunks alike, and none of them compressible to nothing.
fn chunk(seed: u64, index: u64) -> Vec<u8> {
    let mut state = (seed << 32 ^ index).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(CHUNK);
    while bytes.len() < CHUNK {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes
}

/// The bytes of `[start, start + len)`.
pub fn bytes(seed: u64, start: u64, len: usize) -> Vec<u8> {
    let mut all = Vec::with_capacity(len);
    let mut at = start;
    while all.len() < len {
        let within = (at % CHUNK as u64) as usize;
        let part = chunk(seed, at / CHUNK as u64);
        let take = (CHUNK - within).min(len - all.len());
        all.extend_from_slice(&part[within..within + take]);
        at += take as u64;
    }
    all
}

/// Writes an extent.
pub fn fill(file: &File, seed: u64, extent: Extent) -> Result<()> {
    let end = extent.start + extent.len;
    let mut at = extent.start;
    while at < end {
        let len = (end - at).min(CHUNK as u64) as usize;
        file.write_all_at(&bytes(seed, at, len), at)
            .with_context(|| format!("writing {len} bytes at {at}"))?;
        at += len as u64;
    }
    Ok(())
}

/// Fails unless the file has exactly this size, these extents, and zeros elsewhere.
pub fn check(file: &File, seed: u64, size: u64, extents: &[Extent]) -> Result<()> {
    let actual = file.metadata()?.len();
    ensure!(actual == size, "size {actual} instead of {size}");
    let mut at = 0;
    let mut got = vec![0; CHUNK];
    while at < size {
        let len = (size - at).min(CHUNK as u64) as usize;
        file.read_exact_at(&mut got[..len], at)
            .with_context(|| format!("reading {len} bytes at {at}"))?;
        let mut wanted = vec![0; len];
        for extent in extents {
            let from = extent.start.max(at);
            let to = (extent.start + extent.len).min(at + len as u64);
            if from < to {
                let part = bytes(seed, from, (to - from) as usize);
                wanted[(from - at) as usize..(to - at) as usize].copy_from_slice(&part);
            }
        }
        if let Some(i) = (0..len).find(|&i| got[i] != wanted[i]) {
            let offset = at + i as u64;
            anyhow::bail!(
                "byte {offset} is {:#04x} instead of {:#04x}",
                got[i],
                wanted[i]
            );
        }
        at += len as u64;
    }
    Ok(())
}

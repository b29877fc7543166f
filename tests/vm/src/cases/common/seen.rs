// SPDX-License-Identifier: GPL-2.0

//! What can be seen of a memfd, to be compared with another one of the same history.

use super::pages::PAGE;
use anyhow::{ensure, Context, Result};
use nix::errno::Errno;
use std::fs::File;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt};

/// What can be seen of a file without a look at its bytes, which would bring them in.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Outline {
    /// Size in bytes.
    pub size: u64,
    /// Blocks of 512 bytes.
    pub blocks: u64,
    /// What SEEK_DATA and SEEK_HOLE call data.
    pub data: Vec<Range<u64>>,
}

impl Outline {
    /// Looks at a file.
    pub fn of(file: &File) -> Result<Self> {
        let metadata = file.metadata()?;
        Ok(Self {
            size: metadata.len(),
            blocks: metadata.blocks(),
            data: data_ranges(file)?,
        })
    }
}

/// Fails unless two files look alike, their bytes included.
pub fn alike(file: &File, wanted: &File) -> Result<()> {
    let (actual, outline) = (Outline::of(file)?, Outline::of(wanted)?);
    ensure!(actual == outline, "{actual:?} instead of {outline:?}");
    same_bytes(file, wanted)?;
    // To read them has not changed anything.
    let after = Outline::of(file)?;
    ensure!(after == outline, "{after:?} after it was read");
    Ok(())
}

/// Fails unless two files of the same size have the same bytes.
pub fn same_bytes(file: &File, wanted: &File) -> Result<()> {
    const CHUNK: usize = 1 << 16;
    let size = wanted.metadata()?.len();
    let (mut actual, mut bytes) = (vec![0; CHUNK], vec![0; CHUNK]);
    for at in (0..size).step_by(CHUNK) {
        let len = (size - at).min(CHUNK as u64) as usize;
        file.read_exact_at(&mut actual[..len], at)
            .with_context(|| format!("reading {len} bytes at {at}"))?;
        wanted.read_exact_at(&mut bytes[..len], at)?;
        if let Some(i) = (0..len).find(|&i| actual[i] != bytes[i]) {
            let (page, offset) = ((at as usize + i) / PAGE, (at as usize + i) % PAGE);
            anyhow::bail!(
                "byte {offset} of page {page} is {:#04x} instead of {:#04x}",
                actual[i],
                bytes[i]
            );
        }
    }
    Ok(())
}

/// What SEEK_DATA and SEEK_HOLE call data. The file's position stays.
pub fn data_ranges(file: &File) -> Result<Vec<Range<u64>>> {
    let seek = |offset: u64, whence| {
        // SAFETY: a descriptor and numbers.
        let at = unsafe { libc::lseek(file.as_raw_fd(), offset as libc::off_t, whence) };
        Errno::result(at).map(|at| at as u64)
    };
    let position = seek(0, libc::SEEK_CUR)?;
    let mut ranges = Vec::new();
    let mut at = 0;
    loop {
        let start = match seek(at, libc::SEEK_DATA) {
            Ok(start) => start,
            Err(Errno::ENXIO) => break,
            Err(errno) => return Err(errno).context("SEEK_DATA"),
        };
        at = seek(start, libc::SEEK_HOLE).context("SEEK_HOLE")?;
        ensure!(at > start, "data from {start} to {at}");
        ranges.push(start..at);
    }
    seek(position, libc::SEEK_SET)?;
    Ok(ranges)
}

/// Number of pages of a file that are in its page cache, by mincore(2).
pub fn resident(file: &File) -> Result<usize> {
    let len = file.metadata()?.len() as usize;
    if len == 0 {
        return Ok(0);
    }
    let mut pages = vec![0; len.div_ceil(PAGE)];
    let map = super::memfd::Mapping::with_protection(file, len, libc::PROT_READ)?;
    map.mincore(&mut pages).context("mincore")?;
    Ok(pages.iter().filter(|&&page| page & 1 != 0).count())
}

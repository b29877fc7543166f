// SPDX-License-Identifier: GPL-2.0

//! The guest's memory: a memfd, mapped here and into the guest.
//!
//! The guest sees all of it but the last page. That one is a label, which says how large the guest's memory is and
//! whose it is, so that nobody puts a guest's processors on top of another guest's memory.

use anyhow::{ensure, Context, Result};
use rustix::fs::{ftruncate, memfd_create, MemfdFlags};
use rustix::rand::{getrandom, GetRandomFlags};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::os::unix::fs::FileExt;
use vm_memory::{FileOffset, GuestAddress, GuestMemoryMmap};

/// Bytes of the label.
const LABEL_SIZE: u64 = 4096;
const MAGIC: [u8; 8] = *b"LUOVMRAM";
/// What a guest may have at most: above it are the addresses of its interrupt controllers. A larger guest has a second
/// piece of memory above 4 GiB, which this VMM leaves out.
pub const MAX_SIZE: u64 = 3 << 30;

/// Ties a guest's memory and the state of its processors together.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct GuestId(pub [u8; 16]);

impl GuestId {
    /// One that no other guest has.
    fn random() -> Result<Self> {
        let mut id = [0; 16];
        let count = getrandom(&mut id, GetRandomFlags::empty()).context("getrandom")?;
        ensure!(count == id.len(), "getrandom gives {count} bytes");
        Ok(Self(id))
    }
}

/// The guest's memory.
#[derive(Debug)]
pub struct GuestRam {
    /// The memfd.
    pub file: File,
    /// What the guest sees, mapped into this process.
    pub map: GuestMemoryMmap,
    /// Whose it is.
    pub id: GuestId,
}

impl GuestRam {
    /// Memory for a new guest, of so many bytes.
    pub fn create(size: u64) -> Result<Self> {
        let file = File::from(memfd_create("guest-ram", MemfdFlags::CLOEXEC)?);
        ftruncate(&file, size + LABEL_SIZE).context("the size of the guest's memory")?;
        let id = GuestId::random()?;
        let label = [&MAGIC[..], &size.to_le_bytes(), &id.0].concat();
        file.write_all_at(&label, size)?;
        Self::map(file, size, id)
    }

    /// The memory of a guest that was before.
    pub fn open(file: File) -> Result<Self> {
        let len = file.metadata()?.len();
        let size = len
            .checked_sub(LABEL_SIZE)
            .context("this is no guest's memory: too small")?;
        let mut label = [0; 32];
        file.read_exact_at(&mut label, size)?;
        let (magic, rest) = label.split_at(8);
        let (wanted, id) = rest.split_at(8);
        ensure!(magic == MAGIC, "this is no guest's memory: it has no label");
        ensure!(
            wanted == size.to_le_bytes(),
            "the guest's memory has lost its size"
        );
        let id = GuestId(id.try_into().context("the guest's identity")?);
        Self::map(file, size, id)
    }

    fn map(file: File, size: u64, id: GuestId) -> Result<Self> {
        ensure!(
            size <= MAX_SIZE,
            "a guest may have up to {} MiB",
            MAX_SIZE >> 20
        );
        let backing = FileOffset::new(file.try_clone()?, 0);
        let range = (GuestAddress(0), usize::try_from(size)?, Some(backing));
        let map = GuestMemoryMmap::from_ranges_with_files([range])
            .context("mapping the guest's memory")?;
        Ok(Self { file, map, id })
    }
}

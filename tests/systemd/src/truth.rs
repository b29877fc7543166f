// SPDX-License-Identifier: GPL-2.0

//! What memory has to hold: the same bytes as a file on the disk, which no live update touches.

use anyhow::{ensure, Context, Result};
use nix::sys::memfd::{memfd_create, MFdFlags};
use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

/// Where the files are.
const FOLDER: &str = "/var/lib/luo-systemd";

/// Not a whole number of pages.
const SIZE: usize = (3 << 20) + 123;

/// A memfd with random contents, and a file on the disk with the same.
pub fn memfd(name: &str) -> Result<OwnedFd> {
    let memory = memfd_create(name, MFdFlags::MFD_CLOEXEC).context("memfd_create")?;
    renew(&memory, name)?;
    Ok(memory)
}

/// Gives it other contents, and the file too.
pub fn renew(memory: &OwnedFd, name: &str) -> Result<()> {
    let mut bytes = vec![0; SIZE];
    fastrand::fill(&mut bytes);
    File::from(memory.try_clone()?).write_all_at(&bytes, 0)?;
    std::fs::create_dir_all(FOLDER)?;
    let mut file = File::create(path(name))?;
    file.write_all(&bytes)?;
    Ok(file.sync_all()?)
}

/// Fails unless the memory holds what the file does.
pub fn compare(memory: &OwnedFd, name: &str) -> Result<()> {
    let memory = File::from(memory.try_clone()?);
    let expected = std::fs::read(path(name)).context("the file with what it has to hold")?;
    let size = memory.metadata()?.len();
    ensure!(
        size == expected.len() as u64,
        "{name} has {size} bytes, not {}",
        expected.len()
    );
    let mut found = vec![0; expected.len()];
    memory.read_exact_at(&mut found, 0)?;
    let wrong = found.iter().zip(&expected).position(|(is, was)| is != was);
    ensure!(
        wrong.is_none(),
        "{name} is wrong from byte {} on",
        wrong.unwrap_or_default()
    );
    Ok(())
}

fn path(name: &str) -> PathBuf {
    [FOLDER, name].iter().collect()
}

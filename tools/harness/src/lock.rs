// SPDX-License-Identifier: GPL-2.0

//! Keeps two runs out of one folder.

use anyhow::{bail, Context, Result};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use std::fs::File;
use std::path::Path;

/// A folder that no other run writes to before this is dropped, or its process ends.
#[derive(Debug)]
#[must_use]
pub struct Lock {
    _file: Flock<File>,
}

/// Takes a folder that is there. Does not wait: the other run may take hours, and VMs of both would only be slow.
pub fn take(folder: &Path) -> Result<Lock> {
    let path = folder.join(".lock");
    let file = File::create(&path).with_context(|| path.display().to_string())?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(_file) => Ok(Lock { _file }),
        Err((_, Errno::EWOULDBLOCK)) => bail!(
            "another run writes to {}: wait for its end, or run from another clone",
            folder.display()
        ),
        Err((_, errno)) => Err(errno).with_context(|| path.display().to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::take;

    #[test]
    fn one_run_at_a_time() {
        let folder = std::env::temp_dir().join(format!("luo-lock-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let first = take(&folder).unwrap();
        let why = take(&folder).unwrap_err().to_string();
        assert!(why.starts_with("another run writes to"), "{why}");
        drop(first);
        drop(take(&folder).unwrap());
        std::fs::remove_dir_all(&folder).unwrap();
    }
}

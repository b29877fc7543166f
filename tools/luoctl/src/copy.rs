// SPDX-License-Identifier: GPL-2.0

//! Copies a file's contents out to a new file.

use crate::failure::{Failure, Result, Status};
use crate::progress::Progress;
use rustix::fs::{seek, SeekFrom};
use rustix::io::Errno;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Bytes that are copied at once.
const PORTION: usize = 1 << 20;

/// Where contents go to. A new file is removed again when this is dropped without [`Target::done`].
#[derive(Debug)]
pub struct Target {
    path: PathBuf,
    file: File,
    is_new: bool,
}

impl Target {
    /// Makes a new file. What is there already is written to if it is a device or a pipe, and left alone otherwise.
    pub fn create(path: &Path) -> Result<Self> {
        let failed = |error: io::Error| {
            let next =
                "give the path of a file that does not exist, in a folder that you may write to";
            Failure::io(path.display(), error, next)
        };
        let is_special =
            std::fs::metadata(path).is_ok_and(|there| !there.is_file() && !there.is_dir());
        let file = match is_special {
            true => OpenOptions::new().write(true).open(path),
            false => File::create_new(path),
        };
        Ok(Self {
            path: path.into(),
            file: file.map_err(failed)?,
            is_new: !is_special,
        })
    }

    /// Fills it with what `source` contains, holes as holes.
    pub fn fill(&self, source: &File) -> Result<()> {
        let failed = |error: io::Error| {
            let next = match error.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                    "make room, or choose another place; then run the same command again"
                }
                _ => "mend that, or choose another place; then run the same command again",
            };
            Failure::io(format_args!("writing {}", self.path.display()), error, next)
        };
        let metadata = source.metadata().map_err(failed)?;
        if !metadata.is_file() {
            return Err(Failure::new(
                Status::Failed,
                format_args!("{} has no contents to copy", crate::source::kind(source)),
                "let a command take it: luoctl retrieve NAME TOKEN -- COMMAND",
            ));
        }
        // To look for holes moves the position, which is handed over, too, and is whoever's takes the file next.
        let source =
            &File::open(format!("/proc/self/fd/{}", source.as_raw_fd())).map_err(failed)?;
        let size = metadata.len();
        let progress = Progress::bytes(size, &self.path.display().to_string());
        let mut at = 0;
        while let Some((start, end)) = next_data(source, at, size).map_err(failed)? {
            if !self.is_new {
                self.write_zeros(start - at).map_err(failed)?;
            }
            progress.advance(start - at);
            at = start;
            let mut buffer = vec![0; PORTION];
            while at < end {
                let wanted = usize::try_from(end - at).map_or(PORTION, |rest| rest.min(PORTION));
                let portion = &mut buffer[..wanted];
                source.read_exact_at(portion, at).map_err(failed)?;
                match self.is_new {
                    true => self.file.write_all_at(portion, at),
                    false => (&self.file).write_all(portion),
                }
                .map_err(failed)?;
                at += wanted as u64;
                progress.advance(wanted as u64);
            }
        }
        // What is lost in a power failure right after this cannot be retrieved again: not its name,
        // either.
        match self.is_new {
            true => self
                .file
                .set_len(size)
                .and_then(|()| self.file.sync_all())
                .and_then(|()| self.sync_folder()),
            false => self
                .write_zeros(size - at)
                .and_then(|()| self.sync_device()),
        }
        .map_err(failed)
    }

    /// The path, if it is that of a new file.
    #[must_use]
    pub fn new_path(&self) -> Option<&Path> {
        self.is_new.then_some(&self.path)
    }

    /// Leaves the file there.
    pub fn done(mut self) {
        self.is_new = false;
    }

    fn sync_folder(&self) -> io::Result<()> {
        let folder = match self.path.parent() {
            Some(folder) if folder != Path::new("") => folder,
            _ => Path::new("."),
        };
        std::fs::File::open(folder)?.sync_all()
    }

    /// Of a block device, that is: a pipe has nothing to wait for.
    fn sync_device(&self) -> io::Result<()> {
        match self.file.sync_all() {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(()),
            result => result,
        }
    }

    fn write_zeros(&self, count: u64) -> io::Result<()> {
        io::copy(&mut io::Read::take(io::repeat(0), count), &mut &self.file).map(drop)
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if self.is_new {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// From where to where there is data next.
fn next_data(file: &File, at: u64, size: u64) -> io::Result<Option<(u64, u64)>> {
    if at >= size {
        return Ok(None);
    }
    match seek(file, SeekFrom::Data(at)) {
        Ok(start) => {
            let end = seek(file, SeekFrom::Hole(start))?;
            Ok(Some((start.min(size), end.min(size))))
        }
        // A hole up to the end.
        Err(Errno::NXIO) => Ok(None),
        // A file system that knows no holes.
        Err(Errno::INVAL) => Ok(Some((at, size))),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    fn source() -> File {
        let file = tempfile::tempfile().unwrap();
        file.set_len(8 << 20).unwrap();
        file.write_all_at(b"in the midst", 3 << 20).unwrap();
        file
    }

    #[test]
    fn contents_arrive_and_holes_stay_holes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        let target = Target::create(&path).unwrap();
        let source = source();
        seek(&source, SeekFrom::Start(77)).unwrap();
        target.fill(&source).unwrap();
        target.done();
        assert_eq!(seek(&source, SeekFrom::Current(0)).unwrap(), 77);
        let out = std::fs::read(&path).unwrap();
        assert_eq!(out.len(), 8 << 20);
        assert_eq!(&out[3 << 20..][..12], b"in the midst");
        assert_eq!(out.iter().filter(|&&byte| byte != 0).count(), 12);
        let blocks = std::fs::metadata(&path).unwrap().blocks();
        assert!(blocks * 512 < 2 << 20, "{blocks} blocks");
    }

    #[test]
    fn a_failed_copy_leaves_no_file_behind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        let target = Target::create(&path).unwrap();
        let null = File::open("/dev/null").unwrap();
        let failure = target.fill(&null).unwrap_err();
        assert_eq!(failure.cause, "a character device has no contents to copy");
        drop(target);
        assert!(!path.exists());
    }

    #[test]
    fn a_full_disk_is_named() {
        let full = Target::create(Path::new("/dev/full")).unwrap();
        let failure = full.fill(&source()).unwrap_err();
        assert!(
            failure
                .cause
                .starts_with("writing /dev/full: No space left"),
            "{failure}"
        );
        assert!(failure.next.starts_with("make room"), "{failure}");
        drop(full);
        assert!(Path::new("/dev/full").exists());
    }

    #[test]
    fn a_device_gets_it_as_well() {
        let null = Target::create(Path::new("/dev/null")).unwrap();
        null.fill(&source()).unwrap();
        drop(null);
        assert!(Path::new("/dev/null").exists());
    }

    #[test]
    fn what_is_there_is_left_alone() {
        let there = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(there.path(), "mine").unwrap();
        assert!(Target::create(there.path()).is_err());
        assert_eq!(std::fs::read(there.path()).unwrap(), b"mine");
    }
}

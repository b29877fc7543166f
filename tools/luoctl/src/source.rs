// SPDX-License-Identifier: GPL-2.0

//! The files that the operator names to be preserved.

use crate::failure::{Failure, Result, Status};
use crate::proc::{Descriptor, Proc};
use rustix::fs::{open, FileType, Mode, OFlags};
use rustix::io::Errno;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::path::{Component, Path};

/// Opens a file. A descriptor of a process, named by its path in /proc, is that very one: opened anew it would have
/// another position, and many kinds of file cannot be opened by a path at all.
pub fn get(path: &Path) -> Result<OwnedFd> {
    let failed = |error: std::io::Error| {
        let next = "give the path of a file, or /proc/PID/fd/N for a descriptor that a process has";
        Failure::io(path.display(), error, next)
    };
    match descriptor(path) {
        Some((pid, number)) => {
            let process = Proc::default().process(pid);
            let found = Descriptor { process, number }.duplicate();
            found.map_err(|error| match error.raw_os_error() {
                Some(libc::EBADF) => Failure::new(
                    Status::NotFound,
                    format_args!("{}: the process has no such descriptor", path.display()),
                    format_args!("ls -l /proc/{pid}/fd shows those that it has"),
                ),
                Some(libc::ESRCH) => Failure::new(
                    Status::NotFound,
                    format_args!("{}: there is no such process", path.display()),
                    "ps shows those that there are",
                ),
                _ => failed(error),
            })
        }
        None => open_file(path).map_err(|errno| failed(errno.into())),
    }
}

/// The process and the number that a path in /proc, or /dev/fd, stands for.
fn descriptor(path: &Path) -> Option<(u32, RawFd)> {
    let mut words = Vec::new();
    for component in path.components() {
        match component {
            Component::RootDir => {}
            Component::Normal(word) => words.push(word.to_str()?),
            _ => return None,
        }
    }
    match words[..] {
        ["proc", "self", "fd", number] | ["dev", "fd", number] => {
            Some((std::process::id(), number.parse().ok()?))
        }
        ["proc", pid, "fd", number] => Some((pid.parse().ok()?, number.parse().ok()?)),
        _ => None,
    }
}

/// To be written to as well, if that is possible.
fn open_file(path: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::CLOEXEC | OFlags::NOCTTY;
    match open(path, flags | OFlags::RDWR, Mode::empty()) {
        Err(Errno::ACCESS | Errno::ROFS | Errno::ISDIR | Errno::TXTBSY) => {
            open(path, flags | OFlags::RDONLY, Mode::empty())
        }
        result => result,
    }
}

/// What kind of file it is, in words.
#[must_use]
pub fn kind(file: impl AsFd) -> &'static str {
    let Ok(stat) = rustix::fs::fstat(file) else {
        return "a file";
    };
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile if stat.st_nlink == 0 => "a file without a name",
        FileType::RegularFile => "a file with a name",
        FileType::Directory => "a directory",
        FileType::CharacterDevice => "a character device",
        FileType::BlockDevice => "a block device",
        FileType::Fifo => "a pipe",
        FileType::Socket => "a socket",
        FileType::Symlink => "a symbolic link",
        FileType::Unknown => "a file of a kind that has no name",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::{Seek, SeekFrom, Write};
    use std::os::fd::AsRawFd;

    #[test]
    fn paths_of_descriptors_are_known() {
        let me = std::process::id();
        let of = |path: &str| descriptor(Path::new(path));
        assert_eq!(of("/proc/12/fd/3"), Some((12, 3)));
        assert_eq!(of("/proc//12/fd/3/"), Some((12, 3)));
        assert_eq!(of("/proc/self/fd/4"), Some((me, 4)));
        assert_eq!(of("/dev/fd/5"), Some((me, 5)));
        for other in [
            "/proc/12/fd/x",
            "/proc/12/fd",
            "/dev/fd",
            "fd/3",
            "/x/../proc/1/fd/3",
        ] {
            assert_eq!(of(other), None, "{other}");
        }
    }

    #[test]
    fn a_descriptor_keeps_its_position() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"some words").unwrap();
        let path = format!("/dev/fd/{}", file.as_raw_fd());
        let mut same = File::from(get(Path::new(&path)).unwrap());
        assert_eq!(same.stream_position().unwrap(), 10);
        same.seek(SeekFrom::Start(3)).unwrap();
        assert_eq!(file.stream_position().unwrap(), 3);
        assert_eq!(kind(&same), "a file without a name");
    }

    #[test]
    fn what_is_not_there_is_named() {
        let failure = get(Path::new("/nonexistent/x")).unwrap_err();
        assert_eq!(failure.status, Status::NotFound);
        assert!(failure.cause.starts_with("/nonexistent/x: "), "{failure}");
        assert!(get(Path::new("/dev/fd/987654")).is_err());
    }

    #[test]
    fn what_cannot_be_written_to_is_opened_to_be_read() {
        let folder = get(Path::new("/")).unwrap();
        assert_eq!(kind(folder), "a directory");
        assert_eq!(
            kind(get(Path::new("/dev/null")).unwrap()),
            "a character device"
        );
    }
}

// SPDX-License-Identifier: GPL-2.0

//! Which process has what open, as /proc tells it.

use rustix::process::{pidfd_getfd, pidfd_open, Pid, PidfdFlags, PidfdGetfdFlags};
use serde::Serialize;
use std::fmt;
use std::fs;
use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// What the link of a session's descriptor begins with; the name follows.
const SESSION_LINK: &[u8] = b"anon_inode:[luo_session]";

/// A process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Process {
    /// Its id.
    pub pid: u32,
    /// Its name, as `ps` shows it.
    pub command: String,
    /// Whether it is one that `luoctl` left behind to hold a session.
    pub custodian: bool,
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.custodian { " custodian" } else { "" };
        write!(f, "{}{kind} (PID {})", self.command, self.pid)
    }
}

/// A descriptor of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// The process.
    pub process: Process,
    /// The descriptor's number there.
    pub number: RawFd,
}

impl Descriptor {
    /// Another descriptor of the same open file, for this process.
    pub fn duplicate(&self) -> io::Result<OwnedFd> {
        let pid = i32::try_from(self.process.pid).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or(io::ErrorKind::NotFound)?;
        let process = pidfd_open(pid, PidfdFlags::empty())?;
        Ok(pidfd_getfd(process, self.number, PidfdGetfdFlags::empty())?)
    }
}

/// A mounted proc file system.
#[derive(Clone, Debug)]
pub struct Proc(PathBuf);

impl Default for Proc {
    fn default() -> Self {
        Self::at("/proc")
    }
}

impl Proc {
    /// The one that is mounted here.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// The descriptors of sessions, of all processes but this one.
    #[must_use]
    pub fn sessions(&self) -> Vec<Descriptor> {
        self.descriptors(|link| link.as_os_str().as_bytes().starts_with(SESSION_LINK))
    }

    /// Who else has this file open.
    #[must_use]
    pub fn holders(&self, path: &Path) -> Vec<Process> {
        let mut holders: Vec<Process> = self
            .descriptors(|link| link == path)
            .into_iter()
            .map(|descriptor| descriptor.process)
            .collect();
        holders.dedup();
        holders
    }

    /// What can be seen of them: a process may end, or belong to somebody else.
    fn descriptors(&self, wanted: impl Fn(&Path) -> bool) -> Vec<Descriptor> {
        let mut pids: Vec<u32> = numbers(&self.0).collect();
        pids.sort_unstable();
        let mut found = Vec::new();
        for pid in pids.into_iter().filter(|&pid| pid != std::process::id()) {
            let folder = self.0.join(pid.to_string()).join("fd");
            let mut fds: Vec<RawFd> = numbers(&folder)
                .filter(|fd: &RawFd| {
                    fs::read_link(folder.join(fd.to_string())).is_ok_and(|link| wanted(&link))
                })
                .collect();
            fds.sort_unstable();
            found.extend(fds.into_iter().map(|number| Descriptor {
                process: self.process(pid),
                number,
            }));
        }
        found
    }

    /// A process by its id.
    #[must_use]
    pub fn process(&self, pid: u32) -> Process {
        let folder = self.0.join(pid.to_string());
        let command = fs::read_to_string(folder.join("comm")).unwrap_or_default();
        let line = fs::read(folder.join("cmdline")).unwrap_or_default();
        let mut words = line.split(|&byte| byte == 0);
        let custodian = (words.next(), words.next())
            == (Some(b"luoctl"), Some(crate::custodian::COMMAND.as_bytes()));
        Process {
            pid,
            command: match command.trim() {
                "" => "?".into(),
                command => printable(command),
            },
            custodian,
        }
    }
}

/// A process may call itself what it likes, and the operator's terminal is not to obey it.
fn printable(text: &str) -> String {
    let mut shown = String::new();
    for c in text.chars() {
        match c.is_control() {
            true => shown.extend(c.escape_default()),
            false => shown.push(c),
        }
    }
    shown
}

/// The entries of a folder that are numbers.
fn numbers<T: std::str::FromStr>(folder: &Path) -> impl Iterator<Item = T> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn process(root: &Path, pid: u32, command: &str, line: &[u8], links: &[(&str, &str)]) {
        let folder = root.join(pid.to_string());
        fs::create_dir_all(folder.join("fd")).unwrap();
        fs::write(folder.join("comm"), format!("{command}\n")).unwrap();
        fs::write(folder.join("cmdline"), line).unwrap();
        for (fd, target) in links {
            symlink(target, folder.join("fd").join(fd)).unwrap();
        }
    }

    #[test]
    fn holders_are_found_by_what_they_have_open() {
        let root = tempfile::tempdir().unwrap();
        let session = "anon_inode:[luo_session] vm";
        process(root.path(), 4_000_010, "vmm", b"vmm\0", &[("3", session)]);
        process(
            root.path(),
            4_000_002,
            "luoctl",
            b"luoctl\0custodian\0vm\0",
            &[("0", "/dev/null"), ("5", session)],
        );
        process(
            root.path(),
            4_000_003,
            "agent",
            b"",
            &[("1", "/dev/liveupdate"), ("2", "/dev/liveupdate")],
        );
        let proc = Proc::at(root.path());
        let shown: Vec<String> = proc
            .sessions()
            .iter()
            .map(|d| format!("{} fd {}", d.process, d.number))
            .collect();
        assert_eq!(
            shown,
            [
                "luoctl custodian (PID 4000002) fd 5",
                "vmm (PID 4000010) fd 3"
            ]
        );
        let holders = proc.holders(Path::new("/dev/liveupdate"));
        assert_eq!(holders.len(), 1);
        assert_eq!(holders[0].to_string(), "agent (PID 4000003)");
        assert!(proc.holders(Path::new("/dev/zero")).is_empty());
    }

    #[test]
    fn names_of_processes_do_not_reach_the_terminal_raw() {
        let root = tempfile::tempdir().unwrap();
        process(root.path(), 4_000_001, "\u{1b}[2Jx", b"", &[]);
        let process = Proc::at(root.path()).process(4_000_001);
        assert_eq!(process.command, "\\u{1b}[2Jx");
    }
}

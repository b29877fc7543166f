// SPDX-License-Identifier: GPL-2.0

//! What /proc and /sys tell about this machine's readiness.

use serde::Serialize;
use std::fs;
use std::path::{Path, PathBuf};

/// A machine, or a folder that looks like one.
#[derive(Clone, Debug)]
pub struct Machine(PathBuf);

/// A file type that can be preserved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Handler {
    /// The format in which it hands files on.
    pub format: String,
    /// How many files it has preserved.
    pub files: u64,
}

impl Default for Machine {
    fn default() -> Self {
        Self::at("/")
    }
}

impl Machine {
    /// The one whose root folder this is.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self(root.into())
    }

    /// Whether this kernel can hand anything on; `None` if that cannot be seen.
    #[must_use]
    pub fn has_kho(&self) -> Option<bool> {
        let debugfs = self.debugfs()?;
        Some(debugfs.join("kho/out").is_dir())
    }

    /// Sizes in bytes of the areas in which the next kernel is loaded and starts, the first one below 4 GiB; `None` if
    /// that cannot be seen.
    #[must_use]
    pub fn scratch(&self) -> Option<Vec<u64>> {
        let text = fs::read_to_string(self.debugfs()?.join("kho/out/scratch_len")).ok()?;
        let size = |line: &str| u64::from_str_radix(line.trim().strip_prefix("0x")?, 16).ok();
        text.lines().map(size).collect()
    }

    /// Whether a kernel is loaded for kexec; `None` if this kernel has no kexec.
    #[must_use]
    pub fn has_image(&self) -> Option<bool> {
        let text = self.read("sys/kernel/kexec_loaded")?;
        Some(text.trim() == "1")
    }

    /// The handlers of luo.ko; `None` if that cannot be seen.
    #[must_use]
    pub fn handlers(&self) -> Option<Vec<Handler>> {
        let text = fs::read_to_string(self.debugfs()?.join("luo/handlers")).ok()?;
        // [memfd-v2] files 3
        let handler = |line: &str| {
            let (format, files) = line.rsplit_once(" files ")?;
            Some(Handler {
                format: format.strip_prefix('[')?.strip_suffix(']')?.to_string(),
                files: files.trim().parse().ok()?,
            })
        };
        Some(text.lines().filter_map(handler).collect())
    }

    /// Whether luo.ko is in.
    #[must_use]
    pub fn has_module(&self) -> bool {
        self.0.join("sys/module/luo").is_dir()
    }

    /// The last value that this kernel's command line has for a parameter.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<String> {
        parameter(&self.command_line()?, name).map(str::to_string)
    }

    /// This kernel's command line.
    #[must_use]
    pub fn command_line(&self) -> Option<String> {
        Some(self.read("proc/cmdline")?.trim().to_string())
    }

    /// Where debugfs is, if it is mounted and we may look into it.
    fn debugfs(&self) -> Option<PathBuf> {
        let folder = self.0.join("sys/kernel/debug");
        let mut entries = fs::read_dir(&folder).ok()?;
        entries.next().map(|_| folder)
    }

    fn read(&self, path: impl AsRef<Path>) -> Option<String> {
        fs::read_to_string(self.0.join(path)).ok()
    }
}

/// The last value of a parameter on a kernel command line.
#[must_use]
pub fn parameter<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let value = |word: &'a str| word.strip_prefix(name)?.strip_prefix('=');
    line.split_whitespace().filter_map(value).next_back()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A folder with these files.
    pub(crate) fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        root
    }

    /// Of a machine that is ready.
    pub(crate) const READY: &[(&str, &str)] = &[
        ("proc/cmdline", "console=ttyS0 kho=off kho=on\n"),
        ("sys/kernel/kexec_loaded", "1\n"),
        (
            "sys/kernel/debug/kho/out/scratch_len",
            "0x1000000\n0x8000000\n",
        ),
        (
            "sys/kernel/debug/luo/handlers",
            "[memfd-extents-v2] files 3\n[memfd-v2] files 0\n",
        ),
        ("sys/module/luo/refcnt", "1\n"),
    ];

    #[test]
    fn what_a_ready_machine_says() {
        let root = folder(READY);
        let machine = Machine::at(root.path());
        assert_eq!(machine.has_kho(), Some(true));
        assert_eq!(machine.scratch(), Some(vec![16 << 20, 128 << 20]));
        assert_eq!(machine.has_image(), Some(true));
        assert!(machine.has_module());
        assert_eq!(machine.parameter("kho").as_deref(), Some("on"));
        let handlers = machine.handlers().unwrap();
        assert_eq!(handlers.len(), 2);
        assert_eq!(handlers[0].format, "memfd-extents-v2");
        assert_eq!(handlers[0].files, 3);
    }

    #[test]
    fn what_cannot_be_seen_is_not_taken_for_absent() {
        let root = folder(&[("proc/cmdline", "quiet\n")]);
        let machine = Machine::at(root.path());
        assert_eq!(machine.has_kho(), None);
        assert_eq!(machine.scratch(), None);
        assert_eq!(machine.has_image(), None);
        assert_eq!(machine.handlers(), None);
        assert!(!machine.has_module());
        assert_eq!(machine.parameter("kho"), None);
        let root = folder(&[("sys/kernel/debug/other", "")]);
        assert_eq!(Machine::at(root.path()).has_kho(), Some(false));
    }
}

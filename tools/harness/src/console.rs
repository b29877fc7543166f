// SPDX-License-Identifier: GPL-2.0

//! Reads the kernels' console output while it grows, and finds what no kernel should say.

use anyhow::Result;
use luo_vm_protocol::{MARK_END, MARK_START};
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::{Duration, Instant};

/// What a kernel says when something is wrong with it.
const COMPLAINTS: &[&str] = &[
    "BUG:",
    "WARNING:",
    "Oops",
    "KASAN",
    "UBSAN",
    "kernel BUG at",
    "Kernel panic",
    "general protection fault",
    "possible circular locking",
    "possible recursive locking",
    "inconsistent lock state",
    "suspicious RCU usage",
    "unreferenced object 0x",
    "blocked for more than",
    "detected stalls",
    "rcu_preempt self-detected stall",
    "Bad page state",
    "shmem_evict_inode:",
    "refcount_t:",
    "list_del corruption",
    "list_add corruption",
    "Out of memory: Killed process",
    // By a kexec of which nobody else sees what it said: see lifetime::finished_is_not_lost.
    "[finished] of the previous kernel is lost",
];

/// A complaint and the test during which it came; `None` between tests.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Complaint {
    /// The test that was running.
    pub test: Option<String>,
    /// The line.
    pub line: String,
}

/// The console of one VM.
#[derive(Debug)]
pub struct Console {
    file: File,
    partial: Vec<u8>,
    lines: Vec<String>,
    running: Option<String>,
    complaints: Vec<Complaint>,
}

impl Console {
    /// Follows this file.
    pub fn follow(path: &Path) -> Result<Self> {
        Ok(Self {
            file: File::open(path)?,
            partial: Vec::new(),
            lines: Vec::new(),
            running: None,
            complaints: Vec::new(),
        })
    }

    /// Reads what was added.
    pub fn read(&mut self) -> Result<()> {
        self.file.read_to_end(&mut self.partial)?;
        while let Some(end) = self.partial.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = self.partial.drain(..=end).collect();
            self.take(String::from_utf8_lossy(&line).trim_end().to_string());
        }
        Ok(())
    }

    /// Reads until the end mark of this test is there. The kernel writes it just before the test's result goes out on
    /// the other port, so there is little to wait for; without it this gives up after two seconds.
    pub fn read_to_end_of(&mut self, test: &str) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(2);
        let mark = format!("{MARK_END}{test}");
        let mut seen = 0;
        loop {
            self.read()?;
            if self.lines[seen..].iter().any(|line| line.ends_with(&mark))
                || Instant::now() > deadline
            {
                return Ok(());
            }
            seen = self.lines.len();
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// The complaints found since the last call.
    pub fn take_complaints(&mut self) -> Vec<Complaint> {
        std::mem::take(&mut self.complaints)
    }

    /// Reads what was added, and gives those lines.
    pub fn read_lines(&mut self) -> Result<&[String]> {
        let seen = self.lines.len();
        self.read()?;
        Ok(&self.lines[seen..])
    }

    /// The last lines so far.
    pub fn tail(&self, count: usize) -> &[String] {
        &self.lines[self.lines.len().saturating_sub(count)..]
    }

    fn take(&mut self, line: String) {
        if let Some((_, test)) = line.split_once(MARK_START) {
            self.running = Some(test.to_string());
        } else if let Some((_, test)) = line.split_once(MARK_END) {
            if self.running.as_deref() == Some(test) {
                self.running = None;
            }
        } else if COMPLAINTS.iter().any(|complaint| line.contains(complaint)) {
            self.complaints.push(Complaint {
                test: self.running.clone(),
                line: line.clone(),
            });
        }
        self.lines.push(line);
    }
}

/// A console line as the log's time in seconds and the text: "[    5.140900] luo: ready".
pub fn split_line(line: &str) -> Option<(f64, &str)> {
    let (time, text) = line.strip_prefix('[')?.split_once("] ")?;
    // Some kernels add the caller: "[    5.140900][   T1] ".
    let time = time.split(']').next()?.trim().parse().ok()?;
    Some((time, text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn complaints_belong_to_the_test_that_ran() {
        let path = std::env::temp_dir().join(format!("luo-console-{}", std::process::id()));
        let mut file = File::create(&path).unwrap();
        let mut console = Console::follow(&path).unwrap();
        writeln!(
            file,
            "[ 0.1] WARNING: at boot\r\n[ 1.0] luo-vm: start a::b\r"
        )
        .unwrap();
        write!(file, "[ 1.1] BUG: half a li").unwrap();
        console.read().unwrap();
        writeln!(
            file,
            "ne\n[ 1.2] luo-vm: end a::b\n[ 1.3] Kernel panic - not syncing"
        )
        .unwrap();
        console.read_to_end_of("a::b").unwrap();
        let found = console.take_complaints();
        std::fs::remove_file(&path).unwrap();
        let tests: Vec<_> = found
            .iter()
            .map(|complaint| complaint.test.as_deref())
            .collect();
        assert_eq!(tests, [None, Some("a::b"), None]);
        assert_eq!(found[1].line, "[ 1.1] BUG: half a line");
        assert!(console.take_complaints().is_empty());
    }
}

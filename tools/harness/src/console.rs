// SPDX-License-Identifier: GPL-2.0

//! Reads the kernels' console output while it grows, and finds what no kernel should say.

use anyhow::Result;
use luo_vm_protocol::{MARK_END, MARK_START};
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::{Duration, Instant};

/// What a kernel says when something is wrong with it. Most of its reports have one of the first two in them.
const COMPLAINTS: &[&str] = &[
    "BUG:",
    "WARNING:",
    "Oops",
    "KASAN",
    "UBSAN",
    "kernel BUG at",
    "Kernel panic",
    "general protection fault",
    // Locks.
    "possible circular locking",
    "possible recursive locking",
    "inconsistent lock state",
    "suspicious RCU usage",
    "INFO: trying to register non-static key",
    "huh, entered softirq",
    // From there on nobody looks at locks any more.
    "Disabling lock debugging",
    // What does not go on: also "self-detected stall", and in I/O wait.
    "detected stall",
    "detected expedited stall",
    "blocked for more than",
    "blocked in I/O wait for more than",
    "waiting for writeback completion for more than",
    // Memory. Slab's "BUG kmalloc-64 (Not tainted): Object already free" has no colon after the word, and what kmemleak
    // finds may be an "object (percpu)" or "(phys)"; two objects in one place are an allocator's fault.
    "] BUG ",
    "unreferenced object",
    "into the object search tree",
    "pagealloc: memory corruption",
    "pagealloc: single bit error",
    "Bad page state",
    "Bad swap file entry",
    "Bad swap offset entry",
    "Unexpected gfp:",
    "shmem_evict_inode:",
    "refcount_t:",
    "list_del corruption",
    "list_add corruption",
    "Out of memory: Killed process",
    // What was dropped may have been one of these.
    "printk messages dropped",
    // Data that is not what was written.
    "EXT4-fs error",
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

    /// The complaints found since the last [`Self::take_complaints`].
    pub fn complaints(&self) -> &[Complaint] {
        &self.complaints
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
        } else if is_complaint(&line) {
            self.complaints.push(Complaint {
                test: self.running.clone(),
                line: line.clone(),
            });
        }
        self.lines.push(line);
    }
}

fn is_complaint(line: &str) -> bool {
    COMPLAINTS.iter().any(|complaint| line.contains(complaint))
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

    /// The line that each begins with, as Linux 7.3 words it.
    #[test]
    fn reports_of_each_kind_are_complaints() {
        for report in [
            "BUG: KASAN: slab-use-after-free in luo_ioctl+0x1/0x2",
            "BUG: KCSAN: data-race in shmem_evict_inode / shmem_freeze",
            "BUG: KFENCE: memory corruption in kfree+0x1/0x2",
            "BUG: Bad rss-counter state mm:1 type:MM_SHMEMPAGES val:1 Comm:a Pid:1",
            "BUG: scheduling while atomic: luo/1/0x00000002",
            "BUG: sleeping function called from invalid context at mm/shmem.c:1",
            "BUG: workqueue leaked atomic, lock or RCU: kworker/0:1[9]",
            "BUG kmalloc-64 (Not tainted): Object already free",
            "BUG luo_session (Tainted: G O): Objects remaining on __kmem_cache_shutdown()",
            "WARNING: lib/debugobjects.c:615 at debug_print_object+0x1/0x2, CPU#0: luo/1",
            "WARNING: possible irq lock inversion dependency detected",
            "WARNING: held lock freed!",
            "WARNING: bad unlock balance detected!",
            "INFO: trying to register non-static key.",
            "softirq: huh, entered softirq 9 RCU 1 with preempt_count 00000100, exited with 00000101?",
            "rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:",
            "rcu: INFO: rcu_preempt self-detected stall on CPU",
            "rcu: INFO: rcu_sched self-detected stall on CPU",
            "rcu: INFO: rcu_preempt detected stall, but suppressed full report due to a stuck CSD-lock.",
            "rcu: INFO: rcu_preempt detected expedited stalls on CPUs/tasks: {",
            "INFO: rcu_tasks detected stalls on tasks:",
            "INFO: task luo:1 blocked for more than 122 seconds.",
            "INFO: task luo:1 blocked in I/O wait for more than 122 seconds.",
            "INFO: The task luo:1 has been waiting for writeback completion for more than 122 seconds.",
            "luo-vm: unreferenced object 0xffff888004a2b000 (size 64):",
            "luo-vm: unreferenced object (percpu) 0x607f10a2b000 (size 8):",
            "luo-vm: unreferenced object (phys) 0x04a2b000 (size 4096):",
            "kmemleak: Cannot insert 0xffff888004a2b000 into the object search tree (overlaps existing)",
            "Disabling lock debugging due to kernel taint",
            "pagealloc: memory corruption",
            "pagealloc: single bit error",
            "get_swap_device: Bad swap file entry 3ffffff",
            "get_swap_device: Bad swap offset entry 3ffffff",
            "Unexpected gfp: 0x2 (__GFP_HIGHMEM). Fixing up to gfp: 0xcc0 (GFP_KERNEL). Fix your code!",
            "EXT4-fs error (device vda): ext4_lookup:1: inode #2: comm a: iget: checksum invalid",
        ] {
            assert!(is_complaint(&format!("[    5.140900] {report}")), "{report}");
            // With the caller, as kernels with CONFIG_PRINTK_CALLER do.
            assert!(is_complaint(&format!("[    5.140900][   T1] {report}")), "{report}");
        }
        for usual in [
            "SLUB: HWalign=64, Order=0-3, MinObjects=0, CPUs=2, Nodes=1",
            "rcu: RCU calculated value of scheduler-enlistment delay is 100 jiffies.",
            "kmemleak: Kernel memory leak detector disabled",
            "EXT4-fs (vda): mounted filesystem r/w with ordered data mode. Quota mode: disabled.",
            "FAULT_INJECTION: forcing a failure.",
            "luo: DEBUG of a session",
        ] {
            assert!(!is_complaint(&format!("[    5.140900] {usual}")), "{usual}");
        }
    }
}

// SPDX-License-Identifier: GPL-2.0

//! What the orchestrator writes into the kernel's log, which is more than an errno can say.

use rustix::fs::OFlags;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;

/// The log from a point in time on.
#[derive(Debug)]
pub struct KernelLog(Option<File>);

impl KernelLog {
    /// From now on. Without the right to read it, it stays empty.
    #[must_use]
    pub fn from_now() -> Self {
        let open = || {
            let mut options = OpenOptions::new();
            let flags = OFlags::NONBLOCK.bits() as i32;
            let mut log = options.read(true).custom_flags(flags).open("/dev/kmsg")?;
            log.seek(SeekFrom::End(0))?;
            std::io::Result::Ok(log)
        };
        Self(open().ok())
    }

    /// The orchestrator's last line since then.
    pub fn last_of_luo(&mut self) -> Option<String> {
        let log = self.0.as_mut()?;
        let mut last = None;
        // The longest record there can be. Each call reads one.
        let mut record = [0; 8192];
        while let Ok(length @ 1..) = log.read(&mut record) {
            let record = String::from_utf8_lossy(&record[..length]);
            last = text_of_luo(&record).map(str::to_string).or(last);
        }
        last
    }
}

/// The text of a record, such as `4,1234,5678,-;luo: text`, if it is the orchestrator's.
fn text_of_luo(record: &str) -> Option<&str> {
    let (_, text) = record.split_once(';')?;
    text.lines().next()?.strip_prefix("luo: ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_orchestrators_lines() {
        let line =
            "4,12,34,-;luo: session \"vm\": token 0x1 refuses the kexec: EIO\n SUBSYSTEM=x\n";
        let text = "session \"vm\": token 0x1 refuses the kexec: EIO";
        assert_eq!(text_of_luo(line), Some(text));
        assert_eq!(text_of_luo("4,12,34,-;random: luo: x\n"), None);
        assert_eq!(text_of_luo(""), None);
    }
}

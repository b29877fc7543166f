// SPDX-License-Identifier: GPL-2.0

//! The kernel log: marks in it, and what it says from some point on.

use anyhow::{bail, Context, Result};
use nix::errno::Errno;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;

const KMSG: &str = "/dev/kmsg";

/// Writes a line into the kernel log, and so to the console.
pub fn write(line: &str) {
    // Priority 6, informational, of the user facility.
    write_as(14, line);
}

/// Writes a line that is on the console even where that leaves out the informational ones.
pub fn notice(line: &str) {
    write_as(13, line);
}

fn write_as(priority: u32, line: &str) {
    let _ = OpenOptions::new()
        .write(true)
        .open(KMSG)
        .and_then(|mut kmsg| kmsg.write_all(format!("<{priority}>{line}\n").as_bytes()));
}

/// The kernel log from the moment this was made.
#[derive(Debug)]
pub struct Log(File);

impl Log {
    /// Starts listening: only what is logged from now on is seen.
    pub fn from_now() -> Result<Self> {
        let mut file = open_log()?;
        file.seek(SeekFrom::End(0))
            .context("seeking in the kernel log")?;
        Ok(Self(file))
    }

    /// The whole log of this kernel.
    pub fn from_boot() -> Result<Self> {
        open_log().map(Self)
    }

    /// The lines logged since the last call, without their prefix of priority and time.
    pub fn lines(&mut self) -> Result<Vec<String>> {
        let mut record = [0; 8192];
        let mut lines = Vec::new();
        loop {
            match self.0.read(&mut record) {
                Ok(0) => return Ok(lines),
                Ok(n) => lines.push(message(&String::from_utf8_lossy(&record[..n]))),
                Err(err) => match Errno::from_raw(err.raw_os_error().unwrap_or(0)) {
                    Errno::EAGAIN => return Ok(lines),
                    // The ring buffer wrapped: some lines are lost, reading goes on behind them.
                    Errno::EPIPE => continue,
                    _ => return Err(err).context("reading the kernel log"),
                },
            }
        }
    }

    /// Fails unless a line logged since the last call holds `text`; gives that line.
    pub fn expect(&mut self, text: &str) -> Result<String> {
        let lines = self.lines()?;
        match lines.iter().find(|line| line.contains(text)) {
            Some(line) => Ok(line.clone()),
            None => bail!("no line with {text:?} in the kernel log, but: {lines:#?}"),
        }
    }
}

fn open_log() -> Result<File> {
    OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(KMSG)
        .context("opening the kernel log")
}

/// The text of a record: "6,339,5140900,-;the text\n KEY=value\n".
fn message(record: &str) -> String {
    let text = record.split_once(';').map_or(record, |(_, text)| text);
    text.lines().next().unwrap_or_default().to_string()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_text_of_a_record() {
        assert_eq!(
            super::message("6,339,5140900,-;luo: ready\n SUBSYSTEM=misc\n"),
            "luo: ready"
        );
    }
}

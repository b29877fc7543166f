// SPDX-License-Identifier: GPL-2.0

//! Asks the service, and checks what it says.

use super::service::SOCKET;
use super::store::Entry;
use anyhow::{bail, ensure, Context, Result};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;

/// A connection to the service.
pub struct Client {
    requests: UnixStream,
    answers: BufReader<UnixStream>,
    /// What the service has, by path, once it was asked.
    pub entries: BTreeMap<String, Entry>,
}

impl Client {
    /// Connects.
    pub fn connect() -> Result<Self> {
        let requests = UnixStream::connect(SOCKET).context(SOCKET)?;
        let answers = BufReader::new(requests.try_clone()?);
        Ok(Self {
            requests,
            answers,
            entries: BTreeMap::new(),
        })
    }

    /// Asks what there is.
    pub fn list(&mut self) -> Result<()> {
        self.entries = serde_json::from_slice(&self.ask("LIST")?)?;
        Ok(())
    }

    /// One request and its answer.
    pub fn ask(&mut self, request: &str) -> Result<Vec<u8>> {
        self.requests.write_all(format!("{request}\n").as_bytes())?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        match line.trim_end().split_once(' ') {
            Some(("OK", len)) => {
                let mut content = vec![0; len.parse()?];
                self.answers.read_exact(&mut content)?;
                Ok(content)
            }
            _ => bail!("the service says {:?} to {request:?}", line.trim_end()),
        }
    }

    /// Asks for about this many files, spread over all of them, and insists on their sums. Gives how many it were.
    pub fn sample(&mut self, count: usize) -> Result<u64> {
        let step = (self.entries.len() / count).max(1);
        let paths: Vec<_> = self.entries.keys().step_by(step).cloned().collect();
        for path in &paths {
            ensure!(
                self.is_right(path)?,
                "{path} has another sum than it had on the host"
            );
        }
        Ok(paths.len() as u64)
    }

    /// Asks for a file and compares its sum.
    pub fn is_right(&mut self, path: &str) -> Result<bool> {
        let content = self.ask(&format!("GET {path}"))?;
        let entry = self
            .entries
            .get(path)
            .with_context(|| format!("no file {path}"))?;
        Ok(content.len() as u64 == entry.len && hex(&Sha256::digest(&content)) == entry.sha256)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes all");
        text
    })
}

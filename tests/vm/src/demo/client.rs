// SPDX-License-Identifier: GPL-2.0

//! Asks the service, and checks what it says.

use super::service::SOCKET;
use super::store::Entry;
use crate::hex::hex;
use anyhow::{bail, ensure, Context, Result};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
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
        self.send(&[request])?;
        self.receive().context(request.to_string())
    }

    /// Asks for about this many files, spread over all of them, and insists on their sums. Gives how many it were.
    pub fn sample(&mut self, count: usize) -> Result<u64> {
        let step = (self.entries.len() / count).max(1);
        let paths: Vec<_> = self.entries.keys().step_by(step).cloned().collect();
        let wrong = self.wrong_of(&paths)?;
        ensure!(
            wrong.is_empty(),
            "with another sum than on the host: {wrong:?}"
        );
        Ok(paths.len() as u64)
    }

    /// Asks for all of these files. Gives those whose content has another length or sum than on the host.
    pub fn wrong_of(&mut self, paths: &[String]) -> Result<Vec<String>> {
        let mut wrong = Vec::new();
        // Not one by one: to wake the other side for each takes longer than the answer.
        for paths in paths.chunks(32) {
            let requests: Vec<_> = paths.iter().map(|path| format!("GET {path}")).collect();
            self.send(&requests)?;
            for path in paths {
                let content = self.receive().with_context(|| path.clone())?;
                let entry = self
                    .entries
                    .get(path)
                    .with_context(|| format!("no file {path}"))?;
                let sum = hex(&Sha256::digest(&content));
                if content.len() as u64 != entry.len || sum != entry.sha256 {
                    wrong.push(path.clone());
                }
            }
        }
        Ok(wrong)
    }

    fn send<S: AsRef<str>>(&mut self, requests: &[S]) -> Result<()> {
        let lines: String = requests
            .iter()
            .flat_map(|request| [request.as_ref(), "\n"])
            .collect();
        Ok(self.requests.write_all(lines.as_bytes())?)
    }

    fn receive(&mut self) -> Result<Vec<u8>> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        match line.trim_end().split_once(' ') {
            Some(("OK", len)) => {
                let mut content = vec![0; len.parse()?];
                self.answers.read_exact(&mut content)?;
                Ok(content)
            }
            _ => bail!("the service says {:?}", line.trim_end()),
        }
    }
}

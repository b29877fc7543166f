// SPDX-License-Identifier: GPL-2.0

//! The service's data: the files of an archive, packed into one memfd for each top-level folder, and an index.
//!
//! The index is what lets the next kernel's service find its way: it is preserved too, as a memfd of its own.

use anyhow::{ensure, Context, Result};
use liveupdate::{Device, IncomingSession, OutgoingSession};
use luo_vm_protocol::demo::{MANIFEST, SESSION};
use nix::fcntl::{fcntl, FcntlArg, SealFlag};
use nix::sys::memfd::{memfd_create, MFdFlags};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Under this token the index is preserved; volume N under N + 1.
const INDEX_TOKEN: u64 = 0;
/// Bytes of the number at the index's start.
const COUNT_LEN: usize = 8;

/// Where a file lies and what its content must sum up to.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Entry {
    /// Its volume.
    volume: usize,
    /// Where in the volume it begins.
    offset: u64,
    /// Its length.
    pub len: u64,
    /// SHA-256 in hexadecimal, computed on the host before all of this.
    pub sha256: String,
}

/// The data.
#[derive(Debug)]
pub struct Store {
    /// Every file by its path.
    pub entries: BTreeMap<String, Entry>,
    volumes: Vec<File>,
    index: File,
}

impl Store {
    /// Reads a tar archive whose first file is the manifest.
    pub fn load(archive: impl Read) -> Result<Self> {
        let mut archive = tar::Archive::new(archive);
        let mut sums = HashMap::new();
        let mut entries = BTreeMap::new();
        let mut packer = Packer::default();
        for file in archive.entries()? {
            let mut file = file?;
            let path = file
                .path()?
                .to_str()
                .context("a path that is not UTF-8")?
                .to_string();
            if path == MANIFEST {
                sums = read_manifest(&mut file)?;
                continue;
            }
            let sha256 = sums
                .remove(&path)
                .with_context(|| format!("{path} is not in the manifest"))?;
            let (volume, offset, len) = packer.add(&path, &mut file)?;
            entries.insert(
                path,
                Entry {
                    volume,
                    offset,
                    len,
                    sha256,
                },
            );
        }
        ensure!(
            sums.is_empty(),
            "{} files of the manifest are missing",
            sums.len()
        );
        let mut index = File::from(memfd_create("index", MFdFlags::MFD_ALLOW_SEALING)?);
        // The number of volumes first: it tells how many to retrieve before anything is parsed.
        index.write_all(&(packer.volumes.len() as u64).to_le_bytes())?;
        index.write_all(&serde_json::to_vec(&entries)?)?;
        let store = Self {
            entries,
            volumes: packer.volumes,
            index,
        };
        for memfd in store.memfds() {
            // The archive is not to change any more; the next kernel must know that too.
            fcntl(memfd, FcntlArg::F_ADD_SEALS(SEALS)).context("sealing")?;
        }
        Ok(store)
    }

    /// Puts everything into a session, which is to stay open until the kexec.
    pub fn preserve(&self) -> Result<OutgoingSession> {
        let session = Device::open()?.create_session(SESSION)?;
        for (token, memfd) in (INDEX_TOKEN..).zip(self.memfds()) {
            session.preserve(memfd, token)?;
        }
        Ok(session)
    }

    /// The content of a file.
    pub fn read(&self, path: &str) -> Result<Vec<u8>> {
        let entry = self
            .entries
            .get(path)
            .with_context(|| format!("no file {path}"))?;
        let mut content = vec![0; usize::try_from(entry.len)?];
        self.volumes[entry.volume].read_exact_at(&mut content, entry.offset)?;
        Ok(content)
    }

    /// How many memfds hold it, the index included.
    pub fn count_memfds(&self) -> u64 {
        self.memfds().count() as u64
    }

    fn memfds(&self) -> impl Iterator<Item = &File> {
        std::iter::once(&self.index).chain(&self.volumes)
    }
}

const SEALS: SealFlag = SealFlag::F_SEAL_SHRINK
    .union(SealFlag::F_SEAL_GROW)
    .union(SealFlag::F_SEAL_WRITE);

/// The memfds as they come out of the session, not looked into yet.
#[derive(Debug)]
pub struct Retrieved {
    /// To be finished when all is taken.
    pub session: IncomingSession,
    index: File,
    volumes: Vec<File>,
}

impl Retrieved {
    /// Takes everything back in the next kernel.
    pub fn take() -> Result<Self> {
        let session = Device::open()?.retrieve_session(SESSION)?;
        let take = |token| -> Result<File> { Ok(session.retrieve(token)?.into()) };
        let index = take(INDEX_TOKEN)?;
        let mut count = [0; COUNT_LEN];
        index
            .read_exact_at(&mut count, 0)
            .context("reading the index")?;
        let volumes = (1..=u64::from_le_bytes(count)).map(|volume| take(INDEX_TOKEN + volume));
        let volumes = volumes.collect::<Result<_>>()?;
        Ok(Self {
            session,
            index,
            volumes,
        })
    }

    /// Makes it a store again.
    pub fn into_store(self) -> Result<Store> {
        let Self { index, volumes, .. } = self;
        let mut json = vec![0; usize::try_from(index.metadata()?.len())? - COUNT_LEN];
        index
            .read_exact_at(&mut json, COUNT_LEN as u64)
            .context("reading the index")?;
        let entries = serde_json::from_slice(&json).context("the index")?;
        let store = Store {
            entries,
            volumes,
            index,
        };
        for memfd in store.memfds() {
            let seals = fcntl(memfd, FcntlArg::F_GET_SEALS).context("reading the seals")?;
            let seals = SealFlag::from_bits_retain(seals);
            ensure!(
                seals == SEALS,
                "a memfd comes back with the seals {seals:?}"
            );
        }
        Ok(store)
    }
}

/// Appends files to volumes.
#[derive(Default)]
struct Packer {
    volumes: Vec<File>,
    by_folder: HashMap<String, usize>,
    lengths: Vec<u64>,
}

impl Packer {
    /// Gives volume, offset and length.
    fn add(&mut self, path: &str, content: &mut impl Read) -> Result<(usize, u64, u64)> {
        let mut parts = Path::new(path).components();
        let first = parts
            .next()
            .map(|part| part.as_os_str().to_string_lossy().into_owned());
        // Files that lie at the top, in no folder, share a volume.
        let folder = first.filter(|_| parts.next().is_some()).unwrap_or_default();
        let volume = match self.by_folder.get(&folder) {
            Some(&volume) => volume,
            None => {
                let name = if folder.is_empty() { "top" } else { &folder };
                let name: String = name.chars().take(60).collect();
                self.volumes
                    .push(memfd_create(name.as_str(), MFdFlags::MFD_ALLOW_SEALING)?.into());
                self.lengths.push(0);
                self.by_folder.insert(folder, self.volumes.len() - 1);
                self.volumes.len() - 1
            }
        };
        let len = std::io::copy(content, &mut self.volumes[volume])?;
        let offset = self.lengths[volume];
        self.lengths[volume] += len;
        Ok((volume, offset, len))
    }
}

fn read_manifest(manifest: &mut impl Read) -> Result<HashMap<String, String>> {
    let mut text = String::new();
    manifest.read_to_string(&mut text)?;
    text.lines()
        .map(|line| {
            let (sum, path) = line.split_once("  ").context("a line of the manifest")?;
            Ok((path.to_string(), sum.to_string()))
        })
        .collect()
}

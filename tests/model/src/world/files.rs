// SPDX-License-Identifier: GPL-2.0

//! Files, and what is in them.

use super::{Object, World};
use crate::answer::{Answer, Errno, Told};
use crate::command::{FileKind, Slot, Worker};
use crate::session::Id;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The size of a page.
pub(super) const PAGE: u64 = 4096;

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) enum File {
    /// A memfd: its size, and the words that were written to its pages.
    Memfd {
        size: u64,
        words: BTreeMap<u64, u64>,
    },
    /// The recorder's: whether it has both FLBs, its number, and whether that was read.
    Recorder { both: bool, id: u32, read: bool },
    /// One that cannot be preserved.
    Other,
}

impl File {
    /// A new one.
    pub(super) fn new(kind: FileKind, id: u32) -> Self {
        match kind {
            FileKind::Memfd => Self::Memfd {
                size: 0,
                words: BTreeMap::new(),
            },
            FileKind::RecorderA | FileKind::RecorderB => Self::Recorder {
                both: kind == FileKind::RecorderA,
                id,
                read: false,
            },
            FileKind::Null | FileKind::Event | FileKind::Named => Self::Other,
        }
    }

    /// A kexec makes a new file of it, with a position of its own.
    pub(super) fn arrive(&mut self) {
        if let Self::Recorder { read, .. } = self {
            *read = false;
        }
    }
}

impl World {
    pub(super) fn is_preserved(&self, file: Id) -> bool {
        let mut files = self.outgoing.iter().flat_map(|session| &session.files);
        files.any(|(_, _, preserved)| *preserved == file)
    }

    pub(super) fn is_incoming(&self, file: Id) -> bool {
        let mut files = self.incoming.iter().flat_map(|session| &session.files);
        files.any(|(_, incoming, _)| *incoming == file)
    }

    pub(super) fn is_recorders(&self, file: Id) -> bool {
        matches!(self.files.get(&file), Some(File::Recorder { .. }))
    }

    fn find_file(&mut self, by: Worker, slot: Slot) -> Result<(Id, &mut File), Errno> {
        match self.find(by, slot)? {
            Object::File(id) => Ok((id, self.files.get_mut(&id).expect("open files are kept"))),
            _ => Err(Errno::EINVAL),
        }
    }

    pub(super) fn write(&mut self, by: Worker, slot: Slot, page: u64, value: u64) -> Answer {
        let (id, _) = self.find_file(by, slot)?;
        let frozen = self.is_preserved(id);
        match self.find_file(by, slot)?.1 {
            File::Memfd { size, words } => {
                let end = page * PAGE + 8;
                if end > *size && frozen {
                    return Err(Errno::EPERM);
                }
                *size = end.max(*size);
                words.insert(page, value);
                Ok(Told::Nothing)
            }
            _ => Err(Errno::EINVAL),
        }
    }

    pub(super) fn read(&mut self, by: Worker, slot: Slot) -> Answer {
        match self.find_file(by, slot)?.1 {
            File::Memfd { size, words } => Ok(contents(*size, words)),
            File::Recorder { id, read, .. } => {
                let told = (!*read).then_some(*id);
                *read = true;
                Ok(Told::Id(told))
            }
            File::Other => Err(Errno::EINVAL),
        }
    }

    pub(super) fn resize(&mut self, by: Worker, slot: Slot, pages: u64) -> Answer {
        let to = pages * PAGE;
        let (id, _) = self.find_file(by, slot)?;
        let frozen = self.is_preserved(id);
        match self.find_file(by, slot)?.1 {
            File::Memfd { size, words } => {
                if to != *size && frozen {
                    return Err(Errno::EPERM);
                }
                *size = to;
                words.retain(|page, _| page * PAGE + 8 <= to);
                Ok(Told::Nothing)
            }
            _ => Err(Errno::EINVAL),
        }
    }

    pub(super) fn compatible(&self, file: Id) -> String {
        match self.files[&file] {
            File::Recorder { both: true, .. } => "luo-recorder-a-v1".into(),
            File::Recorder { both: false, .. } => "luo-recorder-b-v1".into(),
            _ => self.layout.memfd_format.clone(),
        }
    }
}

/// What is in a memfd.
pub(super) fn contents(size: u64, words: &BTreeMap<u64, u64>) -> Told {
    let pages = (0..).take_while(|page| page * PAGE + 8 <= size);
    let word = |page| words.get(&page).copied().unwrap_or(0);
    Told::Contents {
        size,
        words: pages.map(word).collect(),
    }
}

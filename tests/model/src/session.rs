// SPDX-License-Identifier: GPL-2.0

//! Sessions of both kinds.

use crate::answer::{Errno, SessionEntry, SessionState};
use crate::list::Listings;
use serde::{Deserialize, Serialize};

/// What tells a session or a file from all others.
pub(crate) type Id = u64;

/// A session that will be handed over.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Outgoing {
    pub(crate) id: Id,
    pub(crate) name: Vec<u8>,
    pub(crate) prepared: bool,
    pub(crate) ordered: bool,
    /// In the order of preservation: place in the list, token, file.
    pub(crate) files: Vec<(u64, u64, Id)>,
    /// The place of the next file.
    pub(crate) next_place: u64,
    pub(crate) listings: Listings,
}

impl Outgoing {
    pub(crate) fn new(id: Id, name: Vec<u8>) -> Self {
        Self {
            id,
            name,
            prepared: false,
            ordered: false,
            files: Vec::new(),
            next_place: 0,
            listings: Listings::default(),
        }
    }

    pub(crate) fn state(&self) -> SessionState {
        match self.prepared {
            true => SessionState::Prepared,
            false => SessionState::Normal,
        }
    }

    pub(crate) fn entry(&self) -> SessionEntry {
        SessionEntry {
            name: self.name.clone(),
            state: self.state(),
            ordered: self.ordered,
            files: self.files.len() as u64,
        }
    }

    /// Whether a file may be added under this token, as far as the session knows.
    pub(crate) fn accepts(&self, token: u64) -> Result<(), Errno> {
        if self.prepared {
            Err(Errno::EBUSY)
        } else if self.files.iter().any(|(_, used, _)| *used == token) {
            Err(Errno::EEXIST)
        } else {
            Ok(())
        }
    }

    pub(crate) fn add(&mut self, token: u64, file: Id) {
        self.files.push((self.next_place, token, file));
        self.next_place += 1;
    }

    pub(crate) fn unpreserve(&mut self, token: u64) -> Result<(), Errno> {
        if self.prepared {
            return Err(Errno::EBUSY);
        }
        let at = self.files.iter().position(|(_, used, _)| *used == token);
        let at = at.ok_or(Errno::ENOENT)?;
        if self.ordered && at + 1 != self.files.len() {
            return Err(Errno::EBUSY);
        }
        self.files.remove(at);
        Ok(())
    }
}

/// What has become of a file that was handed over.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) enum Fate {
    Pending,
    Retrieved,
    Failed(Errno),
}

/// A session of the previous kernel.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Incoming {
    pub(crate) id: Id,
    pub(crate) name: Vec<u8>,
    /// Whether somebody has it.
    pub(crate) taken: bool,
    pub(crate) ordered: bool,
    /// In the order of preservation: token, file, and what became of it.
    pub(crate) files: Vec<(u64, Id, Fate)>,
    pub(crate) listings: Listings,
}

impl Incoming {
    pub(crate) fn of(session: Outgoing) -> Self {
        let files = session.files.into_iter();
        Self {
            id: session.id,
            name: session.name,
            taken: false,
            ordered: false,
            files: files
                .map(|(_, token, file)| (token, file, Fate::Pending))
                .collect(),
            listings: Listings::default(),
        }
    }

    pub(crate) fn entry(&self) -> SessionEntry {
        SessionEntry {
            name: self.name.clone(),
            state: SessionState::Updated,
            ordered: self.ordered,
            files: self.files.len() as u64,
        }
    }

    pub(crate) fn retrieved(&self) -> u64 {
        let retrieved = self.files.iter().filter(|file| file.2 == Fate::Retrieved);
        retrieved.count() as u64
    }

    /// The file of this token, if it may be asked for now.
    pub(crate) fn ask(&mut self, token: u64) -> Result<&mut (u64, Id, Fate), Errno> {
        let is_pending = |file: &&(u64, Id, Fate)| file.2 == Fate::Pending;
        let next = self.files.iter().find(is_pending).map(|file| file.0);
        let ordered = self.ordered;
        let file = self.files.iter_mut().find(|file| file.0 == token);
        let file = file.ok_or(Errno::ENOENT)?;
        if ordered && file.2 == Fate::Pending && next != Some(token) {
            return Err(Errno::EBUSY);
        }
        Ok(file)
    }
}

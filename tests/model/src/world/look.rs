// SPDX-License-Identifier: GPL-2.0

//! Looking at the world: for those who compare, and for those who choose what to do next.

use super::files::{contents, File, PAGE};
use super::{Object, World};
use crate::answer::Told;
use crate::command::{Command, DeviceRequest, FileKind, Name, Request, Shape, Slot, Step, Worker};
use crate::session::{Fate, Id};

/// A session that the previous kernel handed over.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Arrived {
    /// Its name.
    pub name: Vec<u8>,
    /// Tokens and contents of its files, in order.
    pub files: Vec<(u64, Told)>,
}

impl World {
    /// Steps that lead from nothing to what a new kernel begins with: the sessions of this world, and a kexec.
    pub fn recreate(&self) -> Vec<Step> {
        let by = Worker {
            process: 0,
            thread: 0,
        };
        let mut commands = Vec::new();
        // The last slot is for the files, one after the other.
        let file_slot = self.layout.slots - 1;
        for (slot, session) in (0..file_slot).zip(&self.incoming) {
            let name = match session.name[..] {
                [_, digit] => Name::Plain(digit - b'0'),
                _ => Name::Long,
            };
            let create = DeviceRequest::Create(name, slot);
            commands.push(Command::Device(create, Shape::Good));
            for &(token, file, _) in &session.files {
                self.recreate_file(file, file_slot, &mut commands);
                let preserve = Request::Preserve {
                    file: file_slot,
                    token,
                };
                commands.push(Command::Session(slot, preserve, Shape::Good));
            }
        }
        if !commands.is_empty() {
            commands.push(Command::Kexec);
        }
        let steps = commands.into_iter();
        steps.map(|command| Step { by, command }).collect()
    }

    fn recreate_file(&self, file: Id, slot: Slot, commands: &mut Vec<Command>) {
        match &self.files[&file] {
            File::Memfd { size, words } => {
                commands.push(Command::NewFile(FileKind::Memfd, 0, slot));
                commands.push(Command::Resize(slot, size / PAGE));
                for (&page, &value) in words {
                    commands.push(Command::Write {
                        file: slot,
                        page,
                        value,
                    });
                }
            }
            File::Recorder { both, id, .. } => {
                let kind = match both {
                    true => FileKind::RecorderA,
                    false => FileKind::RecorderB,
                };
                commands.push(Command::NewFile(kind, *id, slot));
            }
            File::Other => {}
        }
    }

    /// What the previous kernel handed over, in order: names of sessions with their files.
    pub fn arrived(&self) -> Vec<Arrived> {
        let file = |&(token, file, _): &(u64, Id, Fate)| {
            let contents = match &self.files[&file] {
                File::Memfd { size, words } => contents(*size, words),
                File::Recorder { id, .. } => Told::Id(Some(*id)),
                File::Other => Told::Nothing,
            };
            (token, contents)
        };
        let sessions = self.incoming.iter().map(|session| Arrived {
            name: session.name.clone(),
            files: session.files.iter().map(file).collect(),
        });
        sessions.collect()
    }

    /// Whether a step changes what is in a preserved file.
    pub(crate) fn changes_preserved(&self, step: &Step) -> bool {
        let (Command::Write { file: slot, .. } | Command::Resize(slot, _)) = step.command else {
            return false;
        };
        let object = self.find(step.by, slot);
        matches!(object, Ok(Object::File(id)) if self.is_preserved(id))
    }

    /// Whether it is a memfd.
    pub(crate) fn is_memfd(&self, object: Object) -> bool {
        let file = match object {
            Object::File(id) => self.files.get(&id),
            _ => None,
        };
        matches!(file, Some(File::Memfd { .. }))
    }

    /// Whether it is a session of the previous kernel that has files.
    pub(crate) fn has_arrived_files(&self, object: Object) -> bool {
        matches!(object, Object::Incoming(_)) && !self.tokens(object).is_empty()
    }

    /// Whether it is a file that no session has, of a kind that one may have.
    pub(crate) fn is_free_file(&self, object: Object) -> bool {
        let Object::File(id) = object else {
            return false;
        };
        let can_be_had = !matches!(self.files.get(&id), Some(File::Other));
        can_be_had && !self.is_preserved(id) && !self.is_incoming(id)
    }

    /// The tokens of a session, in order.
    pub(crate) fn tokens(&self, object: Object) -> Vec<u64> {
        match object {
            Object::Outgoing(id) => {
                let session = self.outgoing.iter().find(|session| session.id == id);
                let files = session.map(|session| &session.files[..]).unwrap_or(&[]);
                files.iter().map(|file| file.1).collect()
            }
            Object::Incoming(id) => {
                let session = self.incoming.iter().find(|session| session.id == id);
                let files = session.map(|session| &session.files[..]).unwrap_or(&[]);
                files.iter().map(|file| file.0).collect()
            }
            Object::File(_) => Vec::new(),
        }
    }

    /// Number of descriptors in the socket.
    pub(crate) fn in_socket(&self) -> usize {
        self.socket.len()
    }

    /// The names of the sessions that can be retrieved.
    pub(crate) fn waiting(&self) -> impl Iterator<Item = &[u8]> {
        let waiting = self.incoming.iter().filter(|session| !session.taken);
        waiting.map(|session| &session.name[..])
    }

    /// Where a thread's listings of a session, or of all sessions, go on.
    pub(crate) fn next_of_lists(&self, by: Worker, object: Option<Object>) -> Vec<u64> {
        let listings = match object {
            None => Some(&self.listings),
            Some(Object::Outgoing(id)) => {
                let session = self.outgoing.iter().find(|session| session.id == id);
                session.map(|session| &session.listings)
            }
            Some(Object::Incoming(id)) => {
                let session = self.incoming.iter().find(|session| session.id == id);
                session.map(|session| &session.listings)
            }
            Some(Object::File(_)) => None,
        };
        let thread = self.thread(by);
        let listings = listings.into_iter();
        listings.flat_map(|all| all.next_of(thread)).collect()
    }
}

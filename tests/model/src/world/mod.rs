// SPDX-License-Identifier: GPL-2.0

//! All that there is, and what becomes of it.

mod device;
mod files;
mod look;
mod sessions;

pub use look::Arrived;

use crate::answer::{Answer, Errno, Told};
use crate::command::{Callback, Command, Slot, Step, Worker};
use crate::list::{Listings, ThreadId};
use crate::session::{Id, Incoming, Outgoing};
use files::File;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};

/// Who there is, and how much each may have.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Layout {
    /// Number of processes.
    pub processes: u8,
    /// Number of threads of each.
    pub threads: u8,
    /// Number of slots of each.
    pub slots: Slot,
    /// The first byte of all names of sessions.
    pub owner: u8,
    /// Whether nobody else is there. Else lists are of this owner's alone, and what all share is left as it is; so is
    /// what is in preserved files, since a hole that is filled after the freeze does not arrive.
    pub alone: bool,
    /// Compatible string of memfds.
    pub memfd_format: String,
}

/// What a descriptor stands for.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub(crate) enum Object {
    Outgoing(Id),
    Incoming(Id),
    File(Id),
}

#[derive(Clone, Debug, Deserialize, Serialize)]
struct Process {
    /// Tells it from those that had its number before.
    id: u64,
    slots: Vec<Option<Object>>,
}

/// The model.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct World {
    layout: Layout,
    live_updates: u64,
    outgoing: Vec<Outgoing>,
    incoming: Vec<Incoming>,
    files: BTreeMap<Id, File>,
    processes: Vec<Process>,
    /// What is in the socket.
    socket: VecDeque<Object>,
    /// What LIST_SESSIONS remembers.
    listings: Listings,
    /// The callback that fails next.
    failing: Option<Callback>,
    next_id: Id,
}

impl World {
    /// A machine after so many live updates, with nothing in it.
    pub fn new(layout: Layout, live_updates: u64) -> Self {
        let mut world = Self {
            layout,
            live_updates,
            outgoing: Vec::new(),
            incoming: Vec::new(),
            files: BTreeMap::new(),
            processes: Vec::new(),
            socket: VecDeque::new(),
            listings: Listings::default(),
            failing: None,
            next_id: 0,
        };
        world.new_processes();
        world
    }

    /// Who there is.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Number of sessions, of both kinds.
    pub fn sessions(&self) -> usize {
        self.outgoing.len() + self.incoming.len()
    }

    /// Whether a file of the recorder would be frozen by a kexec, and can refuse it.
    pub fn can_refuse_kexec(&self) -> bool {
        let mut files = self.outgoing.iter().flat_map(|session| &session.files);
        files.any(|(_, _, file)| self.is_recorders(*file))
    }

    /// Takes a step, and says what it must be answered.
    pub fn apply(&mut self, step: &Step) -> Answer {
        let by = step.by;
        match step.command {
            Command::Device(ref request, shape) => self.device(by, request, shape),
            Command::Session(slot, ref request, shape) => self.session(by, slot, request, shape),
            Command::Strange(slot, number) => self.strange(by, slot, number),
            Command::OpenDevice => Err(Errno::EBUSY),
            Command::FdInfo(slot) => self.fdinfo(by, slot),
            Command::NewFile(kind, id, slot) => {
                let file = File::new(kind, id);
                let id = self.new_id();
                self.files.insert(id, file);
                self.put(by, slot, Some(Object::File(id)));
                Ok(Told::Nothing)
            }
            Command::Write { file, page, value } => self.write(by, file, page, value),
            Command::Read(slot) => self.read(by, slot),
            Command::Resize(slot, pages) => self.resize(by, slot, pages),
            Command::Close(slot) => {
                self.find(by, slot)?;
                self.put(by, slot, None);
                Ok(Told::Nothing)
            }
            Command::Dup(from, to) => {
                let object = self.find(by, from)?;
                if from != to {
                    self.put(by, to, Some(object));
                }
                Ok(Told::Nothing)
            }
            Command::Send(slot) => {
                let object = self.find(by, slot)?;
                self.socket.push_back(object);
                Ok(Told::Nothing)
            }
            Command::Receive(slot) => {
                let object = self.socket.pop_front().ok_or(Errno::EAGAIN)?;
                self.put(by, slot, Some(object));
                Ok(Told::Nothing)
            }
            Command::Kill(process) => {
                // Which of its sessions a callback would fail for is open.
                self.failing = None;
                self.processes[usize::from(process)] = self.new_process();
                self.collect();
                Ok(Told::Nothing)
            }
            Command::FailNext(callback) => {
                self.failing = Some(callback);
                Ok(Told::Nothing)
            }
            Command::RefusedKexec => match self.can_refuse_kexec() {
                true => {
                    self.failing = None;
                    Err(Errno::EIO)
                }
                false => Ok(Told::Nothing),
            },
            Command::Kexec => {
                self.kexec();
                Ok(Told::Nothing)
            }
        }
    }

    // ---- Descriptors ---------------------------------------------------------

    fn new_id(&mut self) -> Id {
        self.next_id += 1;
        self.next_id
    }

    fn new_process(&mut self) -> Process {
        Process {
            id: self.new_id(),
            slots: vec![None; self.layout.slots.into()],
        }
    }

    fn new_processes(&mut self) {
        let count = self.layout.processes;
        self.processes = (0..count).map(|_| self.new_process()).collect();
    }

    fn thread(&self, by: Worker) -> ThreadId {
        (self.processes[usize::from(by.process)].id, by.thread)
    }

    /// The objects in the slots of a process.
    pub(crate) fn slots(&self, process: u8) -> &[Option<Object>] {
        &self.processes[usize::from(process)].slots
    }

    fn find(&self, by: Worker, slot: Slot) -> Result<Object, Errno> {
        self.slots(by.process)[usize::from(slot)].ok_or(Errno::EBADF)
    }

    /// Puts something into a slot, and closes what was there.
    fn put(&mut self, by: Worker, slot: Slot, object: Option<Object>) {
        self.processes[usize::from(by.process)].slots[usize::from(slot)] = object;
        self.collect();
    }

    /// Whether any descriptor leads to it.
    fn is_open(&self, object: Object) -> bool {
        let slots = self.processes.iter().flat_map(|process| &process.slots);
        slots
            .flatten()
            .chain(&self.socket)
            .any(|open| *open == object)
    }

    /// Lets everything go that nobody has any more.
    fn collect(&mut self) {
        let mut outgoing = std::mem::take(&mut self.outgoing);
        outgoing.retain(|session| self.is_open(Object::Outgoing(session.id)));
        self.outgoing = outgoing;
        for at in (0..self.incoming.len()).rev() {
            let session = &self.incoming[at];
            if session.taken && !self.is_open(Object::Incoming(session.id)) {
                // To close it is to finish it; if that fails, it can be had again.
                match self.finish(at) {
                    Ok(()) => drop(self.incoming.remove(at)),
                    Err(_) => {
                        // Who has it next has not asked for an order.
                        self.incoming[at].taken = false;
                        self.incoming[at].ordered = false;
                    }
                }
            }
        }
        let mut files = std::mem::take(&mut self.files);
        files.retain(|&id, _| {
            self.is_open(Object::File(id)) || self.is_preserved(id) || self.is_incoming(id)
        });
        self.files = files;
    }

    // ---- The kexec -----------------------------------------------------------

    /// Goes on in the next kernel: what was handed over is there, and nothing else.
    pub fn kexec(&mut self) {
        self.live_updates += 1;
        self.failing = None;
        self.listings = Listings::default();
        self.socket.clear();
        let outgoing = std::mem::take(&mut self.outgoing);
        self.incoming = outgoing.into_iter().map(Incoming::of).collect();
        self.new_processes();
        self.collect();
        self.files.values_mut().for_each(File::arrive);
    }
}

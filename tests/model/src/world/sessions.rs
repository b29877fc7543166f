// SPDX-License-Identifier: GPL-2.0

//! Commands to sessions.

use super::device::check;
use super::files::File;
use super::{Object, World};
use crate::answer::{Answer, Errno, FileEntry, SessionState, Told};
use crate::command::{Callback, Request, Shape, Slot, Worker};
use crate::session::{Fate, Id, Incoming, Outgoing};

impl World {
    pub(super) fn session(
        &mut self,
        by: Worker,
        slot: Slot,
        request: &Request,
        shape: Shape,
    ) -> Answer {
        let unwritable = shape == Shape::ReadOnly && request.answers();
        let unreserved = !request.has_reserved();
        match self.find(by, slot)? {
            Object::File(_) => Err(Errno::ENOTTY),
            Object::Outgoing(id) => {
                let fits = !matches!(request, Request::Retrieve { .. } | Request::Finish);
                check(shape, fits, unreserved)?;
                if unwritable {
                    return Err(Errno::EFAULT);
                }
                let at = self.outgoing.iter().position(|session| session.id == id);
                self.on_outgoing(by, at.expect("open sessions are kept"), request)
            }
            Object::Incoming(id) => {
                let fits = !matches!(
                    request,
                    Request::Preserve { .. }
                        | Request::Unpreserve(_)
                        | Request::Prepare
                        | Request::Cancel
                );
                check(shape, fits, unreserved)?;
                if unwritable {
                    return Err(Errno::EFAULT);
                }
                let at = self.incoming.iter().position(|session| session.id == id);
                self.on_incoming(by, at.expect("open sessions are kept"), request)
            }
        }
    }

    fn on_outgoing(&mut self, by: Worker, at: usize, request: &Request) -> Answer {
        let thread = self.thread(by);
        match *request {
            Request::Preserve { file, token } => {
                self.outgoing[at].accepts(token)?;
                let file = self.preserve(by, file)?;
                self.outgoing[at].add(token, file);
            }
            Request::Unpreserve(token) => {
                self.outgoing[at].unpreserve(token)?;
                self.collect();
            }
            Request::Prepare => self.outgoing[at].prepared = true,
            Request::Cancel => self.outgoing[at].prepared = false,
            Request::SetFlags(flags) => self.outgoing[at].ordered = ordered(flags)?,
            Request::Name => return Ok(Told::Name(self.outgoing[at].name.clone())),
            Request::State => {
                let session = &self.outgoing[at];
                return Ok(Told::State {
                    state: session.state(),
                    files: session.files.len() as u64,
                    retrieved: 0,
                });
            }
            Request::List { start, room } => {
                let session = &self.outgoing[at];
                let state = session.state();
                let files = session.files.iter().map(|&(place, token, file)| {
                    let compatible = self.compatible(file);
                    let entry = FileEntry {
                        token,
                        compatible,
                        state,
                    };
                    ((0, place), entry)
                });
                let (files, end): (Vec<_>, _) = (files.collect(), session.next_place);
                let listings = &mut self.outgoing[at].listings;
                let (entries, total) = listings.list(thread, (start, room), &files, end);
                return Ok(Told::Files { entries, total });
            }
            Request::Retrieve { .. } | Request::Finish => return Err(Errno::EINVAL),
        }
        Ok(Told::Nothing)
    }

    /// The file in a slot, if a session may have it.
    fn preserve(&mut self, by: Worker, slot: Slot) -> Result<Id, Errno> {
        let Object::File(id) = self.find(by, slot)? else {
            // A session is no file that any handler takes.
            return Err(Errno::ENOENT);
        };
        let recorded = match self.files[&id] {
            File::Memfd { .. } => None,
            File::Recorder { both, .. } => Some(both),
            File::Other => return Err(Errno::ENOENT),
        };
        let is_retrieved = |session: &Incoming| {
            let mut files = session.files.iter();
            files.any(|(_, file, fate)| *file == id && *fate == Fate::Retrieved)
        };
        if self.is_preserved(id) || self.incoming.iter().any(is_retrieved) {
            return Err(Errno::EBUSY);
        }
        let Some(both) = recorded else { return Ok(id) };
        // FLBs are told of the first file that depends on them.
        let files = || self.outgoing.iter().flat_map(|session| &session.files);
        let depends_on_y =
            |file: &Id| matches!(self.files[file], File::Recorder { both: true, .. });
        let x_is_new = !files().any(|(_, _, file)| self.is_recorders(*file));
        let y_is_new = both && !files().any(|(_, _, file)| depends_on_y(file));
        if (x_is_new && self.fails(Callback::PreserveX))
            || (y_is_new && self.fails(Callback::PreserveY))
            || self.fails(Callback::Preserve)
        {
            return Err(Errno::EIO);
        }
        Ok(id)
    }

    /// Whether this call of a callback fails.
    fn fails(&mut self, callback: Callback) -> bool {
        self.failing
            .take_if(|failing| *failing == callback)
            .is_some()
    }

    fn on_incoming(&mut self, by: Worker, at: usize, request: &Request) -> Answer {
        let thread = self.thread(by);
        match *request {
            Request::Retrieve { token, to } => {
                let (_, file, fate) = *self.incoming[at].ask(token)?;
                let fate = match fate {
                    Fate::Pending if self.is_recorders(file) && self.fails(Callback::Retrieve) => {
                        Fate::Failed(Errno::EIO)
                    }
                    Fate::Pending => Fate::Retrieved,
                    fate => fate,
                };
                self.incoming[at].ask(token)?.2 = fate;
                if let Fate::Failed(errno) = fate {
                    return Err(errno);
                }
                self.put(by, to, Some(Object::File(file)));
            }
            Request::Finish => {
                self.finish(at)?;
                self.collect();
            }
            Request::SetFlags(flags) => self.incoming[at].ordered = ordered(flags)?,
            Request::Name => return Ok(Told::Name(self.incoming[at].name.clone())),
            Request::State => {
                let session = &self.incoming[at];
                return Ok(Told::State {
                    state: SessionState::Updated,
                    files: session.files.len() as u64,
                    retrieved: session.retrieved(),
                });
            }
            Request::List { start, room } => {
                let files = self.incoming[at].files.iter();
                let files = (0..).zip(files).map(|(place, &(token, file, fate))| {
                    let entry = FileEntry {
                        token,
                        compatible: self.compatible(file),
                        state: match fate {
                            Fate::Retrieved => SessionState::Normal,
                            _ => SessionState::Updated,
                        },
                    };
                    ((0, place), entry)
                });
                let files: Vec<_> = files.collect();
                let listings = &mut self.incoming[at].listings;
                let (entries, total) = listings.list(thread, (start, room), &files, u64::MAX);
                return Ok(Told::Files { entries, total });
            }
            Request::Preserve { .. }
            | Request::Unpreserve(_)
            | Request::Prepare
            | Request::Cancel => return Err(Errno::EINVAL),
        }
        Ok(Told::Nothing)
    }

    /// FINISH of an incoming session: none of its files is one of it any more.
    pub(super) fn finish(&mut self, at: usize) -> Result<(), Errno> {
        let mut files = self.incoming[at].files.iter();
        let asks = files.any(|(_, file, _)| self.is_recorders(*file));
        if asks && self.fails(Callback::CanFinish) {
            return Err(Errno::EBUSY);
        }
        self.incoming[at].files.clear();
        Ok(())
    }

    pub(super) fn fdinfo(&self, by: Worker, slot: Slot) -> Answer {
        let entry = match self.find(by, slot)? {
            Object::File(_) => return Err(Errno::EINVAL),
            Object::Outgoing(id) => {
                let session = self.outgoing.iter().find(|session| session.id == id);
                session.map(Outgoing::entry)
            }
            Object::Incoming(id) => {
                let session = self.incoming.iter().find(|session| session.id == id);
                session.map(Incoming::entry)
            }
        };
        let entry = entry.expect("open sessions are kept");
        Ok(Told::FdInfo {
            state: entry.state,
            ordered: entry.ordered,
            files: entry.files,
        })
    }
}

/// What the flags of a session mean.
fn ordered(flags: u32) -> Result<bool, Errno> {
    match flags {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Errno::EOPNOTSUPP),
    }
}

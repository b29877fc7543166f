// SPDX-License-Identifier: GPL-2.0

//! Commands to the device, and what is wrong with an argument.

use super::{Object, World};
use crate::answer::{Answer, Errno, Told};
use crate::command::{DeviceRequest, Shape, Slot, Worker};
use crate::session::Outgoing;

impl World {
    pub(super) fn device(&mut self, by: Worker, request: &DeviceRequest, shape: Shape) -> Answer {
        let unreserved = !request.has_reserved();
        check(shape, true, unreserved)?;
        let unwritable = shape == Shape::ReadOnly && request.answers();
        let owner = self.layout.owner;
        match *request {
            DeviceRequest::Create(name, slot) => {
                let name = name.bytes(owner).ok_or(Errno::EINVAL)?;
                if self.outgoing.iter().any(|session| session.name == name) {
                    return Err(Errno::EEXIST);
                }
                if unwritable {
                    return Err(Errno::EFAULT);
                }
                let id = self.new_id();
                self.outgoing.push(Outgoing::new(id, name));
                self.put(by, slot, Some(Object::Outgoing(id)));
                Ok(Told::Nothing)
            }
            DeviceRequest::Retrieve(name, slot) => {
                let name = name.bytes(owner).ok_or(Errno::ENOENT)?;
                let mut sessions = self.incoming.iter_mut();
                let session = sessions.find(|session| session.name == name);
                let session = session.ok_or(Errno::ENOENT)?;
                if session.taken {
                    return Err(Errno::EINVAL);
                }
                if unwritable {
                    return Err(Errno::EFAULT);
                }
                // Only when it has its descriptor: what `put` closes may be something else.
                let id = session.id;
                self.processes[usize::from(by.process)].slots[usize::from(slot)] =
                    Some(Object::Incoming(id));
                session.taken = true;
                self.collect();
                Ok(Told::Nothing)
            }
            DeviceRequest::Info if unwritable => Err(Errno::EFAULT),
            DeviceRequest::Info => Ok(Told::LiveUpdates(self.live_updates)),
            DeviceRequest::List { start, room } => {
                let outgoing = self.outgoing.iter();
                let outgoing = outgoing.map(|session| ((0, session.id), session.entry()));
                let incoming = self.incoming.iter();
                let incoming = incoming.map(|session| ((1, session.id), session.entry()));
                let entries: Vec<_> = outgoing.chain(incoming).collect();
                let thread = self.thread(by);
                let (entries, total) =
                    self.listings
                        .list(thread, (start, room), &entries, self.next_id + 1);
                Ok(Told::Sessions { entries, total })
            }
        }
    }

    pub(super) fn strange(&self, by: Worker, slot: Option<Slot>, number: u32) -> Answer {
        let own = match slot {
            None => 0x00..=0x01,
            Some(slot) => match self.find(by, slot)? {
                Object::File(_) => return Err(Errno::ENOTTY),
                _ => 0x40..=0x43,
            },
        };
        // The number alone says which range it is in; it is none of the commands there.
        Err(match (number & 0xff) as u8 {
            0xa0..=0xff => Errno::ENOTTY,
            command if own.contains(&command) => Errno::ENOTTY,
            _ => Errno::EINVAL,
        })
    }
}

/// The first thing that is wrong with an argument, for a command that fits or does not.
pub(super) fn check(shape: Shape, fits: bool, unreserved: bool) -> Result<(), Errno> {
    match shape {
        Shape::Unreadable => Err(Errno::EFAULT),
        _ if !fits => Err(Errno::EINVAL),
        Shape::Short => Err(Errno::EINVAL),
        Shape::Newer => Err(Errno::E2BIG),
        Shape::Reserved if !unreserved => Err(Errno::EINVAL),
        _ => Ok(()),
    }
}

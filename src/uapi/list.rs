// SPDX-License-Identifier: GPL-2.0

//! Lists that user space takes in parts, while others add to them and take away.
//!
//! User space goes on at an index, and an index shifts when an entry before it goes away. So the
//! kernel remembers behind which entry a thread's call ended: the index that comes next means the
//! entries behind that one, in an order in which no entry ever moves. What is added after a listing
//! began is not in it: so it ends, and has nothing twice that went away and came again.

use super::{List, Request};
use kernel::{
    new_mutex,
    prelude::*,
    sync::Mutex,
    uaccess::{UserPtr, UserSlice},
};
use zerocopy::Immutable;

/// Where an entry stands in a list, as long as it is there: a part of the list, and a place in it.
/// New entries come behind the others of their part.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place(pub(crate) u8, pub(crate) u64);

/// The part of a list that a caller wants and has room for.
pub(crate) struct Window<T> {
    /// The entry that the calls before ended with.
    after: Option<Place>,
    /// Where the first part ended when the listing began.
    end: Option<u64>,
    start: u64,
    room: u64,
    entries: KVVec<T>,
    /// The place of the last of `entries`.
    last: Option<Place>,
    /// Index of the entry that is offered next.
    index: u64,
}

impl<T> Window<T> {
    /// Says that the next entry of the first part will have the place `next`. To be called before
    /// its entries are offered, with the lock held that keeps new ones out.
    pub(crate) fn begin(&mut self, next: u64) {
        self.end.get_or_insert(next);
    }

    /// Takes the next entry of the whole list, if it is of this part. To be called in the order of
    /// places.
    pub(crate) fn offer(&mut self, place: Place, entry: impl FnOnce() -> T) -> Result {
        let is_new = place.0 == 0 && self.end.is_some_and(|end| place.1 >= end);
        if is_new || self.after.is_some_and(|after| place <= after) {
            return Ok(());
        }
        if self.index >= self.start && (self.entries.len() as u64) < self.room {
            self.entries.push(entry(), GFP_KERNEL_ACCOUNT)?;
            self.last = Some(place);
        }
        self.index += 1;
        Ok(())
    }
}

/// Where a call of a thread ended.
struct Cursor {
    thread: i32,
    /// The index behind the call.
    next: u64,
    mark: Mark,
}

/// How far a listing has come.
#[derive(Clone, Copy)]
struct Mark {
    /// The last entry that was listed.
    after: Place,
    /// Where the first part ended when the listing began.
    end: Option<u64>,
}

/// What is remembered of calls that list by one file.
#[pin_data]
pub(crate) struct Listings {
    /// The oldest first.
    #[pin]
    cursors: Mutex<KVec<Cursor>>,
}

impl Listings {
    /// So many calls of a thread are remembered...
    const CALLS: usize = 4;
    /// ... and so many of all threads.
    const ALL_CALLS: usize = 16 * Self::CALLS;

    /// No call yet.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            cursors <- new_mutex!(KVec::new()),
        })
    }

    /// Where the calling thread goes on at `start`, if it has come there by calls before. At 0 it
    /// begins anew, and of its listing before nothing is needed any more.
    fn resume(&self, start: u64) -> Option<Mark> {
        let thread = kernel::current!().pid();
        let mut cursors = self.cursors.lock();
        if start == 0 {
            cursors.retain(|cursor| cursor.thread != thread);
        }
        let cursor = cursors
            .iter()
            .find(|cursor| (cursor.thread, cursor.next) == (thread, start))?;
        Some(cursor.mark)
    }

    /// Remembers where a call ended.
    fn remember(&self, next: u64, mark: Mark) -> Result {
        let thread = kernel::current!().pid();
        let mut cursors = self.cursors.lock();
        cursors.retain(|cursor| (cursor.thread, cursor.next) != (thread, next));
        let mine = |cursor: &Cursor| cursor.thread == thread;
        let oldest = if cursors.iter().filter(|cursor| mine(cursor)).count() >= Self::CALLS {
            cursors.iter().position(mine)
        } else {
            (cursors.len() >= Self::ALL_CALLS).then_some(0)
        };
        if let Some(oldest) = oldest {
            // It is in the list.
            let _ = cursors.remove(oldest);
        }
        cursors.push(Cursor { thread, next, mark }, GFP_KERNEL_ACCOUNT)?;
        Ok(())
    }

    /// Serves a command that lists. `list` offers all entries. Nothing that it locks is locked while
    /// user memory is written to.
    pub(crate) fn respond<T: IntoBytes + Immutable>(
        &self,
        request: &Request,
        list: impl FnOnce(&mut Window<T>) -> Result,
    ) -> Result {
        let mut arg: List = request.read()?;
        if arg.reserved != 0 {
            return Err(EINVAL);
        }
        let mark = self.resume(arg.start);
        let mut window = Window {
            after: mark.map(|mark| mark.after),
            end: mark.and_then(|mark| mark.end),
            start: arg.start,
            room: arg.count,
            entries: KVVec::new(),
            last: None,
            // What the calls before have listed counts, be it there or not.
            index: mark.map_or(0, |_| arg.start),
        };
        list(&mut window)?;
        let count = window.entries.len();
        if let Some(after) = window.last {
            let end = window.end;
            self.remember(arg.start + count as u64, Mark { after, end })?;
        }

        let bytes = window.entries.as_slice().as_bytes();
        let to = UserPtr::from_addr(usize::try_from(arg.entries).map_err(|_| EFAULT)?);
        UserSlice::new(to, bytes.len())
            .writer()
            .write_slice(bytes)?;
        arg.count = count as u64;
        arg.total = window.index;
        request.respond(&arg)
    }
}

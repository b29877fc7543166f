// SPDX-License-Identifier: GPL-2.0

//! Lists that are taken in parts.

use serde::{Deserialize, Serialize};

/// So many calls of a thread are remembered by one open file, and so many of all.
const CALLS: usize = 4;
const ALL_CALLS: usize = 16 * CALLS;

/// A thread, told from all that were before.
pub(crate) type ThreadId = (u64, u8);

/// Where an entry stands: the part of the list, and a number that only grows.
pub(crate) type Place = (u8, u64);

/// A call that is remembered: what comes next in this thread's listing.
#[derive(Clone, Debug, Deserialize, Serialize)]
struct Call {
    thread: ThreadId,
    /// The index that goes on behind it.
    next: u64,
    /// The last entry it listed.
    last: Place,
    /// Entries of the first part from this place on came later than the listing.
    new_from: u64,
}

/// The calls that one open file remembers, the oldest first.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Listings(Vec<Call>);

impl Listings {
    /// The entries that a call gives, and the total. `new_from` is the place that the next new entry of the first part
    /// gets.
    pub(crate) fn list<T: Clone>(
        &mut self,
        thread: ThreadId,
        (start, room): (u64, u64),
        entries: &[(Place, T)],
        new_from: u64,
    ) -> (Vec<T>, u64) {
        // A listing that begins anew needs nothing of the one before.
        if start == 0 {
            self.0.retain(|call| call.thread != thread);
        }
        let known = self
            .0
            .iter()
            .find(|call| call.thread == thread && call.next == start);
        let (left, before, new_from) = match known {
            Some(call) => {
                let is_left =
                    |place: Place| place > call.last && (place.0 != 0 || place.1 < call.new_from);
                let left = entries.iter().filter(|(place, _)| is_left(*place));
                (left.collect::<Vec<_>>(), start, call.new_from)
            }
            None => {
                let skipped = start.min(entries.len() as u64);
                let left = entries.iter().skip(skipped as usize);
                (left.collect(), skipped, new_from)
            }
        };
        let given = &left[..left.len().min(room as usize)];
        if let Some((last, _)) = given.last() {
            let call = Call {
                thread,
                next: start + given.len() as u64,
                last: *last,
                new_from,
            };
            self.remember(call);
        }
        let total = before + left.len() as u64;
        (
            given.iter().map(|(_, entry)| entry.clone()).collect(),
            total,
        )
    }

    fn remember(&mut self, call: Call) {
        let is_mine = |other: &Call| other.thread == call.thread;
        self.0
            .retain(|other| !is_mine(other) || other.next != call.next);
        if self.0.iter().filter(|other| is_mine(other)).count() >= CALLS {
            let oldest = self.0.iter().position(is_mine);
            self.0.remove(oldest.expect("it was counted"));
        } else if self.0.len() >= ALL_CALLS {
            self.0.remove(0);
        }
        self.0.push(call);
    }

    /// The indices where a thread's listings go on.
    pub(crate) fn next_of(&self, thread: ThreadId) -> impl Iterator<Item = u64> + '_ {
        let mine = self.0.iter().filter(move |call| call.thread == thread);
        mine.map(|call| call.next)
    }
}

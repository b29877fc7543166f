//! Lists, which the kernel hands out a portion at a time.

use std::ffi::c_void;
use std::os::fd::BorrowedFd;

use crate::device::text;
use crate::raw::{self, Command, FdEntry, ListSessions, SessionEntry, SessionListFds};
use crate::{Errno, SessionFlags, SessionName, State};

/// A session in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SessionInfo {
    /// Its name.
    pub name: SessionName,
    /// Its state; [`State::Updated`] for those that the previous kernel handed on.
    pub state: State,
    /// Its flags.
    pub flags: SessionFlags,
    /// Number of files it holds.
    pub files: u64,
}

/// A file in a session's list.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FileInfo {
    /// The number it is preserved by.
    pub token: u64,
    /// The format it is handed on in, such as "memfd-v2".
    pub compatible: String,
    /// Its state.
    pub state: State,
}

impl From<&SessionEntry> for SessionInfo {
    fn from(entry: &SessionEntry) -> Self {
        Self {
            name: SessionName::from_raw(&entry.name),
            state: State::from(entry.state),
            flags: SessionFlags::from_bits_retain(entry.flags),
            files: entry.nr_files,
        }
    }
}

impl From<&FdEntry> for FileInfo {
    fn from(entry: &FdEntry) -> Self {
        Self {
            token: entry.token,
            compatible: text(&entry.compatible),
            state: State::from(entry.state),
        }
    }
}

/// A listing command.
pub(crate) trait List: Command + Default {
    type Entry: Copy;
    const EMPTY: Self::Entry;
    fn ask(&mut self, start: u64, count: u64, entries: u64);
    fn count(&self) -> u64;
    fn total(&self) -> u64;
}

macro_rules! lists {
    ($($command:ident of $entry:ident;)*) => {$(
        impl List for $command {
            type Entry = $entry;
            const EMPTY: $entry = $entry::EMPTY;

            fn ask(&mut self, start: u64, count: u64, entries: u64) {
                (self.start, self.count, self.entries) = (start, count, entries);
            }

            fn count(&self) -> u64 {
                self.count
            }

            fn total(&self) -> u64 {
                self.total
            }
        }
    )*};
}

lists! {
    ListSessions of SessionEntry;
    SessionListFds of FdEntry;
}

/// Lists everything.
pub(crate) fn all<L: List>(fd: BorrowedFd<'_>) -> Result<Vec<L::Entry>, Errno> {
    paged(|list: &mut L| {
        // SAFETY: `paged` has filled in the size, and the address and length of its array.
        unsafe { raw::call_at(fd, L::OPCODE, std::ptr::from_mut(list).cast::<c_void>()) }
    })
}

/// Entries asked for at once.
const PORTION: usize = 64;

fn paged<L: List>(
    mut call: impl FnMut(&mut L) -> Result<(), Errno>,
) -> Result<Vec<L::Entry>, Errno> {
    let mut entries = Vec::new();
    loop {
        let mut portion = [L::EMPTY; PORTION];
        let mut list = L::default();
        let start = entries.len() as u64;
        list.ask(start, PORTION as u64, portion.as_mut_ptr() as u64);
        call(&mut list)?;
        let written = usize::try_from(list.count()).map_or(PORTION, |count| count.min(PORTION));
        entries.extend_from_slice(&portion[..written]);
        if written == 0 || entries.len() as u64 >= list.total() {
            return Ok(entries);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A kernel that has `total` files, token = index, and never gives more than `most` at once.
    fn kernel(total: u64, most: u64) -> impl FnMut(&mut SessionListFds) -> Result<(), Errno> {
        move |list| {
            assert_eq!(list.size, 40);
            let written = total.saturating_sub(list.start).min(list.count).min(most);
            for i in 0..written {
                let entry = FdEntry {
                    token: list.start + i,
                    ..FdEntry::EMPTY
                };
                // SAFETY: `paged` gave an array with room for `list.count` entries.
                unsafe { (list.entries as *mut FdEntry).add(i as usize).write(entry) };
            }
            (list.count, list.total) = (written, total);
            Ok(())
        }
    }

    #[test]
    fn portions_are_put_together() {
        for total in [0, 1, 63, 64, 65, 128, 1000] {
            for most in [7, 64, 500] {
                let entries = paged(kernel(total, most)).unwrap();
                let tokens: Vec<u64> = entries.iter().map(|entry| entry.token).collect();
                assert_eq!(tokens, (0..total).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn a_shrinking_list_ends() {
        let entries = paged(|list: &mut SessionListFds| {
            (list.count, list.total) = (0, 10);
            Ok(())
        });
        assert_eq!(entries, Ok(Vec::new()));
        let error = paged(|_: &mut ListSessions| Err(Errno::NOTTY));
        assert_eq!(error, Err(Errno::NOTTY));
    }

    #[test]
    fn entries_in_the_callers_terms() {
        let mut raw = FdEntry {
            token: 7,
            state: 4,
            ..FdEntry::EMPTY
        };
        raw.compatible[..8].copy_from_slice(b"memfd-v2");
        let file = FileInfo::from(&raw);
        assert_eq!((file.token, file.state), (7, State::Updated));
        assert_eq!(file.compatible, "memfd-v2");
    }
}

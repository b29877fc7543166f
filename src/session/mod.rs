// SPDX-License-Identifier: GPL-2.0

//! Sessions: named sets of files that live as long as a file descriptor.
//!
//! # Locking
//!
//! A registry's lock is taken before a session's; handlers are called with the session's lock held.
//! So nobody waits for a session with the registry locked: lists are made of summaries, and the kexec
//! closes the registry for changes instead.
//! The registries of handlers and identities have locks of their own. Documentation/design.rst has
//! the order of all locks.

mod gate;
mod incoming;
mod outgoing;
mod registry;

pub(crate) use registry::{IncomingRegistry, OutgoingRegistry};

use crate::{
    handover::luo::SessionName,
    uapi::{self, GetName, Plain, Range, Request, SessionEntry, SetFlags, SESSION_F_ORDERED},
};
use kernel::{
    prelude::*,
    seq_file::{seq_print, SeqFile},
    sync::{lock::mutex::MutexGuard, CondVar, SpinLock},
};

/// The commands of a session.
const COMMANDS: Range = Range {
    first: 0x40,
    last: 0x43,
};

/// Those that the kernel's own orchestrator does not have.
const EXTENSIONS: Range = Range {
    first: 0xC0,
    last: 0xC5,
};

/// Whether the session is ordered, as SET_FLAGS says: `EOPNOTSUPP` for any other flag.
fn read_flags(request: &Request) -> Result<bool> {
    let arg: SetFlags = request.read()?;
    if arg.flags & !SESSION_F_ORDERED != 0 {
        return Err(EOPNOTSUPP);
    }
    Ok(arg.flags & SESSION_F_ORDERED != 0)
}

/// Reads a structure that says nothing but which command it is for.
fn read_plain(request: &Request) -> Result<Plain> {
    let arg: Plain = request.read()?;
    if arg.reserved != 0 {
        return Err(EINVAL);
    }
    Ok(arg)
}

/// GET_NAME, of sessions of both kinds.
fn get_name(name: &SessionName, request: &Request) -> Result {
    let mut arg: GetName = request.read()?;
    if arg.reserved != 0 {
        return Err(EINVAL);
    }
    arg.name = *name.as_array();
    request.respond(&arg)
}

/// What lists tell of a session.
#[derive(Clone, Copy)]
struct Summary {
    /// As the user ABI has it.
    state: u32,
    ordered: bool,
    nr_files: u64,
}

impl Summary {
    /// As LIST_SESSIONS shows it.
    fn entry(self, name: &SessionName) -> SessionEntry {
        SessionEntry {
            name: *name.as_array(),
            state: self.state,
            flags: if self.ordered { SESSION_F_ORDERED } else { 0 },
            nr_files: self.nr_files,
        }
    }
}

/// What a session's lock protects.
trait Summarize: Unpin {
    /// What there is to tell.
    fn summary(&self) -> Summary;
}

/// A locked session, which leaves its summary for those who do not wait for the lock: handlers work
/// under it, and take their time.
struct Locked<'a, T: Summarize> {
    inner: MutexGuard<'a, T>,
    summary: &'a SpinLock<Summary>,
}

impl<'a, T: Summarize> Locked<'a, T> {
    /// A session that was locked.
    fn new(inner: MutexGuard<'a, T>, summary: &'a SpinLock<Summary>) -> Self {
        Self { inner, summary }
    }

    /// Waits for `changed` to be notified, unlocked meanwhile.
    fn wait(&mut self, changed: &CondVar) {
        changed.wait(&mut self.inner);
    }
}

impl<T: Summarize> core::ops::Deref for Locked<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.inner
    }
}

impl<T: Summarize> core::ops::DerefMut for Locked<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.inner
    }
}

impl<T: Summarize> Drop for Locked<'_, T> {
    fn drop(&mut self) {
        *self.summary.lock() = self.inner.summary();
    }
}

/// Shows a session in /proc/PID/fdinfo.
fn show(entry: &SessionEntry, out: &SeqFile) {
    let state = match entry.state {
        uapi::STATE_PREPARED => "prepared",
        uapi::STATE_FROZEN => "frozen",
        uapi::STATE_UPDATED => "updated",
        _ => "normal",
    };
    let ordered = entry.flags & uapi::SESSION_F_ORDERED != 0;
    if let Some(name) = SessionName::new(&entry.name) {
        seq_print!(out, "session:\t{:?}\n", name);
    }
    seq_print!(out, "state:\t{}\n", state);
    seq_print!(out, "ordered:\t{}\n", u32::from(ordered));
    seq_print!(out, "files:\t{}\n", entry.nr_files);
}

/// What a session's file is called, after `anon_inode:`: `[luo_session] NAME`.
struct FileName([u8; Self::PREFIX.len() + SessionName::SIZE]);

impl FileName {
    const PREFIX: &'static [u8] = b"[luo_session] ";

    /// The file name of the session `name`.
    fn new(name: &SessionName) -> Self {
        let mut bytes = [0; Self::PREFIX.len() + SessionName::SIZE];
        let (prefix, rest) = bytes.split_at_mut(Self::PREFIX.len());
        prefix.copy_from_slice(Self::PREFIX);
        rest.copy_from_slice(name.as_array());
        Self(bytes)
    }

    /// The name as C wants it.
    fn as_c_str(&self) -> Result<&CStr> {
        CStr::from_bytes_until_nul(&self.0).map_err(|_| EINVAL)
    }
}

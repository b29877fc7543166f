// SPDX-License-Identifier: GPL-2.0

//! Sessions: named sets of files that live as long as a file descriptor.
//!
//! # Locking
//!
//! A registry's lock is taken before a session's; handlers are called with the session's lock held.
//! The registries of handlers and identities have locks of their own, in which nothing else is
//! locked.

mod incoming;
mod outgoing;
mod registry;

pub(crate) use registry::{IncomingRegistry, OutgoingRegistry};

use crate::{
    handover::luo::SessionName,
    uapi::{GetName, Plain, Range, Request, SetFlags, SESSION_F_ORDERED},
};
use kernel::prelude::*;

/// The commands of a session.
const COMMANDS: Range = Range {
    first: 0x40,
    last: 0x43,
};

/// Those that the peer does not have.
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

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
    uapi::{GetName, Range, Request},
};
use kernel::prelude::*;

/// The commands of a session.
const COMMANDS: Range = Range {
    first: 0x40,
    last: 0x43,
};

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

// SPDX-License-Identifier: GPL-2.0

//! Which Rust object stands for which C object.
//!
//! A driver may ask for an FLB in any callback, whatever is locked then: so the lock of the map is
//! held for a look only. Whoever changes what is registered has [`static@CHANGES`] as well, and may lock
//! other registries meanwhile.

use super::flb::CFlb;
use crate::{
    flb::{self, Listed, Object},
    handler::Registration,
    static_list::release_if_empty,
};
use kernel::{
    prelude::*,
    sync::{global_lock, Arc},
};

/// What the map's lock protects.
pub(super) struct Map {
    handlers: KVec<(usize, Arc<Registration>)>,
    flbs: KVec<FlbEntry>,
}

/// An FLB and the handlers that it is linked to: none yet, if a driver only asked for it.
struct FlbEntry {
    address: usize,
    users: KVec<usize>,
    listed: Listed<CFlb>,
}

global_lock! {
    // SAFETY: Initialized in the module's init, before anything else.
    unsafe(uninit) static MAP: Mutex<Map> = Map {
        handlers: KVec::new(),
        flbs: KVec::new(),
    };
}

global_lock! {
    // SAFETY: Initialized in the module's init, before anything else.
    unsafe(uninit) static CHANGES: Mutex<()> = ();
}

/// Makes the registry ready for use.
///
/// # Safety
///
/// To be called once, before anything else of this room.
pub(crate) unsafe fn init() {
    // SAFETY: By the contract of this function.
    unsafe {
        MAP.init();
        CHANGES.init();
    }
}

impl Map {
    fn position(&self, flb: usize) -> Option<usize> {
        self.flbs.iter().position(|entry| entry.address == flb)
    }

    fn entry(&mut self, flb: usize) -> Option<&mut FlbEntry> {
        self.flbs.iter_mut().find(|entry| entry.address == flb)
    }
}

/// The registered handler at `fh`.
fn handler(fh: usize) -> Option<Arc<Registration>> {
    let map = MAP.lock();
    let found = map.handlers.iter().find(|(known, _)| *known == fh);
    found.map(|(_, registration)| registration.clone())
}

/// The FLB at `address`.
pub(super) fn flb(address: usize) -> Option<Arc<Object<CFlb>>> {
    let mut map = MAP.lock();
    let entry = map.entry(address)?;
    Some(entry.listed.object().clone())
}

/// Whether the FLB at `address` is linked to a handler.
fn is_linked(address: usize) -> bool {
    let mut map = MAP.lock();
    map.entry(address)
        .is_some_and(|entry| !entry.users.is_empty())
}

/// Adds a handler.
pub(super) fn add_handler(fh: usize, registration: Arc<Registration>) -> Result {
    Ok(MAP.lock().handlers.push((fh, registration), GFP_KERNEL)?)
}

/// Takes a handler out, and its FLBs unless other handlers have them.
pub(super) fn remove_handler(fh: usize) {
    let _changes = CHANGES.lock();
    let Some(registration) = handler(fh) else {
        return;
    };
    let linked = || {
        let map = MAP.lock();
        let entry = map.flbs.iter().find(|entry| entry.users.contains(&fh))?;
        Some(entry.address)
    };
    while let Some(address) = linked() {
        unlink_one(&registration, fh, address);
    }
    let mut map = MAP.lock();
    map.handlers.retain(|(known, _)| *known != fh);
    release_if_empty(&mut map.handlers);
    drop(map);
    // The last reference, which unregisters the handler.
    drop(registration);
}

/// Makes the files of the handler `fh` depend on the FLB at `address`.
pub(super) fn link(fh: usize, address: usize, object: CFlb) -> Result {
    let _changes = CHANGES.lock();
    let handler = handler(fh).ok_or(EINVAL)?;
    let flb = add_flb(address, object)?;
    let linked = add_user(address, fh).and_then(|()| {
        handler.link(flb).inspect_err(|_| {
            // The one that was just added, not the one that was there.
            if let Some(entry) = MAP.lock().entry(address) {
                entry.users.pop();
            }
        })
    });
    forget_if_unused(address);
    linked
}

/// Notes that the FLB at `address` is linked to the handler `fh`.
fn add_user(address: usize, fh: usize) -> Result {
    let mut map = MAP.lock();
    let entry = map.entry(address).ok_or(EINVAL)?;
    Ok(entry.users.push(fh, GFP_KERNEL)?)
}

/// Undoes [`link`].
pub(super) fn unlink(fh: usize, address: usize) {
    let _changes = CHANGES.lock();
    if let Some(handler) = handler(fh) {
        unlink_one(&handler, fh, address);
    }
}

/// The same, with [`static@CHANGES`] locked.
fn unlink_one(handler: &Registration, fh: usize, address: usize) {
    let was_linked = MAP.lock().entry(address).is_some_and(|entry| {
        let before = entry.users.len();
        entry.users.retain(|user| *user != fh);
        entry.users.len() != before
    });
    if !was_linked {
        return;
    }
    if let Some(flb) = flb(address) {
        handler.unlink(&flb::AnyFlb::compatible(&*flb));
    }
    forget_if_unused(address);
}

/// Adds the FLB at `address`, unless it is there.
fn add_flb(address: usize, object: CFlb) -> Result<Arc<Object<CFlb>>> {
    if let Some(flb) = flb(address) {
        return Ok(flb);
    }
    let owner = object.owner();
    let listed = Listed::new(object, owner)?;
    let flb = listed.object().clone();
    let entry = FlbEntry {
        address,
        users: KVec::new(),
        listed,
    };
    MAP.lock().flbs.push(entry, GFP_KERNEL)?;
    Ok(flb)
}

/// Takes the FLB at `address` out if no handler has it and it has no state: then C may free it.
///
/// Called with [`static@CHANGES`] locked: nobody else links it or asks for it meanwhile.
fn forget_if_unused(address: usize) {
    let unused = !is_linked(address) && flb(address).is_some_and(|flb| flb.is_idle());
    if unused {
        let mut map = MAP.lock();
        let gone = map.position(address).map(|i| map.flbs.remove(i));
        release_if_empty(&mut map.flbs);
        drop(map);
        drop(gone);
    }
}

/// Holds the object that the previous kernel handed over.
pub(super) fn get_incoming(address: usize, object: CFlb) -> Result<*mut c_void> {
    let hold = |flb: &Object<CFlb>| flb::incoming::hold(flb, |state| state.as_ptr());
    match flb(address) {
        Some(flb) if is_linked(address) => hold(&flb),
        _ => {
            let _changes = CHANGES.lock();
            let held = hold(&*add_flb(address, object)?);
            forget_if_unused(address);
            held
        }
    }
}

/// Undoes [`get_incoming`].
pub(super) fn put_incoming(address: usize) {
    let Some(flb) = flb(address) else {
        return;
    };
    flb::incoming::release(&flb);
    if !is_linked(address) {
        let _changes = CHANGES.lock();
        forget_if_unused(address);
    }
}

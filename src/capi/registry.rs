// SPDX-License-Identifier: GPL-2.0

//! Which Rust object stands for which C object.
//!
//! A driver may ask for an FLB in any callback, whatever is locked then: so the lock of the map is
//! held for a look only, or to put something in or take it out. Whoever registers anything, or takes it
//! out, has [`static@CHANGES`] as well, and may lock handlers meanwhile; no callback is called with it.

use super::flb::CFlb;
use crate::{
    flb::{self, AnyFlb, AsFlb, Listed, Object},
    handler::{FileHandler, Registration},
    module_ref::Owner,
    static_list::release_if_empty,
};
use core::ops::Deref;
use kernel::{
    prelude::*,
    sync::{global_lock, Arc, UniqueArc},
};

/// What the map's lock protects.
pub(super) struct Map {
    handlers: KVec<(usize, Arc<Registration>)>,
    flbs: KVec<FlbEntry>,
}

/// An FLB that somebody needs.
struct FlbEntry {
    address: usize,
    /// Number of [`Known`]s: not 0.
    needed: usize,
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
    /// The FLB at `address`, if anybody needs it, for one more who does.
    fn need(&mut self, address: usize) -> Option<Known> {
        let entry = self
            .flbs
            .iter_mut()
            .find(|entry| entry.address == address)?;
        entry.needed += 1;
        Some(Known {
            address,
            object: entry.listed.object().clone(),
        })
    }

    /// One needs the FLB at `address` no more: with the last, it is forgotten.
    fn let_go(&mut self, address: usize) {
        self.flbs.retain(|entry| {
            if entry.address == address {
                entry.needed = entry.needed.saturating_sub(1);
            }
            entry.needed != 0
        });
        release_if_empty(&mut self.flbs);
    }
}

/// An FLB of C: while this lives it is in the map, and in the table of all FLBs.
///
/// Whoever needs it has one of these: each handler that it is linked to, each state of it, and each
/// call that is under way. With the last of them all is forgotten that leads to the C object, which
/// may then be freed.
///
/// # Invariants
///
/// This is counted in the FLB's entry of the map.
pub(super) struct Known {
    address: usize,
    object: Arc<Object<CFlb>>,
}

impl Known {
    /// The FLB at `address`, if anybody needs it already.
    pub(super) fn find(address: usize) -> Option<Self> {
        MAP.lock().need(address)
    }

    /// The same, or `flb`, if nobody did.
    fn find_or_add(flb: CFlb) -> Result<Self> {
        let address = flb.address();
        let mut map = MAP.lock();
        if let Some(known) = map.need(address) {
            return Ok(known);
        }
        let owner = flb.owner();
        let listed = Listed::new(flb, owner)?;
        let object = listed.object().clone();
        let entry = FlbEntry {
            address,
            needed: 1,
            listed,
        };
        map.flbs.push(entry, GFP_KERNEL)?;
        // INVARIANT: It is the first.
        Ok(Self { address, object })
    }
}

impl Drop for Known {
    fn drop(&mut self) {
        MAP.lock().let_go(self.address);
    }
}

impl Deref for Known {
    type Target = Object<CFlb>;

    fn deref(&self) -> &Self::Target {
        &self.object
    }
}

impl AsFlb for Known {
    fn as_flb(&self) -> &(dyn AnyFlb + 'static) {
        &*self.object
    }
}

/// The registered handler at `fh`.
fn handler(fh: usize) -> Option<Arc<Registration>> {
    let map = MAP.lock();
    let found = map.handlers.iter().find(|(known, _)| *known == fh);
    found.map(|(_, registration)| registration.clone())
}

/// Registers a handler for the C object at `fh`.
pub(super) fn add_handler(fh: usize, handler: KBox<dyn FileHandler>, owner: Owner) -> Result {
    let _changes = CHANGES.lock();
    // First all that can fail: once it is registered a handler may be called, and have files, and
    // its module is not asked whether it may go if it was told that it is not registered.
    let registration = UniqueArc::new_uninit(GFP_KERNEL)?;
    MAP.lock().handlers.reserve(1, GFP_KERNEL)?;
    let registered = Registration::with_owner(handler, owner);
    let mut map = MAP.lock();
    let added = registered.and_then(|registered| {
        let entry = (fh, registration.write(registered).into());
        // Nobody else has taken the room.
        let pushed = map.handlers.push_within_capacity(entry);
        pushed.map_err(|_| ENOMEM)
    });
    release_if_empty(&mut map.handlers);
    added
}

/// Takes a handler out, and with it the links of FLBs to it.
pub(super) fn remove_handler(fh: usize) {
    let _changes = CHANGES.lock();
    let Some(registration) = handler(fh) else {
        return;
    };
    let mut map = MAP.lock();
    map.handlers.retain(|(known, _)| *known != fh);
    release_if_empty(&mut map.handlers);
    drop(map);
    // The last reference, which unregisters the handler.
    drop(registration);
}

/// Makes the files of the handler `fh` depend on `flb`.
pub(super) fn link(fh: usize, flb: CFlb) -> Result {
    let _changes = CHANGES.lock();
    let handler = handler(fh).ok_or(EINVAL)?;
    handler.link(Arc::new(Known::find_or_add(flb)?, GFP_KERNEL)?)
}

/// Undoes [`link`].
pub(super) fn unlink(fh: usize, address: usize) {
    let _changes = CHANGES.lock();
    // Each a local of its own, dropped before the lock is: the last reference to a handler is that of
    // whoever removes it.
    let Some(handler) = handler(fh) else {
        return;
    };
    let Some(flb) = Known::find(address) else {
        return;
    };
    handler.unlink(&flb.compatible());
}

/// Holds the object that the previous kernel handed over.
pub(super) fn get_incoming(flb: CFlb) -> Result<*mut c_void> {
    flb::incoming::hold(&*Known::find_or_add(flb)?, |state| state.as_ptr())
}

/// Undoes [`get_incoming`].
pub(super) fn put_incoming(address: usize) {
    if let Some(flb) = Known::find(address) {
        flb::incoming::release(&flb);
    }
}

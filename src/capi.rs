// SPDX-License-Identifier: GPL-2.0

//! The in-kernel C interface: handlers and FLBs written against `<linux/liveupdate.h>`.
//!
//! Each C object becomes a Rust one that calls its callbacks; which C object that is, is looked up
//! here by its address. `exports.c` exports the functions to modules.

mod file;
mod flb;

use crate::{
    flb::Registration as FlbRegistration, handler::Registration, handover::luo::Compatible,
};
use file::CHandler;
use flb::{CFlb, FlbEntry};
use kernel::{bindings, error::to_result, prelude::*, sync::global_lock};

/// What the registry's lock protects: C objects by their addresses.
struct Registry {
    handlers: KVec<(usize, Registration)>,
    flbs: KVec<FlbEntry>,
}

global_lock! {
    // SAFETY: Initialized in the module's init, before anything else.
    unsafe(uninit) static REGISTRY: Mutex<Registry> = Registry {
        handlers: KVec::new(),
        flbs: KVec::new(),
    };
}

/// Makes the registry ready for use.
///
/// # Safety
///
/// To be called once, before anything else of this room.
pub(crate) unsafe fn init() {
    // SAFETY: By the contract of this function.
    unsafe { REGISTRY.init() };
}

impl Registry {
    fn handler(&self, fh: usize) -> Option<&Registration> {
        let (_, registration) = self.handlers.iter().find(|(known, _)| *known == fh)?;
        Some(registration)
    }

    fn flb(&mut self, flb: usize) -> Option<&mut FlbEntry> {
        self.flbs.iter_mut().find(|entry| entry.address == flb)
    }
}

/// A result as C wants it.
fn to_c(result: Result) -> c_int {
    match result {
        Ok(()) => 0,
        Err(err) => err.to_errno(),
    }
}

/// The compatible string of a C object.
fn compatible(field: &[c_char; Compatible::SIZE]) -> Result<Compatible> {
    Compatible::new(field).ok_or(EINVAL)
}

/// Whether there is an orchestrator to register with: there is, this one.
#[no_mangle]
pub(crate) extern "C" fn liveupdate_enabled() -> bool {
    true
}

/// Registers a file handler. `EINVAL` if a callback is missing, `EEXIST` if the compatible string
/// is taken.
///
/// # Safety
///
/// `fh` and what it points to stay valid until it is unregistered.
#[no_mangle]
pub(crate) unsafe extern "C" fn liveupdate_register_file_handler(
    fh: *mut bindings::liveupdate_file_handler,
) -> c_int {
    to_c((|| {
        // SAFETY: By the contract of this function.
        let handler = unsafe { CHandler::new(fh)? };
        let owner = handler.owner();
        let registration = Registration::with_owner(KBox::new(handler, GFP_KERNEL)?, owner)?;
        REGISTRY
            .lock()
            .handlers
            .push((fh as usize, registration), GFP_KERNEL)?;
        Ok(())
    })())
}

/// Undoes [`liveupdate_register_file_handler`], and the links of FLBs to the handler.
#[no_mangle]
pub(crate) extern "C" fn liveupdate_unregister_file_handler(
    fh: *mut bindings::liveupdate_file_handler,
) {
    let fh = fh as usize;
    let mut registry = REGISTRY.lock();
    let mut i = 0;
    while i < registry.flbs.len() {
        let address = registry.flbs[i].address;
        if !flb::unlink(&mut registry, fh, address) {
            i += 1;
        }
    }
    registry.handlers.retain(|(known, _)| *known != fh);
}

/// Makes the files of `fh` depend on `flb`.
///
/// `EINVAL` if the handler is not registered or a callback is missing, `EEXIST` if they depend on
/// it already or its compatible string is taken, `ENOSPC` if there are too many FLBs.
///
/// # Safety
///
/// `flb` and what it points to stay valid until it is unregistered from all handlers.
#[no_mangle]
pub(crate) unsafe extern "C" fn liveupdate_register_flb(
    fh: *mut bindings::liveupdate_file_handler,
    flb: *mut bindings::liveupdate_flb,
) -> c_int {
    to_c((|| {
        // SAFETY: By the contract of this function.
        let object = unsafe { CFlb::new(flb)? };
        flb::link(&mut REGISTRY.lock(), fh as usize, flb as usize, object)
    })())
}

/// Undoes [`liveupdate_register_flb`].
#[no_mangle]
pub(crate) extern "C" fn liveupdate_unregister_flb(
    fh: *mut bindings::liveupdate_file_handler,
    flb: *mut bindings::liveupdate_flb,
) {
    flb::unlink(&mut REGISTRY.lock(), fh as usize, flb as usize);
}

/// The object that the previous kernel handed over, in `*objp`, until
/// [`liveupdate_flb_put_incoming`].
///
/// # Safety
///
/// `objp` is valid for writes.
#[no_mangle]
pub(crate) unsafe extern "C" fn liveupdate_flb_get_incoming(
    flb: *mut bindings::liveupdate_flb,
    objp: *mut *mut c_void,
) -> c_int {
    to_c(flb::object(flb as usize).and_then(|object| {
        let obj = crate::flb::incoming::hold(&object, |state| state.as_ptr())?;
        // SAFETY: By the contract of this function.
        unsafe { *objp = obj };
        Ok(())
    }))
}

/// Undoes [`liveupdate_flb_get_incoming`].
#[no_mangle]
pub(crate) extern "C" fn liveupdate_flb_put_incoming(flb: *mut bindings::liveupdate_flb) {
    if let Ok(object) = flb::object(flb as usize) {
        crate::flb::incoming::release(&object);
    }
}

/// The object of this kernel, in `*objp`, until [`liveupdate_flb_put_outgoing`].
///
/// # Safety
///
/// `objp` is valid for writes.
#[no_mangle]
pub(crate) unsafe extern "C" fn liveupdate_flb_get_outgoing(
    flb: *mut bindings::liveupdate_flb,
    objp: *mut *mut c_void,
) -> c_int {
    to_c(flb::object(flb as usize).and_then(|object| {
        let obj = crate::flb::outgoing::hold(&object, |state| state.as_ptr())?;
        // SAFETY: By the contract of this function.
        unsafe { *objp = obj };
        Ok(())
    }))
}

/// Undoes [`liveupdate_flb_get_outgoing`].
#[no_mangle]
pub(crate) extern "C" fn liveupdate_flb_put_outgoing(flb: *mut bindings::liveupdate_flb) {
    if let Ok(object) = flb::object(flb as usize) {
        crate::flb::outgoing::release(&object);
    }
}

// SPDX-License-Identifier: GPL-2.0

//! The in-kernel C interface: handlers and FLBs written against `<linux/liveupdate.h>`.
//!
//! Each C object becomes a Rust one that calls its callbacks; which C object that is, is looked up
//! in [`registry`] by its address. `exports.c` exports the functions to modules.

mod file;
mod flb;
mod registry;

use core::ptr::NonNull;
use file::CHandler;
use kernel::{
    bindings,
    error::to_result,
    prelude::*,
    sync::atomic::{Acquire, Atomic, Release},
};
use registry::Known;

pub(crate) use registry::init;

/// Whether the module is in operation. Before that, and if it could not be brought into operation,
/// drivers that are built into the kernel may call, too.
static ENABLED: Atomic<bool> = Atomic::new(false);

/// C objects may be registered until this is dropped.
pub(crate) struct Enabled(());

impl Enabled {
    /// Opens the interface.
    pub(crate) fn new() -> Self {
        ENABLED.store(true, Release);
        Self(())
    }
}

impl Drop for Enabled {
    fn drop(&mut self) {
        ENABLED.store(false, Release);
    }
}

/// Calls `body`, if the module is in operation, and gives its result as C wants it.
fn c_call(body: impl FnOnce() -> Result) -> c_int {
    let result = if liveupdate_enabled() {
        body()
    } else {
        Err(EOPNOTSUPP)
    };
    match result {
        Ok(()) => 0,
        Err(err) => err.to_errno(),
    }
}

/// Whether there is an orchestrator to register with.
#[no_mangle]
pub(crate) extern "C" fn liveupdate_enabled() -> bool {
    ENABLED.load(Acquire)
}

/// Registers a file handler. `EINVAL` if a callback is missing, `EEXIST` if the compatible string
/// is taken.
///
/// # Safety
///
/// `fh` and what it points to stay valid until it is unregistered, and none of its files is preserved, or
/// was asked for and is not finished.
#[no_mangle]
pub(crate) unsafe extern "C" fn liveupdate_register_file_handler(
    fh: *mut bindings::liveupdate_file_handler,
) -> c_int {
    c_call(|| {
        // SAFETY: By the contract of this function.
        let handler = unsafe { CHandler::new(fh)? };
        let owner = handler.owner();
        registry::add_handler(fh as usize, KBox::new(handler, GFP_KERNEL)?, owner)
    })
}

/// Undoes [`liveupdate_register_file_handler`], and the links of FLBs to the handler.
#[no_mangle]
pub(crate) extern "C" fn liveupdate_unregister_file_handler(
    fh: *mut bindings::liveupdate_file_handler,
) {
    if liveupdate_enabled() {
        registry::remove_handler(fh as usize);
    }
}

/// Makes the files of `fh` depend on `flb`.
///
/// `EINVAL` if the handler is not registered or a callback is missing, `EEXIST` if they depend on
/// it already or its compatible string is taken, `ENOSPC` if there are too many FLBs.
///
/// # Safety
///
/// `flb` and what it points to stay valid until it is unregistered from all handlers, its objects have
/// ended, and every file that was retrieved while it was registered is finished.
#[no_mangle]
pub(crate) unsafe extern "C" fn liveupdate_register_flb(
    fh: *mut bindings::liveupdate_file_handler,
    flb: *mut bindings::liveupdate_flb,
) -> c_int {
    c_call(|| {
        // SAFETY: By the contract of this function.
        let object = unsafe { flb::CFlb::new(flb)? };
        registry::link(fh as usize, object)
    })
}

/// Undoes [`liveupdate_register_flb`].
#[no_mangle]
pub(crate) extern "C" fn liveupdate_unregister_flb(
    fh: *mut bindings::liveupdate_file_handler,
    flb: *mut bindings::liveupdate_flb,
) {
    if liveupdate_enabled() {
        registry::unlink(fh as usize, flb as usize);
    }
}

/// The object that the previous kernel handed over, in `*objp`, until
/// [`liveupdate_flb_put_incoming`]. The FLB need not be registered.
///
/// # Safety
///
/// `objp` is valid for writes. `flb` and what it points to stay valid until it is unregistered, and its
/// objects have ended.
#[no_mangle]
pub(crate) unsafe extern "C" fn liveupdate_flb_get_incoming(
    flb: *mut bindings::liveupdate_flb,
    objp: *mut *mut c_void,
) -> c_int {
    c_call(|| {
        // SAFETY: By the contract of this function.
        let object = unsafe { flb::CFlb::new(flb)? };
        let obj = registry::get_incoming(object)?;
        // SAFETY: By the contract of this function.
        unsafe { *objp = obj };
        Ok(())
    })
}

/// Undoes [`liveupdate_flb_get_incoming`].
#[no_mangle]
pub(crate) extern "C" fn liveupdate_flb_put_incoming(flb: *mut bindings::liveupdate_flb) {
    registry::put_incoming(flb as usize);
}

/// The object of this kernel, in `*objp`, until [`liveupdate_flb_put_outgoing`]. `ENOENT` if there is
/// none.
///
/// # Safety
///
/// `objp` is valid for writes.
#[no_mangle]
pub(crate) unsafe extern "C" fn liveupdate_flb_get_outgoing(
    flb: *mut bindings::liveupdate_flb,
    objp: *mut *mut c_void,
) -> c_int {
    c_call(|| {
        let object = Known::find(flb as usize).ok_or(ENOENT)?;
        // One whose callback set none is none to C.
        let obj = |state: &flb::COutgoing| NonNull::new(state.as_ptr()).ok_or(ENOENT);
        let obj = crate::flb::outgoing::hold(&object, obj)?;
        // SAFETY: By the contract of this function.
        unsafe { *objp = obj.as_ptr() };
        Ok(())
    })
}

/// Undoes [`liveupdate_flb_get_outgoing`].
#[no_mangle]
pub(crate) extern "C" fn liveupdate_flb_put_outgoing(flb: *mut bindings::liveupdate_flb) {
    if let Some(object) = Known::find(flb as usize) {
        crate::flb::outgoing::release(&object);
    }
}

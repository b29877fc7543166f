// SPDX-License-Identifier: GPL-2.0

//! An FLB that is written in C.

use super::{registry::Known, to_result};
use crate::{flb::Flb, handover::luo::Compatible, module_ref::Owner};
use core::ptr::{null_mut, NonNull};
use kernel::{bindings, prelude::*};

/// A pointer to an FLB of C.
///
/// # Invariants
///
/// It is valid, with all callbacks, while the FLB is [`Known`]; and while there is an object of it
/// its module is loaded.
#[derive(Clone, Copy)]
struct Raw(NonNull<bindings::liveupdate_flb>);

// SAFETY: C's callbacks may be called from anywhere.
unsafe impl Send for Raw {}
// SAFETY: C's callbacks may be called from anywhere.
unsafe impl Sync for Raw {}

impl Raw {
    fn ops(&self) -> &bindings::liveupdate_flb_ops {
        // SAFETY: By the type invariant.
        unsafe { &*self.0.as_ref().ops }
    }

    /// Arguments of a callback.
    fn args(&self, data: u64, obj: *mut c_void) -> bindings::liveupdate_flb_op_args {
        bindings::liveupdate_flb_op_args {
            flb: self.0.as_ptr(),
            data,
            obj,
        }
    }
}

/// An FLB that is written in C.
pub(crate) struct CFlb {
    raw: Raw,
    compatible: Compatible,
}

impl CFlb {
    /// Looks at an FLB: `EINVAL` if a callback is missing.
    ///
    /// # Safety
    ///
    /// `flb` and what it points to are valid until the FLB is unregistered, has no object, and no file
    /// that was retrieved before is unfinished.
    pub(super) unsafe fn new(flb: *mut bindings::liveupdate_flb) -> Result<Self> {
        let raw = Raw(NonNull::new(flb).ok_or(EINVAL)?);
        let ops = raw.ops();
        if ops.preserve.is_none()
            || ops.unpreserve.is_none()
            || ops.retrieve.is_none()
            || ops.finish.is_none()
        {
            return Err(EINVAL);
        }
        // INVARIANT: Checked above, and by the contract of this function.
        Ok(Self {
            // SAFETY: By the contract of this function.
            compatible: Compatible::new(unsafe { &(*flb).compatible }).ok_or(EINVAL)?,
            raw,
        })
    }

    /// The address that C knows the FLB by.
    pub(super) fn address(&self) -> usize {
        self.raw.0.as_ptr() as usize
    }

    /// What a new object needs. Whoever has it made has one already: so it is found.
    fn known(&self) -> Result<Known> {
        Known::find(self.address()).ok_or(ENODEV)
    }

    /// The module of the FLB.
    pub(super) fn owner(&self) -> Owner {
        // SAFETY: An FLB is unregistered, and without any object, before its module goes.
        unsafe { Owner::from_raw(self.raw.ops().owner) }
    }
}

/// What C calls the object of an FLB, with what it was made of. The FLB may be unregistered before
/// it ends.
pub(crate) struct CObject {
    raw: Raw,
    data: u64,
    obj: *mut c_void,
    _known: Known,
}

// SAFETY: It is only handed back to C, whose callbacks may be called from anywhere.
unsafe impl Send for CObject {}
// SAFETY: It is only handed back to C, whose callbacks may be called from anywhere.
unsafe impl Sync for CObject {}

impl CObject {
    /// The object.
    pub(super) fn as_ptr(&self) -> *mut c_void {
        self.obj
    }
}

/// The object of an FLB in the old kernel.
pub(crate) struct COutgoing(CObject);

impl COutgoing {
    /// The object.
    pub(super) fn as_ptr(&self) -> *mut c_void {
        self.0.as_ptr()
    }
}

impl Drop for COutgoing {
    fn drop(&mut self) {
        let CObject { raw, data, obj, .. } = &self.0;
        if let Some(call) = raw.ops().unpreserve {
            // SAFETY: The callback is C's, which asks for no more than valid pointers.
            unsafe { call(&mut raw.args(*data, *obj)) };
        }
    }
}

impl Flb for CFlb {
    type Outgoing = COutgoing;
    type Incoming = CObject;

    fn compatible(&self) -> Compatible {
        self.compatible
    }

    fn preserve(&self) -> Result<COutgoing> {
        let known = self.known()?;
        let call = self.raw.ops().preserve.ok_or(EINVAL)?;
        let mut args = self.raw.args(0, null_mut());
        // SAFETY: A callback of C asks for no more than valid pointers.
        to_result(unsafe { call(&mut args) })?;
        Ok(COutgoing(CObject {
            raw: self.raw,
            data: args.data,
            obj: args.obj,
            _known: known,
        }))
    }

    fn data(&self, state: &COutgoing) -> u64 {
        state.0.data
    }

    fn retrieve(&self, data: u64) -> Result<CObject> {
        let known = self.known()?;
        let call = self.raw.ops().retrieve.ok_or(EINVAL)?;
        let mut args = self.raw.args(data, null_mut());
        // SAFETY: A callback of C asks for no more than valid pointers.
        to_result(unsafe { call(&mut args) })?;
        Ok(CObject {
            raw: self.raw,
            data,
            obj: args.obj,
            _known: known,
        })
    }

    fn finish(&self, state: CObject) {
        if let Some(call) = self.raw.ops().finish {
            // SAFETY: A callback of C asks for no more than valid pointers.
            unsafe { call(&mut self.raw.args(state.data, state.obj)) };
        }
    }
}

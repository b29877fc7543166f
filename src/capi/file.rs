// SPDX-License-Identifier: GPL-2.0

//! A file handler that is written in C.

use super::to_result;
use crate::{
    handler::{FileHandler, NotRetrieved, Outcome, PreservedFile},
    handover::luo::Compatible,
    module_ref::Owner,
};
use core::ptr::{null_mut, NonNull};
use kernel::{
    bindings,
    fs::File,
    prelude::*,
    sync::{
        aref::ARef,
        atomic::{Atomic, Relaxed},
    },
};

/// A pointer to a handler of C.
///
/// # Invariants
///
/// It is valid, with all callbacks that are required, until the handler is unregistered, and none of its
/// files is preserved, or was asked for and is not finished. Until then its module is loaded, too.
#[derive(Clone, Copy)]
struct Raw(NonNull<bindings::liveupdate_file_handler>);

// SAFETY: C's callbacks may be called from anywhere.
unsafe impl Send for Raw {}
// SAFETY: C's callbacks may be called from anywhere.
unsafe impl Sync for Raw {}

impl Raw {
    fn ops(&self) -> &bindings::liveupdate_file_ops {
        // SAFETY: By the type invariant.
        unsafe { &*self.0.as_ref().ops }
    }

    /// Arguments of a callback.
    fn args(
        &self,
        file: *mut bindings::file,
        data: u64,
        private: *mut c_void,
    ) -> bindings::liveupdate_file_op_args {
        bindings::liveupdate_file_op_args {
            handler: self.0.as_ptr(),
            retrieve_status: 0,
            file,
            serialized_data: data,
            private_data: private,
        }
    }
}

/// A handler that is written in C.
pub(super) struct CHandler {
    raw: Raw,
    compatible: Compatible,
}

impl CHandler {
    /// Looks at a handler: `EINVAL` if a callback that is required is missing.
    ///
    /// # Safety
    ///
    /// `fh` and what it points to are valid until the handler is unregistered, and none of its files is
    /// preserved, or was asked for and is not finished.
    pub(super) unsafe fn new(fh: *mut bindings::liveupdate_file_handler) -> Result<Self> {
        let raw = Raw(NonNull::new(fh).ok_or(EINVAL)?);
        let ops = raw.ops();
        if ops.can_preserve.is_none()
            || ops.preserve.is_none()
            || ops.unpreserve.is_none()
            || ops.retrieve.is_none()
            || ops.finish.is_none()
        {
            return Err(EINVAL);
        }
        // INVARIANT: Checked above, and by the contract of this function.
        Ok(Self {
            // SAFETY: By the contract of this function.
            compatible: Compatible::new(unsafe { &(*fh).compatible }).ok_or(EINVAL)?,
            raw,
        })
    }

    /// The module of the handler.
    pub(super) fn owner(&self) -> Owner {
        // SAFETY: A handler is unregistered before its module goes.
        unsafe { Owner::from_raw(self.raw.ops().owner) }
    }

    /// Arguments of a callback in the new kernel.
    fn incoming(&self, data: u64, outcome: &Outcome) -> bindings::liveupdate_file_op_args {
        let mut args = self.raw.args(null_mut(), data, null_mut());
        match outcome {
            Outcome::Pending => {}
            Outcome::Retrieved(file) => {
                args.file = file.as_ptr();
                args.retrieve_status = 1;
            }
            Outcome::Failed(err) => args.retrieve_status = err.to_errno(),
        }
        args
    }
}

impl FileHandler for CHandler {
    fn compatible(&self) -> Compatible {
        self.compatible
    }

    fn can_preserve(&self, file: &File) -> bool {
        // SAFETY: The callback is C's, which asks for no more than valid pointers.
        self.raw
            .ops()
            .can_preserve
            .is_some_and(|call| unsafe { call(self.raw.0.as_ptr(), file.as_ptr()) })
    }

    fn identity(&self, file: &File) -> usize {
        match self.raw.ops().get_id {
            // SAFETY: A callback of C asks for no more than valid pointers.
            Some(call) => unsafe { call(file.as_ptr()) },
            None => file.as_ptr() as usize,
        }
    }

    fn preserve(&self, file: &ARef<File>) -> Result<KBox<dyn PreservedFile>> {
        // Allocated ahead, so that nothing can fail when C has preserved the file.
        let room = KBox::<CPreserved>::new_uninit(GFP_KERNEL_ACCOUNT)?;
        let call = self.raw.ops().preserve.ok_or(EINVAL)?;
        let mut args = self.raw.args(file.as_ptr(), 0, null_mut());
        // SAFETY: A callback of C asks for no more than valid pointers.
        to_result(unsafe { call(&mut args) })?;
        let preserved = KBox::write(
            room,
            CPreserved {
                raw: self.raw,
                file: file.clone(),
                data: Atomic::new(args.serialized_data),
                private: Private(args.private_data),
            },
        );
        Ok(preserved)
    }

    fn retrieve(&self, data: u64) -> Result<ARef<File>, NotRetrieved> {
        let call = self.raw.ops().retrieve.ok_or(EINVAL)?;
        let mut args = self.raw.args(null_mut(), data, null_mut());
        // SAFETY: A callback of C asks for no more than valid pointers.
        to_result(unsafe { call(&mut args) })?;
        let file = NonNull::new(args.file).ok_or(EIO)?;
        // SAFETY: The callback made the file, and passes its reference on. It is new: nobody is
        // inside fdget_pos().
        Ok(unsafe { ARef::from_raw(file.cast()) })
    }

    fn can_finish(&self, data: u64, outcome: &Outcome) -> bool {
        let Some(call) = self.raw.ops().can_finish else {
            return true;
        };
        let mut args = self.incoming(data, outcome);
        // SAFETY: A callback of C asks for no more than valid pointers.
        unsafe { call(&mut args) }
    }

    fn finish(&self, data: u64, outcome: &Outcome) {
        if let Some(call) = self.raw.ops().finish {
            let mut args = self.incoming(data, outcome);
            // SAFETY: A callback of C asks for no more than valid pointers.
            unsafe { call(&mut args) };
        }
    }
}

/// What C keeps for a file while it is preserved.
struct Private(*mut c_void);

// SAFETY: It is only handed back to C, whose callbacks may be called from anywhere.
unsafe impl Send for Private {}
// SAFETY: It is only handed back to C, whose callbacks may be called from anywhere.
unsafe impl Sync for Private {}

/// A file that a C handler has preserved.
struct CPreserved {
    raw: Raw,
    file: ARef<File>,
    data: Atomic<u64>,
    private: Private,
}

impl CPreserved {
    fn args(&self) -> bindings::liveupdate_file_op_args {
        self.raw
            .args(self.file.as_ptr(), self.data.load(Relaxed), self.private.0)
    }
}

impl PreservedFile for CPreserved {
    fn freeze(&self) -> Result<u64> {
        if let Some(call) = self.raw.ops().freeze {
            let mut args = self.args();
            // SAFETY: A callback of C asks for no more than valid pointers.
            to_result(unsafe { call(&mut args) })?;
            self.data.store(args.serialized_data, Relaxed);
        }
        Ok(self.data.load(Relaxed))
    }

    fn unfreeze(&self) {
        if let Some(call) = self.raw.ops().unfreeze {
            // SAFETY: A callback of C asks for no more than valid pointers.
            unsafe { call(&mut self.args()) };
        }
    }
}

impl Drop for CPreserved {
    fn drop(&mut self) {
        if let Some(call) = self.raw.ops().unpreserve {
            // SAFETY: A callback of C asks for no more than valid pointers.
            unsafe { call(&mut self.args()) };
        }
    }
}

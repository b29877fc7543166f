// SPDX-License-Identifier: GPL-2.0

//! The handler, which notes each callback and fails when it is told to.

use crate::{
    record::{fails, note},
    RecFile,
};
use core::ptr::NonNull;
use kernel::{
    bindings,
    error::from_err_ptr,
    fs::File,
    miscdevice::MiscDeviceRegistration,
    prelude::*,
    sync::{aref::ARef, Arc, ArcBorrow},
    types::ForeignOwnable,
};
use luo::{
    handler::{FileHandler, NotRetrieved, Outcome, PreservedFile},
    Compatible,
};

/// The operations of the device's files.
///
/// # Invariants
///
/// A file with these has an `Arc<RecFile>` for its private data.
struct Operations(*const bindings::file_operations);

// SAFETY: The table is static, and only read.
unsafe impl Send for Operations {}
// SAFETY: As above.
unsafe impl Sync for Operations {}

pub(crate) struct RecHandler(Operations);

impl RecHandler {
    /// A handler for files of `device`.
    pub(crate) fn new(device: &MiscDeviceRegistration<RecFile>) -> Self {
        // SAFETY: The device is registered, so that nobody changes it.
        let operations = unsafe { (*device.as_raw()).fops };
        // INVARIANT: Those of a device whose `Ptr` is `Arc<RecFile>`.
        Self(Operations(operations))
    }

    /// The number of `file`, if it is a file of the device.
    fn id(&self, file: &File) -> Option<u64> {
        // SAFETY: Neither changes while the file is open.
        let (operations, private) = unsafe {
            let file = file.as_ptr();
            ((*file).f_op, (*file).private_data)
        };
        if operations != self.0 .0 {
            return None;
        }
        // SAFETY: By the invariant of `Operations`, an `Arc<RecFile>`, and the file keeps it.
        let file: ArcBorrow<'_, RecFile> = unsafe { Arc::borrow(private) };
        Some(file.id())
    }

    /// Makes a file of this number.
    fn file(&self, id: u64) -> Result<ARef<File>> {
        let private = RecFile::new(id)?.into_foreign();
        // SAFETY: The name ends with a zero, the operations are static, and by the invariant of
        // `Operations` the private data is what they want.
        let file = from_err_ptr(unsafe {
            bindings::anon_inode_getfile(
                c"luo-recorder-c".as_char_ptr(),
                self.0 .0,
                private,
                bindings::O_RDWR as c_int,
            )
        });
        let file = file.inspect_err(|_| {
            // SAFETY: No file was made that could have taken it over.
            drop(unsafe { Arc::<RecFile>::from_foreign(private) });
        })?;
        // SAFETY: The file is new: its one reference becomes that of the `ARef`, and nobody is
        // inside fdget_pos().
        Ok(unsafe { ARef::from_raw(NonNull::new(file).ok_or(ENOMEM)?.cast()) })
    }
}

/// The retrieve_status that a handler in C would see.
fn status(outcome: &Outcome) -> i32 {
    match outcome {
        Outcome::Pending => 0,
        Outcome::Retrieved(_) => 1,
        Outcome::Failed(err) => err.to_errno(),
    }
}

impl FileHandler for RecHandler {
    fn compatible(&self) -> Compatible {
        const { Compatible::from_str("luo-recorder-c-v1") }
    }

    fn can_preserve(&self, file: &File) -> bool {
        self.id(file).is_some()
    }

    fn preserve(&self, file: &ARef<File>) -> Result<KBox<dyn PreservedFile>> {
        let id = self.id(file).ok_or(EINVAL)?;
        note(fmt!("preserve c{id}"));
        fails(c"preserve")?;
        Ok(KBox::new(Preserved(id), GFP_KERNEL)?)
    }

    fn retrieve(&self, data: u64) -> Result<ARef<File>, NotRetrieved> {
        note(fmt!("retrieve c{data}"));
        fails(c"retrieve")?;
        Ok(self.file(data)?)
    }

    fn can_finish(&self, data: u64, outcome: &Outcome) -> bool {
        note(fmt!("can_finish c{data} {}", status(outcome)));
        fails(c"can_finish").is_ok()
    }

    fn finish(&self, data: u64, outcome: &Outcome) {
        note(fmt!("finish c{data} {}", status(outcome)));
    }
}

/// A preserved file of this number, which is all that is handed over.
struct Preserved(u64);

impl PreservedFile for Preserved {
    fn prepare(&self) -> Result {
        note(fmt!("prepare c{}", self.0));
        fails(c"prepare")
    }

    fn freeze(&self) -> Result<u64> {
        note(fmt!("freeze c{}", self.0));
        fails(c"freeze")?;
        Ok(self.0)
    }

    fn unfreeze(&self) {
        note(fmt!("unfreeze c{}", self.0));
    }
}

impl Drop for Preserved {
    fn drop(&mut self) {
        note(fmt!("unpreserve c{}", self.0));
    }
}

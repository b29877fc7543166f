// SPDX-License-Identifier: GPL-2.0

//! How a file of the device is preserved.

use crate::{
    page::{self, PreservedPage},
    Content, Note, NOTE_SIZE,
};
use core::ptr::NonNull;
use kernel::{
    bindings,
    error::from_err_ptr,
    fs::File,
    miscdevice::MiscDeviceRegistration,
    new_mutex,
    prelude::*,
    sync::{aref::ARef, Arc, ArcBorrow, Mutex},
    types::ForeignOwnable,
};
use luo::{
    handler::{FileHandler, NotRetrieved, Outcome, PreservedFile},
    Compatible,
};
use zerocopy_derive::{Immutable, KnownLayout};

/// What is handed over for a file. Whoever changes it gives it another compatible string.
#[repr(C)]
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
struct NoteSer {
    /// How often the file was written to.
    writes: u64,
    /// The note.
    note: [u8; NOTE_SIZE],
}

/// Handles the files of the device.
pub(crate) struct NoteHandler {
    /// What tells them from other files.
    operations: Operations,
}

/// The operations of the device's files.
///
/// # Invariants
///
/// A file with these has an `Arc<Note>` for its private data.
struct Operations(*const bindings::file_operations);

// SAFETY: The table is static, and only read.
unsafe impl Send for Operations {}
// SAFETY: As above.
unsafe impl Sync for Operations {}

impl NoteHandler {
    /// A handler for files of `device`.
    pub(crate) fn new(device: &MiscDeviceRegistration<Note>) -> Self {
        // SAFETY: The device is registered, so that nobody changes it.
        let operations = unsafe { (*device.as_raw()).fops };
        // INVARIANT: Those of a device whose `Ptr` is `Arc<Note>`.
        Self {
            operations: Operations(operations),
        }
    }

    /// What is behind `file`, if it is a file of the device.
    fn note(&self, file: &File) -> Option<Arc<Note>> {
        // SAFETY: Neither changes while the file is open.
        let (operations, private) = unsafe {
            let file = file.as_ptr();
            ((*file).f_op, (*file).private_data)
        };
        if operations != self.operations.0 {
            return None;
        }
        // SAFETY: By the invariant of `Operations`, an `Arc<Note>`, and the file keeps it.
        let note: ArcBorrow<'_, Note> = unsafe { Arc::borrow(private) };
        Some(note.into())
    }

    /// Makes a file of `note`, as if the device had been opened.
    fn file(&self, note: Arc<Note>) -> Result<ARef<File>> {
        let private = note.into_foreign();
        // SAFETY: The name ends with a zero, the operations are static, and by the invariant of
        // `Operations` the private data is what they want.
        let file = from_err_ptr(unsafe {
            bindings::anon_inode_getfile(
                c"luo-sample-rust".as_char_ptr(),
                self.operations.0,
                private,
                bindings::O_RDWR as c_int,
            )
        });
        let file = file.inspect_err(|_| {
            // SAFETY: No file was made that could have taken it over.
            drop(unsafe { Arc::<Note>::from_foreign(private) });
        })?;
        // SAFETY: The file is new: its one reference becomes that of the `ARef`, and nobody is
        // inside fdget_pos().
        Ok(unsafe { ARef::from_raw(NonNull::new(file).ok_or(ENOMEM)?.cast()) })
    }
}

impl FileHandler for NoteHandler {
    fn compatible(&self) -> Compatible {
        const { Compatible::from_str("luo-sample-rust-v1") }
    }

    fn can_preserve(&self, file: &File) -> bool {
        self.note(file).is_some()
    }

    fn preserve(&self, file: &ARef<File>) -> Result<KBox<dyn PreservedFile>> {
        let preserved = KBox::pin_init(
            try_pin_init!(PreservedNote {
                note: self.note(file).ok_or(EINVAL)?,
                page <- new_mutex!(PreservedPage::new()?),
            }),
            GFP_KERNEL_ACCOUNT,
        )?;
        Ok(KBox::new(Pinned(preserved), GFP_KERNEL_ACCOUNT)?)
    }

    fn retrieve(&self, data: u64) -> Result<ARef<File>, NotRetrieved> {
        let NoteSer { writes, note } = page::take(data)?;
        Ok(self.file(Note::new(Content { writes, note })?)?)
    }

    fn finish(&self, data: u64, outcome: &Outcome) {
        // The page was taken by `retrieve`, or there was nobody to ask for it.
        if let Outcome::Pending = outcome {
            let _ = page::take::<NoteSer>(data);
        }
    }
}

/// A file that is preserved. It can be written to until it is frozen.
#[pin_data]
struct PreservedNote {
    note: Arc<Note>,
    #[pin]
    page: Mutex<PreservedPage>,
}

/// A lock does not move.
struct Pinned(Pin<KBox<PreservedNote>>);

impl PreservedFile for Pinned {
    /// A device that cannot be stopped just now says so here, while there is time: the sample is busy
    /// when its note says so.
    fn prepare(&self) -> Result {
        if self.0.note.content().text() == b"busy" {
            return Err(EBUSY);
        }
        Ok(())
    }

    fn freeze(&self) -> Result<u64> {
        let Content { writes, note } = self.0.note.content();
        let mut page = self.0.page.lock();
        page.write(&NoteSer { writes, note })?;
        Ok(page.phys())
    }
}

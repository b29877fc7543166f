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
    sync::{aref::ARef, Arc, ArcBorrow, Mutex, SetOnce},
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
pub(crate) struct NoteHandler;

/// What tells them from other files, as soon as there is a device: until then the module's init may
/// fail, and no file may refer to it.
static OPERATIONS: SetOnce<Operations> = SetOnce::new();

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
    /// From now on there are files, those of `device`.
    pub(crate) fn begin(device: &MiscDeviceRegistration<Note>) {
        // SAFETY: The device is registered, so that nobody changes it.
        let operations = unsafe { (*device.as_raw()).fops };
        // INVARIANT: Those of a device whose `Ptr` is `Arc<Note>`.
        OPERATIONS.populate(Operations(operations));
    }

    /// What is behind `file`, if it is a file of the device.
    fn note(file: &File) -> Option<Arc<Note>> {
        // SAFETY: Neither changes while the file is open.
        let (operations, private) = unsafe {
            let file = file.as_ptr();
            ((*file).f_op, (*file).private_data)
        };
        if operations != OPERATIONS.as_ref()?.0 {
            return None;
        }
        // SAFETY: By the invariant of `Operations`, an `Arc<Note>`, and the file keeps it.
        let note: ArcBorrow<'_, Note> = unsafe { Arc::borrow(private) };
        Some(note.into())
    }

    /// Makes a file of `note`, as if the device had been opened. Before there is one, says what is
    /// said where there is no handler.
    fn file(note: Arc<Note>) -> Result<ARef<File>> {
        let operations = OPERATIONS.as_ref().ok_or(ENOENT)?;
        let private = note.into_foreign();
        // SAFETY: The name ends with a zero, the operations are static, and by the invariant of
        // `Operations` the private data is what they want.
        let file = from_err_ptr(unsafe {
            bindings::anon_inode_getfile(
                c"luo-sample-rust".as_char_ptr(),
                operations.0,
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
        Self::note(file).is_some()
    }

    fn preserve(&self, file: &ARef<File>) -> Result<KBox<dyn PreservedFile>> {
        let preserved = KBox::pin_init(
            try_pin_init!(PreservedNote {
                note: Self::note(file).ok_or(EINVAL)?,
                page <- new_mutex!(PreservedPage::new()?),
            }),
            GFP_KERNEL_ACCOUNT,
        )?;
        Ok(KBox::new(Pinned(preserved), GFP_KERNEL_ACCOUNT)?)
    }

    fn retrieve(&self, data: u64) -> Result<ARef<File>, NotRetrieved> {
        // Up to where the page is taken all is as it was, and it can be tried again.
        let taker = Note::new(Content::NOTHING).map_err(NotRetrieved::Untouched)?;
        let file = Self::file(taker.clone()).map_err(NotRetrieved::Untouched)?;
        let NoteSer { writes, note } = page::take(data)?;
        *taker.content.lock() = Content { writes, note };
        Ok(file)
    }

    fn can_finish(&self, _data: u64, _outcome: &Outcome) -> bool {
        // As long as init may fail, nothing comes to an end either.
        OPERATIONS.as_ref().is_some()
    }

    fn finish(&self, data: u64, outcome: &Outcome) {
        // Otherwise `retrieve` has taken the page, or found none.
        if let Outcome::Pending = outcome {
            let _ = page::take::<NoteSer>(data);
        }
    }
}

/// A file that is preserved. What is written to it after it was frozen does not go along; whoever
/// starts the next kernel pauses the workload before.
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

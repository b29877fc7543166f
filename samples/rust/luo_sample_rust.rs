// SPDX-License-Identifier: GPL-2.0

//! A device whose open files survive a live update, in Rust.
//!
//! A file of `/dev/luo-sample-rust` holds a note: writing replaces it, and reading gives how often
//! this file was written to, how often all files together were, and the note. Put into a session
//! of `/dev/liveupdate`, the file arrives in the next kernel with all of that:
//!
//! - [`handler`]: what is done to preserve a file, and to make it anew;
//! - [`total`]: what all files share, an FLB;
//! - [`page`]: memory that goes to the next kernel;
//! - here: the device, which knows nothing of all this.

mod handler;
mod page;
mod total;

use handler::NoteHandler;
use kernel::{
    fs::{File, Kiocb},
    iov::{IovIterDest, IovIterSource},
    miscdevice::{MiscDevice, MiscDeviceOptions, MiscDeviceRegistration},
    new_mutex,
    prelude::*,
    str::{BStr, CString},
    sync::{Arc, Mutex},
};
use luo::{flb, handler::Registration};
use total::Total;

module! {
    type: SampleModule,
    name: "luo_sample_rust",
    authors: ["The developers of the Rust Live Update Orchestrator"],
    description: "A device whose open files survive a live update",
    license: "GPL",
}

/// The module. What is declared first ends first.
#[pin_data]
struct SampleModule {
    _total: flb::Registration<Total>,
    _handler: Registration,
    #[pin]
    device: MiscDeviceRegistration<Note>,
}

impl kernel::InPlaceModule for SampleModule {
    fn init(module: &'static ThisModule) -> impl PinInit<Self, Error> {
        // The kernel frees a module whose init fails at once, whoever refers to it. So the device is
        // the last that may fail, and before there is one the handler makes no files.
        try_pin_init!(Self {
            _handler: Registration::new(KBox::new(NoteHandler, GFP_KERNEL)?, module)?,
            _total: Total::register(module, _handler)?,
            device <- MiscDeviceRegistration::register(MiscDeviceOptions {
                name: c"luo-sample-rust",
            }),
            _: {
                NoteHandler::begin(&device);
                total::go_on(_total);
            },
        })
    }
}

/// The longest note, in bytes.
const NOTE_SIZE: usize = 48;

/// What a file has to say.
#[derive(Clone, Copy)]
struct Content {
    /// How often the file was written to.
    writes: u64,
    /// The note, filled up with zeroes.
    note: [u8; NOTE_SIZE],
}

/// What is behind a file of the device.
#[pin_data]
struct Note {
    #[pin]
    content: Mutex<Content>,
}

impl Note {
    /// A file with this content.
    fn new(content: Content) -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                content <- new_mutex!(content),
            }),
            GFP_KERNEL_ACCOUNT,
        )
    }

    /// What the file has to say now.
    fn content(&self) -> Content {
        *self.content.lock()
    }
}

impl Content {
    /// What a new file has to say.
    const NOTHING: Self = Self {
        writes: 0,
        note: [0; NOTE_SIZE],
    };

    /// The note, without what fills it up.
    fn text(&self) -> &[u8] {
        let len = self.note.iter().position(|&byte| byte == 0);
        self.note
            .get(..len.unwrap_or(NOTE_SIZE))
            .unwrap_or_default()
    }
}

#[vtable]
impl MiscDevice for Note {
    type Ptr = Arc<Self>;

    fn open(_file: &File, _misc: &MiscDeviceRegistration<Self>) -> Result<Arc<Self>> {
        Self::new(Content::NOTHING)
    }

    fn read_iter(mut kiocb: Kiocb<'_, Self::Ptr>, iov: &mut IovIterDest<'_>) -> Result<usize> {
        let content = kiocb.file().content();
        let line = CString::try_from_fmt(fmt!(
            "{} {} {}\n",
            content.writes,
            total::of_all_files(),
            BStr::from_bytes(content.text())
        ))?;
        iov.simple_read_from_buffer(kiocb.ki_pos_mut(), line.to_bytes())
    }

    fn write_iter(kiocb: Kiocb<'_, Self::Ptr>, iov: &mut IovIterSource<'_>) -> Result<usize> {
        let mut note = [0; NOTE_SIZE];
        let len = iov.len();
        let room = note.get_mut(..len).ok_or(EMSGSIZE)?;
        if iov.copy_from_iter(room) != len {
            return Err(EFAULT);
        }
        let file = kiocb.file();
        let mut content = file.content.lock();
        content.note = note;
        content.writes += 1;
        total::add_one();
        Ok(len)
    }
}

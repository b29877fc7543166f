// SPDX-License-Identifier: GPL-2.0

//! The recorder's third kind of files, whose handler and FLB are written in Rust: that interface has
//! PREPARE, which C's does not.
//!
//! Files of `/dev/luo-recorder-c` are called c1 and so on in the record, their FLB "z". The record,
//! and what is to fail, are those of `luo_recorder` (see recorder.h): "prepare c1", "z.preserve".
//!
//! Who writes "unlink" into a file of the device has the FLB unregistered, and registered again by
//! "link", for files that are preserved from then on of no handler.

mod handler;
mod record;
mod shared;

use handler::RecHandler;
use kernel::{
    fs::{File, Kiocb},
    iov::{IovIterDest, IovIterSource},
    miscdevice::{MiscDevice, MiscDeviceOptions, MiscDeviceRegistration},
    prelude::*,
    str::CString,
    sync::{
        atomic::{Atomic, Relaxed},
        global_lock, Arc,
    },
    ModuleMetadata,
};
use luo::{flb, handler::Registration};
use shared::Shared;

module! {
    type: RecorderModule,
    name: "luo_recorder_rust",
    authors: ["The developers of the Rust Live Update Orchestrator"],
    description: "Records the callbacks of a live update, in Rust",
    license: "GPL",
}

global_lock! {
    // SAFETY: Initialized in the module's init, before anything else.
    unsafe(uninit) static SHARED: Mutex<Option<flb::Registration<Shared>>> = None;
}

/// The FLB, which is registered when this is dropped at the latest no more.
struct SharedUntilDrop;

impl Drop for SharedUntilDrop {
    fn drop(&mut self) {
        SHARED.lock().take();
    }
}

/// The module. What is declared first ends first.
#[pin_data]
struct RecorderModule {
    _shared: SharedUntilDrop,
    _handler: Registration,
    #[pin]
    device: MiscDeviceRegistration<RecFile>,
}

impl kernel::InPlaceModule for RecorderModule {
    fn init(module: &'static ThisModule) -> impl PinInit<Self, Error> {
        // SAFETY: Once, and nobody has used it.
        unsafe { SHARED.init() };
        try_pin_init!(&this in Self {
            device <- MiscDeviceRegistration::register(MiscDeviceOptions {
                name: c"luo-recorder-c",
            }),
            _handler: {
                // SAFETY: The device was initialized just before.
                let device = unsafe { &(*this.as_ptr()).device };
                Registration::new(KBox::new(RecHandler::new(device), GFP_KERNEL)?, module)?
            },
            _shared: {
                *SHARED.lock() = Some(flb::Registration::new(Shared, module, &[_handler])?);
                SharedUntilDrop
            },
        })
    }
}

/// What is behind a file of the device: its number.
struct RecFile(Atomic<u64>);

impl RecFile {
    /// A file of this number.
    fn new(id: u64) -> Result<Arc<Self>> {
        Ok(Arc::new(Self(Atomic::new(id)), GFP_KERNEL)?)
    }

    /// The file's number.
    fn id(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

#[vtable]
impl MiscDevice for RecFile {
    type Ptr = Arc<Self>;

    fn open(_file: &File, _misc: &MiscDeviceRegistration<Self>) -> Result<Arc<Self>> {
        Self::new(0)
    }

    fn read_iter(mut kiocb: Kiocb<'_, Self::Ptr>, iov: &mut IovIterDest<'_>) -> Result<usize> {
        let line = CString::try_from_fmt(fmt!("{}\n", kiocb.file().id()))?;
        iov.simple_read_from_buffer(kiocb.ki_pos_mut(), line.to_bytes())
    }

    fn write_iter(kiocb: Kiocb<'_, Self::Ptr>, iov: &mut IovIterSource<'_>) -> Result<usize> {
        let mut digits = [0; 20];
        let len = iov.len();
        let digits = digits.get_mut(..len).ok_or(EINVAL)?;
        if iov.copy_from_iter(digits) != len {
            return Err(EFAULT);
        }
        match core::str::from_utf8(digits).map_err(|_| EINVAL)? {
            "unlink" => *SHARED.lock() = None,
            "link" => {
                let module = &<RecorderModule as ModuleMetadata>::THIS_MODULE;
                *SHARED.lock() = Some(flb::Registration::new(Shared, module, &[])?);
            }
            text => {
                let id = text.parse().map_err(|_| EINVAL)?;
                kiocb.file().0.store(id, Relaxed);
            }
        }
        Ok(len)
    }
}

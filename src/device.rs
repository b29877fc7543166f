// SPDX-License-Identifier: GPL-2.0

//! `/dev/liveupdate`: makes sessions, and gives back those of the previous kernel.

use crate::{
    flb,
    handover::luo::SessionName,
    memfd,
    session::{IncomingRegistry, OutgoingRegistry},
    uapi::{self, GetInfo, Listings, NamedSession, Range, Request},
};
use kernel::{
    fs::{
        file::{flags::O_CLOEXEC, FileDescriptorReservation},
        File,
    },
    miscdevice::{MiscDevice, MiscDeviceOptions, MiscDeviceRegistration},
    prelude::*,
    sync::{
        atomic::{Atomic, Full, Release},
        global_lock, Arc,
    },
};

/// How the device is registered.
pub(crate) const OPTIONS: MiscDeviceOptions = MiscDeviceOptions {
    name: c"liveupdate",
};

/// The commands of the device.
const COMMANDS: Range = Range {
    first: 0x00,
    last: 0x01,
};

/// Those that the kernel's own orchestrator does not have.
const EXTENSIONS: Range = Range {
    first: 0xA0,
    last: 0xA1,
};

/// Name and version, for GET_INFO.
const IMPLEMENTATION: &str = "luo.ko 0.1";

/// What the build adds to the version: `make LUO_EXTRAVERSION=`.
const EXTRAVERSION: &str = match option_env!("LUO_EXTRAVERSION") {
    Some(extra) => extra,
    None => "",
};

// With the zero at the end.
const _: () = assert!(IMPLEMENTATION.len() + EXTRAVERSION.len() < 32);

/// All sessions.
#[derive(Clone)]
pub(crate) struct Sessions {
    /// How many live updates there have been.
    pub(crate) liveupdate_num: u64,
    /// Those that the kexec will hand over.
    pub(crate) outgoing: Arc<OutgoingRegistry>,
    /// Those that the previous kernel handed over.
    pub(crate) incoming: Arc<IncomingRegistry>,
}

global_lock! {
    // SAFETY: Initialized in the module's init, before anything else.
    unsafe(uninit) static SESSIONS: Mutex<Option<Sessions>> = None;
}

/// Makes the registry ready for use.
///
/// # Safety
///
/// To be called once, before anything else of this file.
pub(crate) unsafe fn init() {
    // SAFETY: By the contract of this function.
    unsafe { SESSIONS.init() };
}

impl Sessions {
    /// The sessions of this kernel, while the module is in operation.
    pub(crate) fn get() -> Result<Self> {
        SESSIONS.lock().clone().ok_or(ENODEV)
    }

    /// Puts the module into operation, until the guard is dropped.
    pub(crate) fn publish(self) -> Published {
        *SESSIONS.lock() = Some(self);
        Published
    }
}

/// Keeps [`Sessions::get`] working.
pub(crate) struct Published;

impl Drop for Published {
    fn drop(&mut self) {
        flb::Table::set_incoming(None);
        let sessions = SESSIONS.lock().take();
        if let Some(sessions) = sessions {
            sessions.incoming.clear();
        }
    }
}

/// Set while the device is open.
static IN_USE: Atomic<bool> = Atomic::new(false);

/// The right to have the device open.
///
/// # Invariants
///
/// [`IN_USE`] is set, by this.
struct ExclusiveOpen(());

impl ExclusiveOpen {
    fn take() -> Result<Self> {
        // INVARIANT: It was not set before.
        match IN_USE.cmpxchg(false, true, Full) {
            Ok(_) => Ok(Self(())),
            Err(_) => Err(EBUSY),
        }
    }
}

impl Drop for ExclusiveOpen {
    fn drop(&mut self) {
        IN_USE.store(false, Release);
    }
}

/// The device, opened.
#[pin_data]
pub(crate) struct Device {
    sessions: Sessions,
    #[pin]
    listings: Listings,
    _exclusive: ExclusiveOpen,
}

#[vtable]
impl MiscDevice for Device {
    type Ptr = Pin<KBox<Self>>;

    fn open(_file: &File, _misc: &MiscDeviceRegistration<Self>) -> Result<Self::Ptr> {
        KBox::try_pin_init(
            try_pin_init!(Self {
                _exclusive: ExclusiveOpen::take()?,
                sessions: Sessions::get()?,
                listings <- Listings::new(),
            }),
            GFP_KERNEL_ACCOUNT,
        )
    }

    fn ioctl(device: Pin<&Self>, _file: &File, cmd: u32, arg: usize) -> Result<isize> {
        let request = Request::new(cmd, arg, COMMANDS, EXTENSIONS)?;
        match request.cmd {
            uapi::CREATE_SESSION => device.create_session(&request)?,
            uapi::RETRIEVE_SESSION => device.retrieve_session(&request)?,
            uapi::GET_INFO => device.get_info(&request)?,
            uapi::LIST_SESSIONS => device.list_sessions(&request)?,
            _ => return Err(ENOTTY),
        }
        Ok(0)
    }
}

impl Device {
    /// CREATE_SESSION
    fn create_session(&self, request: &Request) -> Result {
        let mut arg: NamedSession = request.read()?;
        let fd = FileDescriptorReservation::get_unused_fd_flags(O_CLOEXEC)?;
        let name = SessionName::new(&arg.name).ok_or(EINVAL)?;
        let file = self.sessions.outgoing.create(name)?.file()?;
        arg.fd = fd.reserved_fd() as i32;
        // Should this fail, the file is closed, and the session gone with it.
        request.respond(&arg)?;
        fd.fd_install(file);
        Ok(())
    }

    /// GET_INFO
    fn get_info(&self, request: &Request) -> Result {
        let mut arg: GetInfo = request.read()?;
        arg.flags = 0;
        arg.features = 0;
        arg.liveupdate_num = self.sessions.liveupdate_num;
        arg.implementation = [0; 32];
        let implementation = Iterator::chain(IMPLEMENTATION.bytes(), EXTRAVERSION.bytes());
        for (to, from) in arg.implementation.iter_mut().zip(implementation) {
            *to = from;
        }
        arg.memfd_format = *memfd::Format::chosen().compatible().as_array();
        request.respond(&arg)
    }

    /// LIST_SESSIONS
    fn list_sessions(&self, request: &Request) -> Result {
        self.listings.respond(request, |window| {
            self.sessions.outgoing.list(window)?;
            self.sessions.incoming.list(window)
        })
    }

    /// RETRIEVE_SESSION
    fn retrieve_session(&self, request: &Request) -> Result {
        let mut arg: NamedSession = request.read()?;
        let fd = FileDescriptorReservation::get_unused_fd_flags(O_CLOEXEC)?;
        let name = SessionName::new(&arg.name).ok_or(ENOENT)?;
        let session = self.sessions.incoming.retrieve(&name)?;
        let file = session.file()?;
        arg.fd = fd.reserved_fd() as i32;
        // Should this fail, the file is closed, and the session can be retrieved again.
        request.respond(&arg)?;
        session.set_known();
        fd.fd_install(file);
        Ok(())
    }
}

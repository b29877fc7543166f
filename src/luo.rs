// SPDX-License-Identifier: GPL-2.0

//! The Live Update Orchestrator: keeps file descriptors over a kexec.
//!
//! User space puts files into sessions through `/dev/liveupdate`; `reboot(LINUX_REBOOT_CMD_KEXEC)`
//! freezes them and leaves them in memory that Kexec HandOver preserves; in the next kernel user
//! space takes them out again. The way of an ioctl goes through these rooms:
//!
//! [`device`] or session file ([`anon_file`]) -> [`uapi`] -> [`session`] -> [`mod@file`] -> [`handler`]
//! (as [`memfd`]) -> [`kho`], with the layouts in [`handover`].

mod anon_file;
mod capi;
mod debugfs;
mod device;
mod fault;
mod file;
pub mod flb;
pub mod handler;
mod handover;
mod incoming;
mod kexec;
mod kho;
mod log;
mod memfd;
mod module_ref;
mod ordered_map;
mod session;
mod static_list;
mod task;
mod trace;
mod uapi;

pub use handover::luo::Compatible;

use device::{Device, Published, Sessions};
use kernel::{
    miscdevice::MiscDeviceRegistration,
    module::this_module,
    prelude::*,
    sync::{
        atomic::{Acquire, Atomic, Release},
        global_lock,
    },
};
use kexec::{KexecNotifier, KexecPrepare};
use log::warn_limited;
use module_ref::ModuleRef;
use session::{IncomingRegistry, OutgoingRegistry};

module! {
    type: LuoModule,
    name: "luo",
    authors: ["The developers of the Rust Live Update Orchestrator"],
    description: "Live Update Orchestrator",
    license: "GPL",
    params: {
        memfd_v2: bool {
            default: false,
            description: "Hand memfds over as memfd-v2, for a next kernel with no other orchestrator than its own",
        },
    },
}

/// The module in operation. What is declared first ends first.
#[pin_data]
struct LuoModule {
    #[pin]
    _device: MiscDeviceRegistration<Device>,
    _debugfs: debugfs::DebugFs,
    _c_interface: capi::Enabled,
    _memfd: memfd::Registrations,
    _sessions: Published,
    #[pin]
    _kexec: KexecNotifier<Kexec>,
    _faults: fault::Controls,
}

impl kernel::InPlaceModule for LuoModule {
    fn init(module: &'static ThisModule) -> impl PinInit<Self, Error> {
        // SAFETY: This is called once, and before anything else.
        unsafe {
            kho::init();
            device::init();
            capi::init();
            file::init();
            flb::init();
            handler::init();
            STAYS.init();
        }
        try_pin_init!(Self {
            _faults: fault::Controls::new(),
            _: { check_kho()? },
            // Before anything that the kernel's own orchestrator has, too.
            _kexec <- KexecNotifier::register(),
            _sessions: open_sessions()?.publish(),
            _memfd: memfd::register(module)?,
            _c_interface: capi::Enabled::new(),
            _: { fault::point()? },
            // Last of what may fail: from here on user space comes in.
            _device <- MiscDeviceRegistration::register(device::OPTIONS),
            _debugfs: debugfs::DebugFs::new(),
            _: { READY.store(true, Release) },
        })
    }
}

/// Says why the module is of no use without KHO.
fn check_kho() -> Result {
    if !kho::is_enabled() {
        pr_err!("Kexec HandOver is off: boot with kho=on, or see above why it is off in spite of that\n");
        return Err(EOPNOTSUPP);
    }
    Ok(())
}

/// Finds what the previous kernel left, and gets ready to leave something to the next one.
fn open_sessions() -> Result<Sessions> {
    let mut found = incoming::Found::look()?;
    let liveupdate_num = found.liveupdate_num;
    let flbs = found.flbs.take();
    let sessions = Sessions {
        liveupdate_num,
        outgoing: OutgoingRegistry::new(liveupdate_num.saturating_add(1))?,
        incoming: IncomingRegistry::new(found)?,
    };
    if liveupdate_num != 0 {
        pr_info!(
            "live update number {}: {} sessions were handed over\n",
            liveupdate_num,
            sessions.incoming.len()
        );
    }
    // Last, as nothing may fail after it: it is `Published` that takes this back.
    flb::Table::set_incoming(flbs);
    Ok(sessions)
}

/// Whether nothing of the module's init can fail any more.
static READY: Atomic<bool> = Atomic::new(false);

global_lock! {
    // SAFETY: Initialized in the module's init, before anything else.
    unsafe(uninit) static STAYS: Mutex<Option<ModuleRef>> = None;
}

/// What this module does in a kexec.
struct Kexec;

impl KexecPrepare for Kexec {
    fn prepare(hands_over: bool) -> Result {
        // One that comes or goes does not know yet, or not any more, what is to be handed over. Once
        // it has said that all is, it stays: to go it would change what the next kernel reads.
        let module =
            ModuleRef::get(this_module::<LuoModule>().into()).filter(|_| READY.load(Acquire));
        let (Ok(sessions), Some(module)) = (Sessions::get(), module) else {
            warn_limited!("the kexec is refused: luo.ko is being loaded or unloaded, try again\n");
            return Err(EBUSY);
        };
        sessions.outgoing.freeze(hands_over)?;
        sessions.incoming.warn_of_loss();
        *STAYS.lock() = Some(module);
        Ok(())
    }

    fn abort() {
        if let Ok(sessions) = Sessions::get() {
            sessions.outgoing.unfreeze();
        }
        *STAYS.lock() = None;
    }
}

// SPDX-License-Identifier: GPL-2.0

//! Taking part in a kexec while it can still fail.
//!
//! C header: `include/linux/kexec.h`, with the project's patches.

use crate::fault;
use core::marker::{PhantomData, PhantomPinned};
use kernel::{bindings, error::to_result, prelude::*, types::Opaque};

/// What happens in `reboot(LINUX_REBOOT_CMD_KEXEC)` before the point of no return.
pub(crate) trait KexecPrepare: 'static {
    /// Gets ready to leave this kernel; an error fails the reboot() with its errno. `hands_over` is
    /// whether the next kernel learns of what KHO preserves.
    ///
    /// Context: may sleep. User space still runs.
    fn prepare(hands_over: bool) -> Result;

    /// Undoes a successful [`Self::prepare`]: the kexec does not take place.
    fn abort();
}

/// A registration of `T`, until it is dropped.
///
/// # Invariants
///
/// `block` is registered with the kexec prepare chain.
#[pin_data(PinnedDrop)]
pub(crate) struct KexecNotifier<T: KexecPrepare> {
    #[pin]
    block: Opaque<bindings::notifier_block>,
    #[pin]
    _pin: PhantomPinned,
    _callbacks: PhantomData<T>,
}

// SAFETY: The notifier block is touched by the chain alone, under the chain's own lock.
unsafe impl<T: KexecPrepare> Send for KexecNotifier<T> {}
// SAFETY: There is nothing to do with a shared reference.
unsafe impl<T: KexecPrepare> Sync for KexecNotifier<T> {}

impl<T: KexecPrepare> KexecNotifier<T> {
    /// Registers `T`. Fails with `EBUSY` while the kernel's own orchestrator is enabled, and with
    /// `EAGAIN` once a kexec has begun, which may not call it any more.
    pub(crate) fn register() -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            block <- Opaque::try_ffi_init(|slot: *mut bindings::notifier_block| {
                let block = bindings::notifier_block {
                    notifier_call: Some(Self::notify),
                    ..pin_init::zeroed()
                };
                // SAFETY: `slot` is valid for writes, and is pinned until Drop.
                unsafe { slot.write(block) };
                fault::point()?;
                // SAFETY: The block stays in place and valid until it is unregistered in Drop.
                to_result(unsafe { bindings::register_kexec_prepare_notifier(slot) })
                    .inspect_err(|&err| explain(err))
            }),
            _pin: PhantomPinned,
            _callbacks: PhantomData,
        })
    }

    /// The callback of the chain: `image` is the next kernel's.
    extern "C" fn notify(
        _block: *mut bindings::notifier_block,
        event: c_ulong,
        image: *mut c_void,
    ) -> c_int {
        if event == bindings::kexec_prepare_event_KEXEC_PREPARE as c_ulong {
            // SAFETY: The chain is called with the image that is loaded, and which stays while the kexec
            // is under way: kernel_kexec() holds the lock for that.
            let fdt = unsafe { (*image.cast::<bindings::kimage>()).kho.fdt };
            // Only kexec_file_load() lets an image know of what KHO has.
            if let Err(err) = T::prepare(fdt != 0) {
                // As notifier_from_errno() does.
                return bindings::NOTIFY_STOP_MASK as c_int
                    | (bindings::NOTIFY_OK as c_int - err.to_errno());
            }
        } else {
            T::abort();
        }
        bindings::NOTIFY_OK as c_int
    }
}

/// Says why nobody can take part in a kexec.
fn explain(err: Error) {
    if err == EBUSY {
        pr_err!(
            "the kernel's own orchestrator is on: boot without liveupdate=on to use this one\n"
        );
    } else if err == EAGAIN {
        pr_err!("a kexec has begun: what is made now would not be handed over\n");
    }
}

#[pinned_drop]
impl<T: KexecPrepare> PinnedDrop for KexecNotifier<T> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: By the type invariant it is registered. On return no callback is running.
        unsafe { bindings::unregister_kexec_prepare_notifier(self.block.get()) };
    }
}

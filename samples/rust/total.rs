// SPDX-License-Identifier: GPL-2.0

//! What all files share: how often they were written to, through all kernels. It is handed over as
//! an FLB, with the first file and until the last.

use kernel::{
    prelude::*,
    sync::atomic::{Atomic, Relaxed},
};
use luo::{
    flb::{Flb, Registration},
    handler, Compatible,
};

/// How often any file was written to.
static TOTAL: Atomic<u64> = Atomic::new(0);

/// How often all files together were written to.
pub(crate) fn of_all_files() -> u64 {
    TOTAL.load(Relaxed)
}

/// A file was written to.
pub(crate) fn add_one() {
    TOTAL.fetch_add(1, Relaxed);
}

/// The FLB.
pub(crate) struct Total;

impl Total {
    /// Registers the FLB for the files of `handler`.
    pub(crate) fn register(
        module: &'static ThisModule,
        handler: &handler::Registration,
    ) -> Result<Registration<Self>> {
        Registration::new(Self, module, &[handler])
    }
}

/// Goes on from what the previous kernel handed over, if it did, without waiting for user space. To be
/// called when the module's init cannot fail any more: what is asked for refers to the module.
pub(crate) fn go_on(registration: &Registration<Total>) {
    let before = registration
        .incoming()
        .and_then(|previous| previous.with(|&Before(total)| total));
    match before {
        // The device is there: files may have been written to already.
        Ok(total) => {
            TOTAL.fetch_add(total, Relaxed);
        }
        // After a cold boot, or without any file.
        Err(err) if err == ENODATA || err == ENOENT => {}
        // The handler is wanted all the same: who else finishes the files?
        Err(err) => pr_warn!("what the previous kernel counted is lost: {:?}\n", err),
    }
}

/// The state in the old kernel: the number itself is elsewhere.
pub(crate) struct HandOn;

/// The state in the new kernel: how often files were written to before.
pub(crate) struct Before(u64);

impl Flb for Total {
    type Outgoing = HandOn;
    type Incoming = Before;

    fn compatible(&self) -> Compatible {
        const { Compatible::from_str("luo-sample-rust-total-v1") }
    }

    fn preserve(&self) -> Result<HandOn> {
        Ok(HandOn)
    }

    /// One number needs no memory. What needs some is allocated in `preserve`, and found by its
    /// address, as in [`crate::handler`].
    fn data(&self, _state: &HandOn) -> u64 {
        of_all_files()
    }

    fn retrieve(&self, data: u64) -> Result<Before> {
        Ok(Before(data))
    }

    fn finish(&self, _state: Before) {}
}

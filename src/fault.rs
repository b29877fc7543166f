// SPDX-License-Identifier: GPL-2.0

//! Points at which a step can be made to fail, to see that what was done before it is undone.
//!
//! A point is before each step that may fail for want of something, and is not an allocation: those,
//! the kernel's own fault injection finds by itself. What fails because somebody was killed, or where
//! the previous kernel's data is damaged, has other tests. Points are compiled in with `LIVEUPDATE_RUST_FAULT_INJECTION`, out of a
//! kernel's tree by `make FAULTS=1`, and are nothing without it. Which of them fail is said in
//! `/proc/PID/fail-nth`, where they count together with the kernel's, or in
//! `/sys/kernel/debug/fail_luo`: see the kernel's `Documentation/fault-injection`.
//!
//! C header: `include/linux/fault-inject.h`.

use kernel::prelude::*;

#[cfg(CONFIG_LIVEUPDATE_RUST_FAULT_INJECTION)]
mod attr {
    extern "C" {
        pub(super) fn luo_fault_init();
        pub(super) fn luo_fault_exit();
        pub(super) fn luo_should_fail() -> bool;
    }
}

/// A step that may fail comes next. Fails with `EIO` if it is to.
///
/// Context: any.
#[cfg(CONFIG_LIVEUPDATE_RUST_FAULT_INJECTION)]
pub(crate) fn point() -> Result {
    // SAFETY: The function may be called from anywhere, at any time.
    if unsafe { attr::luo_should_fail() } {
        return Err(EIO);
    }
    Ok(())
}

/// A step that may fail comes next. Here it is not made to.
#[cfg(not(CONFIG_LIVEUPDATE_RUST_FAULT_INJECTION))]
#[inline(always)]
pub(crate) fn point() -> Result {
    Ok(())
}

/// `/sys/kernel/debug/fail_luo`, until this is dropped.
pub(crate) struct Controls(());

impl Controls {
    /// Makes the folder. That there is no debugfs is no error.
    pub(crate) fn new() -> Self {
        // SAFETY: The module has one of these, which is dropped before it makes another one.
        #[cfg(CONFIG_LIVEUPDATE_RUST_FAULT_INJECTION)]
        unsafe {
            attr::luo_fault_init()
        };
        Self(())
    }
}

impl Drop for Controls {
    fn drop(&mut self) {
        // SAFETY: The folder was made in `new`.
        #[cfg(CONFIG_LIVEUPDATE_RUST_FAULT_INJECTION)]
        unsafe {
            attr::luo_fault_exit()
        };
    }
}

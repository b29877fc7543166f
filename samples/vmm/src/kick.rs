// SPDX-License-Identifier: GPL-2.0

//! Gets a thread out of KVM_RUN, or keeps it from getting in.
//!
//! A signal alone may come a moment before KVM_RUN and be lost. Its handler therefore sets `immediate_exit`, which KVM
//! looks at after it has begun to wait for signals: whenever the signal comes, the next KVM_RUN to end or to begin ends
//! with EINTR.

use anyhow::Result;
use kvm_bindings::kvm_run;
use libc::{c_int, c_void, siginfo_t};
use std::cell::Cell;
use std::thread::JoinHandle;
use vmm_sys_util::signal::{register_signal_handler, Killable, SIGRTMIN};

thread_local! {
    /// Where this thread's vCPU and KVM talk to each other.
    static RUN: Cell<*mut kvm_run> = const { Cell::new(std::ptr::null_mut()) };
}

extern "C" fn on_kick(_: c_int, _: *mut siginfo_t, _: *mut c_void) {
    let run = RUN.get();
    if !run.is_null() {
        // SAFETY: `Target` keeps this pointer here only while it is valid; the byte is the one that KVM means for this.
        unsafe { (&raw mut (*run).immediate_exit).write_volatile(1) };
    }
}

/// Once, before any [`kick`].
pub fn prepare() -> Result<()> {
    Ok(register_signal_handler(SIGRTMIN(), on_kick)?)
}

/// Makes the thread's KVM_RUN end.
pub fn kick<T>(thread: &JoinHandle<T>) -> Result<()> {
    Ok(thread.kill(SIGRTMIN())?)
}

/// While it exists, kicks of this thread have an effect.
#[derive(Debug)]
pub struct Target(());

impl Target {
    /// # Safety
    ///
    /// The pointer must be valid until this value is dropped.
    pub unsafe fn new(run: *mut kvm_run) -> Self {
        RUN.set(run);
        Self(())
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        RUN.set(std::ptr::null_mut());
    }
}

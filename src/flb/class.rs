// SPDX-License-Identifier: GPL-2.0

//! The lock of a state of an FLB.

use core::ops::Deref;
use kernel::{
    prelude::*,
    str::CStr,
    sync::{LockClassKey, Mutex},
};

/// A mutex of a class of its own. A callback of an FLB, which is called with this locked, may ask for
/// another FLB: of two locks of one class lockdep would say that one is taken twice.
// The fields are dropped in this order: the mutex before its class.
#[pin_data]
pub(super) struct ClassedMutex<T> {
    #[pin]
    mutex: Mutex<T>,
    #[pin]
    class: LockClassKey,
}

impl<T> ClassedMutex<T> {
    /// A mutex that lockdep calls `name`.
    pub(super) fn new(value: T, name: &'static CStr) -> impl PinInit<Self> {
        pin_init!(&this in Self {
            class <- LockClassKey::new_dynamic(),
            mutex <- {
                // SAFETY: It was initialized just before, and is pinned. It need not be there for ever:
                // the only one who is given it is the mutex, which is dropped before.
                let class = unsafe { Pin::new_unchecked(&(*this.as_ptr()).class) };
                Mutex::new(value, name, class)
            },
        })
    }
}

impl<T> Deref for ClassedMutex<T> {
    type Target = Mutex<T>;

    fn deref(&self) -> &Self::Target {
        &self.mutex
    }
}

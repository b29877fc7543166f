// SPDX-License-Identifier: GPL-2.0

//! The gate before a session's lock: the kexec is let through first.

use kernel::{
    new_condvar, new_spinlock,
    prelude::*,
    sync::{CondVar, SpinLock},
};

/// What everybody passes before they take a lock, unless it is closed.
///
/// The kexec cannot wait for a session's lock in line, as it is to say whom it waits for, and to end
/// when it is killed. While it looks again and again, commands that come one after another would
/// always be there before it: so they wait here until it has the lock.
#[pin_data]
pub(super) struct Gate {
    #[pin]
    is_closed: SpinLock<bool>,
    /// Notified when `is_closed` becomes `false`.
    #[pin]
    opened: CondVar,
}

impl Gate {
    /// An open gate.
    pub(super) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            is_closed <- new_spinlock!(false),
            opened <- new_condvar!(),
        })
    }

    /// Returns when the gate is open.
    ///
    /// Context: may sleep.
    pub(super) fn pass(&self) {
        let mut is_closed = self.is_closed.lock();
        while *is_closed {
            self.opened.wait(&mut is_closed);
        }
    }

    /// Closes the gate until the guard is dropped.
    pub(super) fn close(&self) -> Closed<'_> {
        *self.is_closed.lock() = true;
        Closed(self)
    }
}

/// A closed gate. There is one kexec at a time, so that nobody else has closed it.
pub(super) struct Closed<'a>(&'a Gate);

impl Drop for Closed<'_> {
    fn drop(&mut self) {
        *self.0.is_closed.lock() = false;
        self.0.opened.notify_all();
    }
}

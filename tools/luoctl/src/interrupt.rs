// SPDX-License-Identifier: GPL-2.0

//! Ctrl-C and SIGTERM.

use crate::failure::{Failure, Result, Status};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

const SIGNALS: [i32; 3] = [SIGINT, SIGTERM, SIGHUP];

/// What the operator reads when he interrupts.
fn interrupted(state: &str) -> Failure {
    Failure::new(
        Status::Interrupted,
        format_args!("interrupted: {state}"),
        "run the same command again when you want to",
    )
}

fn unhandled(error: io::Error) -> Failure {
    Failure::io(
        "signal handling",
        error,
        "this should not happen: report it",
    )
}

/// Takes note of the signals, for work that has to be undone in an orderly way and asks for them.
#[derive(Clone, Debug)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// From now on signals do not end the program.
    pub fn watch() -> Result<Self> {
        let seen = Arc::new(AtomicBool::new(false));
        for signal in SIGNALS {
            signal_hook::flag::register(signal, Arc::clone(&seen)).map_err(unhandled)?;
        }
        Ok(Self(seen))
    }

    /// An error if there was one; `state` says how things stand then.
    pub fn check(&self, state: &str) -> Result<()> {
        match self.0.load(Ordering::Relaxed) {
            true => Err(interrupted(state)),
            false => Ok(()),
        }
    }
}

/// Ends the program at once when a signal comes, until it is disarmed. This is for work that the kernel undoes when the
/// process ends, also in the midst of a long system call.
#[derive(Debug)]
pub struct EndAtOnce(Arc<Mutex<bool>>);

impl EndAtOnce {
    /// `state` says how things stand then.
    pub fn arm(state: &'static str) -> Result<Self> {
        let armed = Arc::new(Mutex::new(true));
        let mut signals = Signals::new(SIGNALS).map_err(unhandled)?;
        let for_thread = Arc::clone(&armed);
        std::thread::spawn(move || {
            for _ in signals.forever() {
                // Held until the end: whoever disarms does it before or not at all.
                let armed = for_thread.lock().unwrap_or_else(PoisonError::into_inner);
                if *armed {
                    let failure = interrupted(state);
                    anstream::eprintln!("\r{failure}");
                    std::process::exit(failure.status as i32);
                }
            }
        });
        Ok(Self(armed))
    }

    /// From now on signals do nothing.
    pub fn disarm(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = false;
    }
}

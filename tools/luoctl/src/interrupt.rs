// SPDX-License-Identifier: GPL-2.0

//! Ctrl-C and SIGTERM.
//!
//! A thread waits for them, and all others block them: a handler would run in the main thread, which a system call on a
//! session may keep for long.

use crate::failure::{Failure, Result, Status};
use crate::output::complain;
use nix::sys::signal::{SigSet, Signal};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

fn signals() -> SigSet {
    SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP])
}

/// Lets signals wait, until this process is ready for them or ends. To be called before there are other threads.
pub fn block() -> Result<()> {
    let blocked = signals().thread_block();
    blocked.map_err(|errno| Failure::io("blocking signals", errno, "report this: it cannot be"))
}

/// Calls this whenever a signal comes, or if one waits.
fn on_signal(action: impl Fn() + Send + 'static) -> Result<()> {
    block()?;
    std::thread::spawn(move || {
        while signals().wait().is_ok() {
            action();
        }
    });
    Ok(())
}

/// Lets signals do to this process what they do by default. A program inherits what its parent had blocked.
pub fn unblock() {
    // It fails for a wrong argument only.
    let _ = signals().thread_unblock();
}

/// What the operator reads when he interrupts.
fn interrupted(state: &str) -> Failure {
    Failure::new(
        Status::Interrupted,
        format_args!("interrupted: {state}"),
        "run the same command again when you want to",
    )
}

/// Takes note of the signals, for work that has to be undone in an orderly way and asks for them.
#[derive(Clone, Debug)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// From now on signals do not end the program.
    pub fn watch() -> Result<Self> {
        let seen = Arc::new(AtomicBool::new(false));
        let by_thread = Arc::clone(&seen);
        on_signal(move || by_thread.store(true, Ordering::Relaxed))?;
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
pub struct EndAtOnce(Arc<Mutex<Plan>>);

/// What to do when a signal comes.
#[derive(Debug, Default)]
struct Plan {
    armed: bool,
    /// Files that are not complete yet, or not without the others.
    remove: Vec<PathBuf>,
}

impl EndAtOnce {
    /// `state` says how things stand then.
    pub fn arm(state: &'static str) -> Result<Self> {
        let plan = Arc::new(Mutex::new(Plan {
            armed: true,
            remove: Vec::new(),
        }));
        let by_thread = Arc::clone(&plan);
        on_signal(move || {
            // Held until the end: whoever changes the plan does it before or not at all.
            let plan = by_thread.lock().unwrap_or_else(PoisonError::into_inner);
            if plan.armed {
                for path in &plan.remove {
                    let _ = std::fs::remove_file(path);
                }
                let failure = interrupted(state);
                complain(format_args!("\r{failure}"));
                std::process::exit(failure.status as i32);
            }
        })?;
        Ok(Self(plan))
    }

    /// From now on signals do nothing.
    pub fn disarm(&self) {
        self.plan().armed = false;
    }

    /// This file is to be removed then, too.
    pub fn remove(&self, path: &Path) {
        self.plan().remove.push(path.into());
    }

    /// No file is to be removed any more.
    pub fn keep_all(&self) {
        self.plan().remove.clear();
    }

    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// SPDX-License-Identifier: GPL-2.0

//! Signals to commands that wait for another one. None ends such a wait or repeats the command, be it one with a handler
//! or SIGKILL: a process that is killed ends when its command is done. What SIGKILL ends early is the wait of reboot(),
//! and the command that others wait for, where its handler looks for that. See "Waits" in Documentation/security.rst.

mod gate;
mod incoming;
mod inode_lock;
mod kexec;
mod outgoing;
mod page_in_use;
mod registry;
mod rescan;

use super::common::luo::{Device, Session};
use super::common::modules::{Kind, Recorder};
use super::races::{wait_until_stuck, Doer, LONG};
use crate::ctx::Ctx;
use crate::process::{self, Said};
use crate::test::{Config, Test};
use anyhow::{ensure, Context, Result};
use nix::errno::Errno;
use nix::sys::signal::{kill, sigaction, SaFlags, SigAction, SigHandler, SigSet, Signal};
use nix::sys::wait::WaitStatus;
use std::fs::File;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The cases.
pub const TESTS: &[Test] = &[
    Test::new(
        "behind_preserve",
        Config::new(),
        &[outgoing::behind_preserve],
    ),
    Test::new("behind_flb", Config::new(), &[outgoing::behind_flb]),
    Test::new("flb_asked_for", Config::new(), &[outgoing::flb_asked_for]),
    Test::new(
        "behind_retrieve",
        Config::new(),
        &[incoming::hand_on, incoming::behind_retrieve],
    ),
    Test::new(
        "behind_finish",
        Config::new().look_for_leaks(),
        &[incoming::hand_on, incoming::behind_finish],
    ),
    Test::new(
        "behind_incoming_flb",
        Config::new(),
        &[incoming::hand_on, incoming::behind_flb],
    ),
    Test::new(
        "behind_can_preserve",
        Config::new(),
        &[incoming::hand_on, registry::behind_can_preserve],
    ),
    Test::new("behind_kexec", Config::new(), &[kexec::behind_kexec]),
    Test::new("behind_thaw", Config::new(), &[kexec::behind_thaw]),
    Test::new("closing_behind_kexec", Config::new(), &[kexec::closing]),
    Test::new("kexec", Config::new(), &[kexec::kexec_waits]),
    Test::new("killed_kexec", Config::new(), &[kexec::killed_kexec]),
    Test::new("at_gate", Config::new(), &[gate::until_reboot_fails]),
    Test::new(
        "at_gate_of_killed_kexec",
        Config::new(),
        &[gate::until_reboot_is_killed],
    ),
    Test::new("memfds_at_gate", Config::new(), &[gate::memfds]),
    Test::new(
        "finish_behind_inode_lock",
        Config::new(),
        &[inode_lock::hand_on, inode_lock::finish],
    ),
    Test::new(
        "close_behind_inode_lock",
        Config::new(),
        &[inode_lock::hand_on, inode_lock::close],
    ),
    Test::new(
        "preserve_behind_inode_lock",
        Config::new(),
        &[inode_lock::preserve],
    ),
    Test::new("beside_inode_lock", Config::new(), &[inode_lock::not_taken]),
    Test::new(
        "page_in_use",
        page_in_use::CONFIG,
        &[page_in_use::waited_for],
    ),
    Test::new("rescan_killed", rescan::CONFIG, &[rescan::killed]),
    Test::new(
        "rescan_killed_in_v2",
        rescan::CONFIG.params("memfd_v2=1"),
        &[rescan::killed],
    ),
];

/// What comes to those who wait: one that has a handler, and one that cannot have one.
const HANDLED: Signal = Signal::SIGUSR1;
const KILLED: Signal = Signal::SIGKILL;
pub const BOTH: [Signal; 2] = [HANDLED, KILLED];

/// How many came to this process.
static CAME: AtomicU64 = AtomicU64::new(0);

extern "C" fn count(_: libc::c_int) {
    CAME.fetch_add(1, Relaxed);
}

/// A child that issues a command, and says how it went, and how many signals came meanwhile.
pub fn command(act: impl FnOnce() -> Result<String, Errno>) -> Result<Doer> {
    Doer::new(|| {
        // Without SA_RESTART: a command that gave up would be seen.
        let handler = SigHandler::Handler(count);
        let action = SigAction::new(handler, SaFlags::empty(), SigSet::empty());
        // SAFETY: the handler only counts.
        unsafe { sigaction(HANDLED, &action) }?;
        let said = act().unwrap_or_else(|errno| format!("{errno:?}"));
        Ok(format!("{said}, signals: {}", CAME.load(Relaxed)))
    })
}

/// Sends a signal to a process that waits. It has to go on with that.
fn send(ctx: &Ctx, signal: Signal, to: &Doer) -> Result<()> {
    let pid = to.0.pid();
    wait_until_stuck(ctx, pid)?;
    kill(pid, signal)?;
    // Who sends one has woken up whom it is for, if it ends the wait.
    let state = process::state_of(pid);
    ensure!(state == Some('D'), "{signal:?} ends its wait: {state:?}");
    Ok(())
}

/// Fails unless a command is answered so, after a signal to a handler; or its process ends, having been killed.
pub fn ends(mut doer: Doer, signal: Signal, answer: &str) -> Result<()> {
    if signal != KILLED {
        return doer.says("the command", &format!("{answer}, signals: 1"));
    }
    let said = doer.0.listen(LONG)?;
    ensure!(said == Said::Ended, "killed, it says {said:?}");
    let end = doer.0.wait()?;
    ensure!(matches!(end, WaitStatus::Signaled(_, KILLED, _)), "{end:?}");
    Ok(())
}

/// What a command may be about.
struct Scene<'a> {
    device: &'a Device,
    session: Session,
    /// One that is in no session.
    file: File,
}

impl Scene<'_> {
    /// State, numbers of files, flags and tokens of the session, as it and LIST_SESSIONS tell them.
    fn told(&self) -> Result<String> {
        let (entries, _) = self.device.list_sessions(0, 64)?;
        let name = self.session.name()?;
        let entry = entries.iter().find(|entry| entry.name() == name);
        let entry = entry.with_context(|| format!("{name} is not listed"))?;
        let (state, tokens) = (self.session.state()?, self.session.tokens()?);
        ensure!(
            (entry.state, entry.nr_files) == (state.0, state.1),
            "{entry:?} where the session says {state:?}"
        );
        Ok(format!("{state:?} {} {tokens:?}", entry.flags))
    }
}

/// A command that waits.
struct Waiter {
    what: &'static str,
    act: fn(&Scene<'_>) -> Result<String, Errno>,
    /// How it is answered.
    answer: &'static str,
    /// What [`Scene::told`] says then.
    left: &'static str,
}

impl Waiter {
    /// Lets it wait behind `first`, which surely waits for `release`, while signals come to both.
    fn meet(
        &self,
        ctx: &Ctx,
        scene: &Scene<'_>,
        first: (Doer, &str),
        release: impl FnOnce() -> Result<()>,
        signal: Signal,
    ) -> Result<()> {
        let meet = || -> Result<()> {
            let waiter = command(|| (self.act)(scene))?;
            // Should anything fail, this one is ended first: the other waits for it.
            let (first, answer) = first;
            send(ctx, signal, &waiter)?;
            send(ctx, HANDLED, &first)?;
            release()?;
            ends(first, HANDLED, answer).context("the one before it")?;
            self.is_done(scene, waiter, signal)
        };
        meet().with_context(|| format!("{}, {signal:?}", self.what))
    }

    /// Fails unless it is answered as it is to be, after a signal, and leaves what it is to leave.
    fn is_done(&self, scene: &Scene<'_>, waiter: Doer, signal: Signal) -> Result<()> {
        ends(waiter, signal, self.answer)?;
        let left = scene.told()?;
        ensure!(left == self.left, "{left} instead of {}", self.left);
        Ok(())
    }
}

/// What a command says that has no other answer.
pub fn done(_: ()) -> String {
    "done".into()
}

/// Lets a child put a file into a session, where it waits in `callback` for the gate.
fn preserve_held(
    ctx: &Ctx,
    recorder: &Recorder,
    session: &Session,
    token: u64,
    callback: (&str, &str),
) -> Result<Doer> {
    let (name, line) = callback;
    recorder.hold(name, 1)?;
    let file = recorder.open(Kind::A, token)?;
    let doer = command(|| session.preserve(&file, token).map(done))?;
    recorder.wait_for(ctx, line)?;
    Ok(doer)
}

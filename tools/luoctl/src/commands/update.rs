// SPDX-License-Identifier: GPL-2.0

//! `luoctl update`

use crate::cli;
use crate::device;
use crate::failure::{Failure, Result, Status};
use crate::held::AllHeld;
use crate::interrupt::Interrupt;
use crate::kernel_log::KernelLog;
use crate::kexec;
use crate::machine::Machine;
use crate::output::{note, say};
use crate::proc::Proc;
use crate::progress::Progress;
use liveupdate::{OutgoingSession, Session, SessionInfo, SessionName, State};

const UNCHANGED: &str = "this kernel goes on, and every session is as before";

/// Prepares all sessions and starts the next kernel.
pub fn run(args: &cli::Update) -> Result<()> {
    if args.cancel {
        return cancel_all();
    }
    let interrupt = Interrupt::watch()?;
    let sessions = Sessions::find()?;
    has_image(&Machine::default())?;
    sessions.allow_update(args)?;
    let prepared = sessions.prepare(&interrupt)?;
    if args.dry_run {
        drop(prepared);
        say(format_args!(
            "nothing stands in the way of a live update; {UNCHANGED}"
        ));
        return Ok(());
    }
    let progress = Progress::spinner("writing what is not yet on disk");
    rustix::fs::sync();
    drop(progress);
    interrupt.check(UNCHANGED)?;
    let mut log = KernelLog::from_now();
    let error = kexec::execute();
    // In the old kernel still.
    drop(prepared);
    let mut failure = Failure::new(
        Status::Refused,
        format_args!("the kernel refuses the kexec: {error}"),
        "`dmesg | tail` may say why; nothing was interrupted",
    );
    if let Some(line) = log.last_of_luo() {
        failure.cause += &format!(" (luo.ko: {line})");
    }
    Err(failure)
}

/// Undoes what an update that was killed has left.
fn cancel_all() -> Result<()> {
    let sessions = Sessions::find()?;
    for (name, session) in sessions.reachable() {
        if is_prepared(session) {
            session
                .cancel()
                .map_err(|error| Failure::from(error).about(format_args!("session '{name}'")))?;
        }
    }
    Ok(())
}

fn has_image(machine: &Machine) -> Result<()> {
    match machine.has_image() {
        // Where it cannot be seen, reboot() will tell.
        Some(true) | None => Ok(()),
        Some(false) => Err(Failure::new(
            Status::NotReady,
            "no kernel is loaded",
            "luoctl load KERNEL --initrd FILE --reuse-cmdline",
        )),
    }
}

/// All sessions of this machine.
struct Sessions {
    /// As the orchestrator lists them; `None` if it does not.
    listed: Option<Vec<SessionInfo>>,
    held: AllHeld,
}

impl Sessions {
    fn find() -> Result<Self> {
        let listed = match device::open()?.sessions() {
            Ok(listed) => Some(listed),
            Err(error) if error.is_unsupported() => None,
            Err(error) => return Err(error.into()),
        };
        let held = AllHeld::find(&Proc::default());
        Ok(Self { listed, held })
    }

    /// Names of those that are to be handed on, or that were.
    fn names(&self, outgoing: bool) -> Vec<&SessionName> {
        match &self.listed {
            Some(listed) => listed
                .iter()
                .filter(|info| match info.state {
                    // One without files is finished, or had none: there is nothing to lose.
                    State::Updated => !outgoing && info.files != 0,
                    _ => outgoing,
                })
                .map(|info| &info.name)
                .collect(),
            None => self
                .held
                .sessions
                .iter()
                .filter(|held| held.is_outgoing() == outgoing)
                .map(|held| &held.name)
                .collect(),
        }
    }

    /// Those that are to be handed on and that we have.
    fn reachable(&self) -> impl Iterator<Item = (&SessionName, &OutgoingSession)> {
        self.held
            .sessions
            .iter()
            .filter_map(|held| match &held.session {
                Session::Outgoing(session) => Some((&held.name, session)),
                Session::Incoming(_) => None,
            })
    }

    /// Looks for what the operator would regret.
    fn allow_update(&self, args: &cli::Update) -> Result<()> {
        let outgoing = self.names(true);
        if let Some(missing) = args.names.iter().find(|name| !outgoing.contains(name)) {
            return Err(Failure::new(
                Status::NotFound,
                format_args!(
                    "there is no session '{missing}' to hand on: its holder may have died"
                ),
                "preserve its files again: luoctl preserve NAME TOKEN=FILE...",
            ));
        }
        if outgoing.is_empty() {
            return Err(Failure::new(
                Status::NotFound,
                "there is no session to hand on",
                "luoctl preserve NAME TOKEN=FILE..., or `kexec -e` to keep nothing",
            ));
        }
        match self.names(false).first() {
            Some(name) if !args.lose_incoming => Err(Failure::new(
                Status::Refused,
                format_args!(
                    "session '{name}' of the previous kernel is not finished, and would be lost"
                ),
                "luoctl retrieve NAME ..., or --lose-incoming",
            )),
            _ => Ok(()),
        }
    }

    /// Prepares those that we have. On failure none is left prepared that was not before.
    fn prepare(&self, interrupt: &Interrupt) -> Result<Prepared<'_>> {
        for denied in &self.held.denied {
            note(format_args!(
                "a session of {} is not prepared ({}): the kexec itself will check it",
                denied.process, denied.why
            ));
        }
        for name in self.names(true) {
            if self.held.get(name, true).is_none() {
                note(format_args!(
                    "session '{name}' is not prepared, no process is seen to hold it: the kexec itself will check it"
                ));
            }
        }
        let count = self.reachable().count() as u64;
        let progress = Progress::steps(count, "preparing");
        let mut prepared = Prepared(Vec::new());
        for (name, session) in self.reachable() {
            interrupt.check(UNCHANGED)?;
            progress.say(format!("preparing '{name}'"));
            let before = is_prepared(session);
            match session.prepare() {
                Ok(()) if before => {}
                Ok(()) => prepared.0.push(session),
                Err(error) if error.is_unsupported() => {
                    note("this orchestrator has no PREPARE: the kexec itself will check the sessions");
                    break;
                }
                Err(error) => {
                    let failure = Failure::from(error).about(format_args!("session '{name}'"));
                    return Err(failure);
                }
            }
            progress.advance(1);
        }
        Ok(prepared)
    }
}

fn is_prepared(session: &OutgoingSession) -> bool {
    session
        .state()
        .is_ok_and(|state| state.state == State::Prepared)
}

/// Sessions that are prepared, until this is dropped.
struct Prepared<'a>(Vec<&'a OutgoingSession>);

impl Drop for Prepared<'_> {
    fn drop(&mut self) {
        for session in &self.0 {
            // There is nothing in it that could fail; and if it did, `list` shows it.
            let _ = session.cancel();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(names: &[&str]) -> cli::Update {
        cli::Update {
            names: names.iter().map(|name| name.parse().unwrap()).collect(),
            dry_run: false,
            cancel: false,
            lose_incoming: false,
        }
    }

    #[test]
    fn nothing_to_hand_on_is_no_live_update() {
        let none = Sessions {
            listed: Some(Vec::new()),
            held: AllHeld::default(),
        };
        let failure = none.allow_update(&args(&[])).unwrap_err();
        assert_eq!(failure.status, Status::NotFound);
        assert_eq!(failure.cause, "there is no session to hand on");
        let failure = none.allow_update(&args(&["vm"])).unwrap_err();
        assert!(failure.cause.contains("no session 'vm'"), "{failure}");
    }
}

// SPDX-License-Identifier: GPL-2.0

//! `luoctl retrieve`
//!
//! To close an incoming session is to lose what was not taken. So a custodian has it from the first moment on, and what
//! fails here can be repeated.

use crate::cli;
use crate::copy::Target;
use crate::custodian::{self, Custodian};
use crate::device;
use crate::failure::{Failure, Result, Status};
use crate::held::AllHeld;
use crate::interrupt::{self, EndAtOnce};
use crate::output::say;
use crate::proc::{Proc, Process};
use crate::token;
use command_fds::{CommandFdExt, FdMapping};
use liveupdate::{Error, IncomingSession, Session, SessionName};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// The first descriptor that a command gets, as sd_listen_fds(3) has it.
const LISTEN_FDS_START: i32 = 3;

/// Takes the files.
pub fn run(args: &cli::Retrieve) -> Result<()> {
    makes_sense(args)?;
    // Not between the moment that the session is ours and the moment that the custodian has it.
    interrupt::block()?;
    let mut custody = Custody::take(&args.name)?;
    let interruption = EndAtOnce::arm("the session is still held, and nothing is lost")?;
    let result = retrieve(args, &mut custody, &interruption);
    result.map_err(|mut failure| {
        failure = failure.about(format_args!("session '{}'", args.name));
        failure.cause += &format!(" (the session is held by PID {})", custody.custodian.pid);
        failure
    })
}

fn makes_sense(args: &cli::Retrieve) -> Result<()> {
    token::all_different(args.files.iter().map(|file| file.token))?;
    let usage = |cause: String, next: &str| Err(Failure::new(Status::Usage, cause, next));
    let alone = args.files.iter().find(|file| file.path.is_none());
    match alone {
        Some(file) if args.command.is_empty() => usage(
            format!(
                "the token {:#x} has no path, and there is no command to take it",
                file.token
            ),
            "say TOKEN=PATH, or -- COMMAND",
        ),
        None if args.files.is_empty() && args.command.is_empty() && !args.finish => usage(
            "nothing is said of what to do with the files".into(),
            "say TOKEN=PATH to copy, -- COMMAND to hand them over, or --finish to drop them",
        ),
        _ => Ok(()),
    }
}

fn retrieve(args: &cli::Retrieve, custody: &mut Custody, interruption: &EndAtOnce) -> Result<()> {
    let there = custody.tokens()?;
    if let Some(there) = &there {
        if let Some(file) = args.files.iter().find(|file| !there.contains(&file.token)) {
            return Err(Error::NoSuchToken(file.token).into());
        }
    }
    let mut copies = Vec::new();
    for file in &args.files {
        if let Some(path) = &file.path {
            copies.push(custody.copy(file.token, path, interruption)?);
        }
    }
    // All of them or none, so that the same command can be run again. From here on they stay, whatever happens: they may
    // soon be all that there is.
    interruption.keep_all();
    copies.into_iter().for_each(Target::done);
    let named: Vec<u64> = args.files.iter().map(|file| file.token).collect();
    let copied = |token: &u64| {
        args.files
            .iter()
            .any(|file| file.token == *token && file.path.is_some())
    };
    let for_command: Vec<u64> = match (named.iter().any(|token| !copied(token)), &there) {
        (true, _) => named
            .iter()
            .copied()
            .filter(|token| !copied(token))
            .collect(),
        (false, Some(there)) => there
            .iter()
            .copied()
            .filter(|token| !copied(token))
            .collect(),
        (false, None) if !args.command.is_empty() && named.is_empty() => {
            return Err(Failure::new(
                Status::Usage,
                "this orchestrator does not list a session's files",
                "name the tokens: luoctl retrieve NAME TOKEN... -- COMMAND",
            ))
        }
        (false, None) => Vec::new(),
    };
    let taken =
        |token: &u64| copied(token) || (!args.command.is_empty() && for_command.contains(token));
    let left = there.map(|there| there.iter().filter(|token| !taken(token)).count());
    let finish = args.finish || left == Some(0);
    if !args.command.is_empty() {
        return Err(custody.become_command(&args.command, &for_command, finish, interruption));
    }
    if finish {
        custody.finish()?;
        say(format_args!("session '{}' is finished", args.name));
        return Ok(());
    }
    let left = left.map_or("what is left of it".into(), |left| {
        format!("{left} more files")
    });
    say(format_args!(
        "session '{}' with {left} is held by PID {}, until `luoctl retrieve {0} --finish`",
        args.name, custody.custodian.pid
    ));
    Ok(())
}

/// A retrieved session, and the custodian that holds it whatever happens here.
struct Custody {
    session: IncomingSession,
    custodian: Custodian,
}

impl Custody {
    /// Gets the session from the device, or from the custodian that an earlier command left.
    fn take(name: &SessionName) -> Result<Self> {
        let custodian = Custodian::start(name)?;
        let retrieved = device::open()?.retrieve_session(name);
        let (session, before) = match retrieved {
            Ok(session) => (session, Vec::new()),
            Err(Error::AlreadyRetrieved(_)) => of_custodian(name)?,
            Err(error) => return Err(error.into()),
        };
        custodian.give(&session)?;
        custodian.keep()?;
        for process in &before {
            custodian::end(process)?;
        }
        Ok(Self { session, custodian })
    }

    /// The session's tokens; `None` if the orchestrator does not list them.
    fn tokens(&self) -> Result<Option<Vec<u64>>> {
        match self.session.files() {
            Ok(files) => Ok(Some(files.iter().map(|file| file.token).collect())),
            Err(error) if error.is_unsupported() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn file(&self, token: u64) -> Result<OwnedFd> {
        let file = self.session.retrieve(token);
        file.map_err(|error| Failure::from(error).about(format_args!("token {token:#x}")))
    }

    fn copy(&self, token: u64, path: &Path, interruption: &EndAtOnce) -> Result<Target> {
        let target = Target::create(path)?;
        if let Some(path) = target.new_path() {
            interruption.remove(path);
        }
        let source = File::from(self.file(token)?);
        target
            .fill(&source)
            .map_err(|failure| failure.about(format_args!("token {token:#x}")))?;
        Ok(target)
    }

    fn finish(&self) -> Result<()> {
        self.session.finish()?;
        custodian::end(&Proc::default().process(self.custodian.pid))
    }

    /// Returns only if that fails.
    fn become_command(
        &mut self,
        words: &[std::ffi::OsString],
        tokens: &[u64],
        finish: bool,
        interruption: &EndAtOnce,
    ) -> Failure {
        match self.prepare_command(words, tokens) {
            Err(failure) => failure,
            Ok(mut command) => {
                // From here on to end is to have the session finished: nobody is to read that it is held.
                interruption.disarm();
                let told = match finish {
                    true => self.custodian.finish_then(),
                    false => Ok(()),
                };
                if let Err(failure) = told {
                    return failure;
                }
                interrupt::unblock();
                let error = command.exec();
                // It has become nothing, so the session is not to be finished. If the custodian cannot be told, it is
                // gone, which is worse than that the command is not there.
                if let Err(failure) = self.custodian.keep() {
                    return failure;
                }
                let next = "give the path of a program that can be run";
                Failure::io(
                    format_args!("cannot run {}", Path::new(&words[0]).display()),
                    error,
                    next,
                )
            }
        }
    }

    fn prepare_command(&mut self, words: &[std::ffi::OsString], tokens: &[u64]) -> Result<Command> {
        let mut mappings = Vec::new();
        for (child_fd, &token) in (LISTEN_FDS_START..).zip(tokens) {
            let parent_fd = self.file(token)?;
            mappings.push(FdMapping {
                parent_fd,
                child_fd,
            });
        }
        let failed = |error: std::io::Error| {
            Failure::io(
                "handing over descriptors",
                error,
                "raise the limit on open files (`ulimit -n`)",
            )
        };
        // Out of the way of the command's descriptors: the custodian is not to take their coming for our end.
        let above = LISTEN_FDS_START + tokens.len() as i32;
        self.custodian.move_control_above(above).map_err(failed)?;
        let names: Vec<String> = tokens.iter().map(|token| format!("{token:#x}")).collect();
        let mut command = Command::new(&words[0]);
        command
            .args(&words[1..])
            .env("LISTEN_PID", std::process::id().to_string())
            .env("LISTEN_FDS", tokens.len().to_string())
            .env("LISTEN_FDNAMES", names.join(":"));
        command
            .fd_mappings(mappings)
            .map_err(|error| failed(std::io::Error::other(error)))?;
        Ok(command)
    }
}

/// The session of this name that custodians hold, and these.
fn of_custodian(name: &SessionName) -> Result<(IncomingSession, Vec<Process>)> {
    let held = AllHeld::find(&Proc::default()).take(name, false);
    match held {
        Some(held) if held.holders.iter().all(|holder| holder.custodian) => {
            if let Session::Incoming(session) = held.session {
                return Ok((session, held.holders));
            }
        }
        Some(held) => {
            return Err(Failure::new(
                Status::Busy,
                format_args!("session '{name}' was retrieved by {}", held.by()),
                "ask that program for the files",
            ))
        }
        None => {}
    }
    Err(Error::AlreadyRetrieved(name.clone()).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(files: &[&str], finish: bool, command: &[&str]) -> cli::Retrieve {
        cli::Retrieve {
            name: "vm".parse().unwrap(),
            files: files.iter().map(|file| file.parse().unwrap()).collect(),
            finish,
            command: command.iter().map(Into::into).collect(),
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused_before_anything_is_done() {
        for good in [
            args(&["1=/x"], false, &[]),
            args(&["1=/x", "2"], false, &["cmd"]),
            args(&[], false, &["cmd"]),
            args(&[], true, &[]),
        ] {
            assert!(makes_sense(&good).is_ok(), "{good:?}");
        }
        for wrong in [
            args(&[], false, &[]),
            args(&["1"], false, &[]),
            args(&["1"], true, &[]),
            args(&["1=/x", "0x1=/y"], false, &[]),
        ] {
            let failure = makes_sense(&wrong).unwrap_err();
            assert_eq!(failure.status, Status::Usage, "{wrong:?}");
        }
    }
}

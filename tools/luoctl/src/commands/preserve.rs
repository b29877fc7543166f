// SPDX-License-Identifier: GPL-2.0

//! `luoctl preserve`

use crate::cli;
use crate::custodian::Custodian;
use crate::device;
use crate::failure::{Failure, Result};
use crate::interrupt::EndAtOnce;
use crate::machine::Machine;
use crate::output::say;
use crate::progress::Progress;
use crate::source;
use crate::token::{self, TokenPath};
use liveupdate::{Error, OutgoingSession};

/// Puts the files into a session and hands that to a custodian.
pub fn run(args: &cli::Preserve) -> Result<()> {
    token::all_different(args.files.iter().map(|file| file.token))?;
    // Until the custodian has it, the session, and all that was done, ends with this process.
    let interruption = EndAtOnce::arm("no session was left behind, the files are as before")?;
    let mut files = Vec::new();
    for file in &args.files {
        let opened = source::get(&file.path);
        files.push(
            opened.map_err(|failure| failure.about(format_args!("token {:#x}", file.token)))?,
        );
    }
    let custodian = Custodian::start(&args.name)?;
    let session = device::open()?.create_session(&args.name)?;
    let count = files.len();
    let progress = Progress::steps(count as u64, "preserving");
    for (wanted, file) in args.files.iter().zip(files) {
        progress.say(format!("preserving {}", wanted.path.display()));
        session
            .preserve(&file, wanted.token)
            .map_err(|error| refused(error, &session, wanted, source::kind(&file)))?;
        progress.advance(1);
    }
    drop(progress);
    custodian.give(&session)?;
    interruption.disarm();
    custodian.keep()?;
    let pid = custodian.pid;
    let s = if count == 1 { "" } else { "s" };
    say(format_args!(
        "session '{}' with {count} file{s} is held until the kexec by PID {pid}",
        args.name
    ));
    Ok(())
}

fn refused(error: Error, session: &OutgoingSession, file: &TokenPath, kind: &str) -> Failure {
    let has_no_handler = error == Error::UnsupportedFile;
    let mut failure = Failure::from(error);
    if has_no_handler {
        failure.cause = format!("no handler takes {kind}");
        if let Some(handlers) = Machine::default().handlers() {
            let handlers: Vec<String> =
                handlers.into_iter().map(|handler| handler.format).collect();
            failure.next += &format!(" ({})", handlers.join(", "));
        }
    }
    let name = session
        .name()
        .map(|name| name.to_string())
        .unwrap_or_default();
    failure.about(format_args!(
        "session '{name}': token {:#x} ({})",
        file.token,
        file.path.display()
    ))
}

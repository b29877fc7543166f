// SPDX-License-Identifier: GPL-2.0

//! `luoctl unpreserve`

use crate::cli;
use crate::custodian;
use crate::failure::{Failure, Result, Status};
use crate::held::{self, AllHeld};
use crate::output::say;
use crate::proc::Proc;
use crate::token;
use liveupdate::Session;

/// Takes files out of a session, or ends it.
pub fn run(args: &cli::Unpreserve) -> Result<()> {
    token::all_different(args.tokens.iter().copied())?;
    // Says what is missing in general before it says that there is no such session.
    drop(crate::device::open()?);
    let held = AllHeld::find(&Proc::default())
        .take(&args.name, true)
        .ok_or_else(|| held::unknown(&args.name))?;
    let Session::Outgoing(session) = &held.session else {
        return Err(held::unknown(&args.name));
    };
    if !args.tokens.is_empty() {
        for &token in &args.tokens {
            session.unpreserve(token).map_err(|error| {
                Failure::from(error).about(format_args!("session '{}'", args.name))
            })?;
        }
        return Ok(());
    }
    if let Some(other) = held.holders.iter().find(|holder| !holder.custodian) {
        return Err(Failure::new(
            Status::Busy,
            format_args!(
                "session '{}' is held by {other}, not by luoctl alone",
                args.name
            ),
            "let that program close it, or take single files out: luoctl unpreserve NAME TOKEN",
        ));
    }
    for custodian in &held.holders {
        custodian::end(custodian)?;
    }
    // The last descriptor is ours: with it the session ends.
    drop(held);
    say(format_args!(
        "session '{}' has ended, its files are as before",
        args.name
    ));
    Ok(())
}

// SPDX-License-Identifier: GPL-2.0

//! Random commands, all of whose answers a model of its own tells beforehand: see `tests/model`. `make model N=` says how
//! many, and `make model STEPS=` does those few again that it told when it had failed.

pub mod arrival;
pub mod call;
mod concurrent;
mod crew;
mod hands;
pub mod owner;
mod sequential;
mod shrink;
pub mod trial;

use crate::cases::common::luo::{Device, RETRIEVE_SESSION};
use crate::cases::common::session_by_bytes;
use crate::ctx::Ctx;
use crate::test::{Config, Test};
use anyhow::{ensure, Context, Result};
use serde::{Deserialize, Serialize};
use trial::Trial;

/// The cases.
pub const TESTS: &[Test] = &[
    // One CPU: commands go from process to process, and one CPU need not wake the other.
    Test::repeated("sequential", CONFIG.cpus(1), &[sequential::stage]),
    Test::repeated("concurrent", CONFIG, &[concurrent::stage]),
];

const CONFIG: Config = Config::new().timeout_s(600);

/// What one kernel tells the next.
#[derive(Deserialize, Serialize)]
enum Baggage {
    /// All commands were answered as they should be so far, one at a time.
    Sequential(sequential::State),
    /// The same, for those at the same time.
    Concurrent(concurrent::State),
    /// One was not.
    Shrink(shrink::State),
}

impl Baggage {
    /// What the previous kernel told this one, or the first one is told to do; `alone` tells one test's steps from the
    /// other's.
    fn open(ctx: &Ctx, alone: bool) -> Result<Option<Self>> {
        let bytes = ctx.baggage()?;
        ensure!(
            ctx.stage() == 1 || bytes.is_some(),
            "a kexec took place that a file was to refuse"
        );
        if let Some(bytes) = bytes {
            return Ok(Some(postcard::from_bytes(&bytes)?));
        }
        let Some(word) = ctx.steps() else {
            return Ok(None);
        };
        match Trial::of_word(word)? {
            Trial::Steps(trial) if trial.layout.alone == alone => {
                Ok(Some(Self::Shrink(shrink::again(trial))))
            }
            _ => ctx.skip("STEPS= are of another test").map(|()| None),
        }
    }

    /// Goes on in the next kernel.
    fn hand_on(&self, ctx: &mut Ctx) -> Result<()> {
        ctx.set_baggage(postcard::to_allocvec(self)?);
        ctx.go_on();
        Ok(())
    }
}

/// How many commands there are to be in all: an eighth of them one at a time, three eighths at the same time, by owners
/// of which each has its own, and half of them to sessions that all have: see [`super::concurrent`].
pub fn commands(ctx: &Ctx) -> u64 {
    ctx.amount(48_000)
}

/// What to run to have the same commands again: how many the last kernel has depends on how many there are in all.
fn replay(ctx: &Ctx) -> String {
    match ctx.steps() {
        Some(_) => "make model STEPS=".into(),
        None => format!("make model N={} SEED={}", commands(ctx), ctx.seed()),
    }
}

/// Finishes all sessions that the previous kernel handed over, or those of an owner.
fn finish_all(device: &Device, owner: Option<u8>) -> Result<()> {
    for entry in device.list_sessions(0, 100)?.0 {
        if owner.is_none_or(|owner| entry.name[0] == owner) {
            let session = session_by_bytes(device, RETRIEVE_SESSION, &entry.name);
            drop(session.with_context(|| entry.name())?);
        }
    }
    Ok(())
}

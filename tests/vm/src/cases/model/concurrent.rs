// SPDX-License-Identifier: GPL-2.0

//! All at the same time: owners that each have their own, and processes that are killed in the midst of it.

use super::owner::{letter, new_world, process_of, Journal, Owner, Team, OWNERS, PROCESSES};
use super::{commands, finish_all, replay};
use crate::cases::common::ext::{text, UPDATED};
use crate::cases::common::luo::Device;
use crate::cases::common::modules::Recorder;
use crate::ctx::Ctx;
use anyhow::{ensure, Context, Result};
use luo_model::World;
use serde::{Deserialize, Serialize};
use std::os::fd::AsRawFd;

/// Most commands that an owner does in one kernel.
const PART: u64 = 4_000;

/// What one kernel tells the next.
#[derive(Deserialize, Serialize)]
struct State {
    /// What each owner has.
    worlds: Vec<World>,
    /// Commands that were answered as they should be.
    done: u64,
    kills: u64,
}

/// One kernel.
pub fn stage(ctx: &mut Ctx) -> Result<()> {
    run(ctx).with_context(|| replay(ctx))
}

fn run(ctx: &mut Ctx) -> Result<()> {
    let recorder = Recorder::new(ctx)?;
    let device = Device::open()?;
    let format = text(&device.info()?.memfd_format);
    let live_updates = ctx.stage() as u64 - 1;
    let mut state = match ctx.baggage()? {
        Some(bytes) => postcard::from_bytes(&bytes)?,
        None => State {
            worlds: (0..OWNERS)
                .map(|owner| new_world(owner, &format, 0))
                .collect(),
            done: 0,
            kills: 0,
        },
    };
    let total = commands(ctx) * 3 / 4;
    let steps = PART.min((total - state.done).div_ceil(OWNERS as u64));
    let seed = ctx.seed().wrapping_add(live_updates << 32);
    let journal = Journal::new()?;
    let start = |process, worlds: &[World], seed| {
        let owners = (0..)
            .zip(worlds)
            .filter(|(owner, _)| process_of(*owner) == process);
        let owners = owners.map(|(owner, world)| Owner::new(owner, world.clone(), seed));
        Team::start(device.0.as_raw_fd(), &journal, owners.collect(), steps)
    };
    let teams = (0..PROCESSES).map(|process| start(process, &state.worlds, seed));
    let mut teams = teams.collect::<Result<Vec<_>>>()?;

    // One of the processes is killed at some moment, and another one begins with nothing.
    let victim = fastrand::Rng::with_seed(seed).usize(0..PROCESSES);
    let moment = fastrand::Rng::with_seed(seed).u64(0..steps);
    journal.wait(ctx, || journal.ended(victim) >= moment)?;
    state.done += journal.ended(victim);
    state.kills += 1;
    teams.remove(victim).child.kill()?;
    for owner in (0..OWNERS).filter(|owner| process_of(*owner) == victim) {
        let (entries, _) = device.list_sessions(0, 100)?;
        let own = || {
            entries
                .iter()
                .filter(|entry| entry.name[0] == letter(owner))
        };
        ensure!(
            own().all(|entry| entry.state == UPDATED),
            "a killed process has sessions: {:?}",
            own().map(|entry| entry.name()).collect::<Vec<_>>()
        );
        finish_all(&device, Some(letter(owner)))?;
        state.worlds[owner] = new_world(owner, &format, live_updates);
    }
    teams.insert(victim, start(victim, &state.worlds, !seed)?);

    let worlds = teams.iter().map(Team::worlds).collect::<Result<Vec<_>>>();
    state.worlds = worlds?.concat();
    state.done += steps * OWNERS as u64;
    let sessions: usize = state.worlds.iter().map(World::sessions).sum();
    let (_, listed) = device.list_sessions(0, 0)?;
    ensure!(
        listed == sessions as u64,
        "{listed} sessions instead of {sessions}"
    );
    if state.done < total {
        state.worlds.iter_mut().for_each(World::kexec);
        ctx.set_baggage(postcard::to_allocvec(&state)?);
        ctx.keep((teams, recorder));
        ctx.go_on();
        return Ok(());
    }
    for team in teams {
        team.child.kill()?;
    }
    finish_all(&device, None)?;
    ensure!(device.list_sessions(0, 0)?.1 == 0, "sessions are left");
    drop(device);
    recorder.remove()?;
    ctx.figure(&format!(
        "{} commands of {OWNERS} threads of {PROCESSES} processes at a time, in {} kernels, with {} kills",
        state.done,
        ctx.stage(),
        state.kills
    ));
    Ok(())
}

// SPDX-License-Identifier: GPL-2.0

//! All at the same time: owners that each have their own, and processes that are killed in the midst of it.

use super::owner::{letter, new_world, process_of, Journal, Owner, Team, Word, OWNERS, PROCESSES};
use super::{commands, finish_all, replay, shrink, Baggage};
use crate::cases::common::ext::{text, UPDATED};
use crate::cases::common::luo::Device;
use crate::cases::common::modules::Recorder;
use crate::ctx::Ctx;
use anyhow::{bail, ensure, Context, Result};
use luo_model::World;
use serde::{Deserialize, Serialize};
use std::os::fd::AsRawFd;

/// Most commands that an owner does in one kernel.
const PART: u64 = 4_000;

/// What one kernel tells the next.
#[derive(Deserialize, Serialize)]
pub struct State {
    /// What each owner has.
    worlds: Vec<World>,
    /// Commands that were answered as they should be.
    done: u64,
    kills: u64,
}

/// One kernel.
pub fn stage(ctx: &mut Ctx) -> Result<()> {
    let replay = replay(ctx);
    go_on(ctx).with_context(|| replay)
}

fn go_on(ctx: &mut Ctx) -> Result<()> {
    let state = match Baggage::open(ctx, false)? {
        Some(Baggage::Concurrent(state)) => state,
        Some(Baggage::Shrink(state)) => return state.go_on(ctx),
        Some(Baggage::Sequential(_)) => bail!("this is of another test"),
        None => {
            let format = text(&Device::open()?.info()?.memfd_format);
            let worlds = (0..OWNERS).map(|owner| new_world(owner, &format, 0));
            State {
                worlds: worlds.collect(),
                done: 0,
                kills: 0,
            }
        }
    };
    let journal = Journal::new()?;
    let mut owners = Vec::new();
    let Err(why) = run(ctx, state, &journal, &mut owners) else {
        return Ok(());
    };
    // Whatever an owner did follows from how it began.
    let steps_of = |owner: &&Owner| journal.load(Word::Wrong(owner.number));
    match owners.iter().find(|owner| steps_of(owner) != 0) {
        Some(owner) => {
            let steps = owner.imagine_all(steps_of(&owner));
            shrink::begin(ctx, format!("{why:#}"), &owner.world, &steps)
        }
        None => Err(why),
    }
}

/// `owners` will be those that are at work, as they began.
fn run(ctx: &mut Ctx, mut state: State, journal: &Journal, owners: &mut Vec<Owner>) -> Result<()> {
    let recorder = Recorder::new(ctx)?;
    let device = Device::open()?;
    let format = text(&device.info()?.memfd_format);
    let live_updates = ctx.stage() as u64 - 1;
    let total = commands(ctx) * 3 / 8;
    let steps = PART.min((total - state.done).div_ceil(OWNERS as u64));
    let seed = ctx.seed().wrapping_add(live_updates << 32);
    owners.extend((0..OWNERS).map(|owner| Owner::new(owner, state.worlds[owner].clone(), seed)));
    let start = |process, owners: &[Owner]| {
        let owners = owners
            .iter()
            .filter(|owner| process_of(owner.number) == process);
        Team::start(
            device.0.as_raw_fd(),
            journal,
            owners.cloned().collect(),
            steps,
        )
    };
    let teams = (0..PROCESSES).map(|process| start(process, owners));
    let mut teams = teams.collect::<Result<Vec<_>>>()?;

    // One of the processes is killed at some moment, and another one begins with nothing.
    let victim = fastrand::Rng::with_seed(seed).usize(0..PROCESSES);
    let moment = fastrand::Rng::with_seed(seed).u64(0..steps);
    journal.wait(ctx, || journal.ended(victim) >= moment)?;
    state.done += journal.ended(victim);
    state.kills += 1;
    teams.remove(victim).child.kill()?;
    // It may have had something to say.
    journal.wait(ctx, || true)?;
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
        owners[owner] = Owner::new(owner, new_world(owner, &format, live_updates), !seed);
    }
    teams.insert(victim, start(victim, owners)?);

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
        ctx.keep((teams, recorder));
        return Baggage::Concurrent(state).hand_on(ctx);
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

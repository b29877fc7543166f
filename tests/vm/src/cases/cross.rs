// SPDX-License-Identifier: GPL-2.0

//! Between implementations: what one orchestrator hands over the other takes, and hands on.

use super::common::luo::{Device, Session};
use super::common::{data, is_ours, memfd};
use crate::ctx::Ctx;
use crate::test::{Config, Orchestrator, Test};
use anyhow::{ensure, Context, Result};
use std::fs::File;

/// The cases.
pub const TESTS: &[Test] = &[
    Test::new(
        "c_to_rust",
        CONFIG.orchestrators(&[Orchestrator::C, Orchestrator::Rust]),
        &[hand_on, arrive],
    ),
    Test::new(
        "rust_to_c",
        CONFIG.orchestrators(&[Orchestrator::Rust, Orchestrator::C]),
        &[hand_on, arrive],
    ),
    Test::new(
        "rust_rust_c_rust",
        CONFIG.orchestrators(&[
            Orchestrator::Rust,
            Orchestrator::Rust,
            Orchestrator::C,
            Orchestrator::Rust,
        ]),
        &[hand_on, pass_on, pass_on, arrive],
    ),
    // The parameter says in which format memfds go, and not in which they come.
    Test::new(
        "formats",
        LARGE.orchestrators(&[Orchestrator::Rust, Orchestrator::None]),
        &[hand_on, from_extents_to_v2, from_v2],
    ),
];

const LARGE: Config = Config::new().memory_mib(2048).timeout_s(180);
/// The C orchestrator reads no other format of memfds.
const CONFIG: Config = LARGE.params("memfd_v2=1");

/// A session: its name, and the sizes of its files, whose tokens count from `first` in steps of `step`.
struct Plan {
    name: &'static str,
    first: u64,
    step: u64,
    sizes: fn() -> Vec<u64>,
}

const PLANS: &[Plan] = &[
    Plan {
        name: "many",
        first: 1000,
        // Downwards: the order is not that of the numbers.
        step: 0u64.wrapping_sub(1),
        sizes: || (0..500).map(|i| 100 + i).collect(),
    },
    Plan {
        name: "nothing",
        first: 0,
        step: 1,
        sizes: Vec::new,
    },
    Plan {
        name: "without bytes",
        first: u64::MAX,
        step: 1,
        sizes: || vec![0, 0, 0],
    },
    Plan {
        name: "a name of as many bytes as there is room for, and not one more!",
        first: 5,
        step: 1 << 40,
        sizes: || vec![1, 4096, 5_000_000, 0, 70_001],
    },
];

impl Plan {
    /// Token and size of each file, in order.
    fn files(&self) -> impl Iterator<Item = (u64, u64)> {
        let (first, step) = (self.first, self.step);
        (self.sizes)()
            .into_iter()
            .enumerate()
            .map(move |(i, size)| (first.wrapping_add(step.wrapping_mul(i as u64)), size))
    }
}

fn hand_on(ctx: &mut Ctx) -> Result<()> {
    let device = Device::open()?;
    for plan in PLANS {
        let session = device.create_session(plan.name)?;
        for (token, size) in plan.files() {
            let file = memfd::create(size)?;
            data::fill(&file, token, data::whole(size))?;
            memfd::seek(&file, token % 1000)?;
            session
                .preserve(&file, token)
                .with_context(|| format!("{}, token {token:#x}", plan.name))?;
        }
        ctx.keep(session);
    }
    Ok(())
}

/// Takes a session out, and its files, one at a time.
fn take(
    ctx: &Ctx,
    device: &Device,
    plan: &Plan,
    mut each: impl FnMut(u64, File) -> Result<()>,
) -> Result<Session> {
    let session = device
        .retrieve_session(plan.name)
        .with_context(|| format!("retrieving {:?}", plan.name))?;
    ensure!(session.name()? == plan.name);
    if is_ours(ctx) {
        let wanted: Vec<_> = plan.files().map(|(token, _)| token).collect();
        ensure!(session.tokens()? == wanted, "{:?}", session.tokens());
    }
    for (token, size) in plan.files() {
        let what = || format!("{}, token {token:#x}", plan.name);
        let file = session.retrieve(token).with_context(what)?;
        data::check(&file, token, size, &[data::whole(size)]).with_context(what)?;
        let position = memfd::position(&file)?;
        ensure!(position == token % 1000, "{}: at {position}", what());
        each(token, file)?;
    }
    session.finish()?;
    Ok(session)
}

/// Takes everything and hands the same files to the next kernel.
fn pass_on(ctx: &mut Ctx) -> Result<()> {
    let device = Device::open()?;
    count_is_right(ctx, &device)?;
    for plan in PLANS {
        let mut files = Vec::new();
        take(ctx, &device, plan, |token, file| {
            files.push((token, file));
            Ok(())
        })?;
        let session = device.create_session(plan.name)?;
        for (token, file) in files {
            session
                .preserve(&file, token)
                .with_context(|| format!("{}, token {token:#x} again", plan.name))?;
        }
        ctx.keep(session);
    }
    Ok(())
}

fn arrive(ctx: &mut Ctx) -> Result<()> {
    let device = Device::open()?;
    count_is_right(ctx, &device)?;
    for plan in PLANS {
        take(ctx, &device, plan, |_, file| {
            memfd::truncate(&file, 10).context("an ordinary file again")?;
            Ok(())
        })?;
    }
    for plan in PLANS {
        ensure!(
            device.retrieve_session(plan.name).is_err(),
            "it is there again"
        );
    }
    Ok(())
}

fn from_extents_to_v2(ctx: &mut Ctx) -> Result<()> {
    ctx.insmod("memfd_v2=1")?;
    pass_on(ctx)
}

fn from_v2(ctx: &mut Ctx) -> Result<()> {
    ctx.insmod("")?;
    arrive(ctx)
}

/// Live updates are counted through all kernels, whoever ran them.
fn count_is_right(ctx: &Ctx, device: &Device) -> Result<()> {
    if is_ours(ctx) {
        let num = device.info()?.liveupdate_num;
        let wanted = ctx.stage() as u64 - 1;
        ensure!(num == wanted, "live update {num} instead of {wanted}");
    }
    Ok(())
}

// SPDX-License-Identifier: GPL-2.0

//! A guest of samples/vmm lives through updates of its host's kernel. It writes its memory without a pause, and says
//! ten times a second what it counts.

use super::common::modules::{Kind, Recorder};
use crate::ctx::Ctx;
use crate::guest::{insert_kvm, is_possible, Console, Guest, RAM_TOKEN, SESSION, STATE_TOKEN};
use crate::test::{Config, Test};
use crate::tsc;
use anyhow::{bail, ensure, Context, Result};
use nix::errno::Errno;
use std::fs::File;
use std::hash::Hasher;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::time::Instant;

const NESTED: Config = Config::new().nested().timeout_s(600);

/// The cases.
pub const TESTS: &[Test] = &[
    Test::new("one_cpu", NESTED, &[boot_one, arrive]),
    Test::new(
        "three_in_a_row",
        NESTED,
        &[boot_two, middle, middle, arrive],
    ),
    Test::new("refused", NESTED, &[refused, arrive]),
    Test::new("damaged", NESTED, &[hand_over_paused, refuses_damage]),
    Test::new(
        "killed",
        NESTED,
        &[killed_before, killed_after, killed_again],
    ),
];

/// Under these names the host's time stamp counter and the guest's count, right before an update, are carried over.
const BEFORE: &str = "before";
const COUNT: &str = "count";
/// How far the guest counts before and after an update.
const TICKS: u64 = 20;

fn boot_one(ctx: &mut Ctx) -> Result<()> {
    boot(ctx, 1)
}

fn boot_two(ctx: &mut Ctx) -> Result<()> {
    boot(ctx, 2)
}

fn boot(ctx: &mut Ctx, cpus: u64) -> Result<()> {
    need_kvm(ctx)?;
    let mut guest = Guest::boot(cpus)?;
    guest.wait_for_tick(TICKS)?;
    update(ctx, &guest)
}

/// Ends a case as skipped where there can be no guest.
fn need_kvm(ctx: &Ctx) -> Result<()> {
    match is_possible()? {
        true => insert_kvm(),
        false => ctx.skip("this VM's processor runs no virtual machines"),
    }
}

/// Lets the VMM start the next kernel. Returns only with an error.
fn update(ctx: &mut Ctx, guest: &Guest) -> Result<()> {
    let _console = guest.console.preserve()?;
    ensure!(guest.send("preserve")? == "running, preserved");
    ctx.set(BEFORE, tsc::now());
    ctx.set(COUNT, guest.console.ticks()?.len());
    let answer = ctx.kexec_by(|| match guest.send("update") {
        Ok(answer) => anyhow::anyhow!("the VMM says {answer:?}"),
        Err(err) => err,
    });
    match answer? {}
}

/// In the next kernel.
fn go_on(ctx: &Ctx) -> Result<Guest> {
    let (begin, begin_tsc) = (Instant::now(), tsc::now());
    insert_kvm()?;
    let console = Console::retrieve()?;
    let before = console.ticks()?;
    ensure!(
        before.len() as u64 >= TICKS,
        "only {} ticks came over",
        before.len()
    );
    let mut guest = Guest::resume(console)?;
    let first = guest.wait_for_tick(before.len() as u64 + 1)?;
    let last = guest.wait_for_tick(first.count + TICKS)?;
    ensure!(
        last.passes > first.passes,
        "the threads do not go on: {first:?}, {last:?}"
    );
    // The pause may have come when a tick was counted, but not yet said.
    let ticks = guest.console.ticks()?;
    let seen = ticks[before.len()..].iter().map(|tick| tick.since_ms).max();
    let still = guest.stood_still_ms()?;
    ensure!(
        seen >= Some(still),
        "the guest's clock stood still: {seen:?} instead of {still} ms"
    );
    // Nor does it run faster than the host's. Of the ticks that come after the host looked at both, the first one's time
    // may be from before.
    let ticks_per_ms = (tsc::now() - begin_tsc) as f64 / begin.elapsed().as_secs_f64() / 1e3;
    let host_ms = (tsc::now() - ctx.get(BEFORE)?.parse::<u64>()?) as f64 / ticks_per_ms;
    let after = ctx.get(COUNT)?.parse::<usize>()? + 2;
    let guest_ms: u64 = ticks.iter().skip(after).map(|tick| tick.since_ms).sum();
    ctx.figure(&format!(
        "the guest stood still for {still} ms, and saw {seen:?}; {guest_ms} ms of the host's {host_ms:.0} went by for it"
    ));
    ensure!(
        guest_ms as f64 <= host_ms * 1.01,
        "{guest_ms} ms went by in the guest, and {host_ms:.0} ms on the host"
    );
    Ok(guest)
}

fn middle(ctx: &mut Ctx) -> Result<()> {
    let guest = go_on(ctx)?;
    update(ctx, &guest)
}

fn arrive(ctx: &mut Ctx) -> Result<()> {
    let guest = go_on(ctx)?;
    ensure!(guest.send("status")? == "running");
    Ok(())
}

// ---- An update that is refused ----

fn refused(ctx: &mut Ctx) -> Result<()> {
    let recorder = Recorder::new(ctx)?;
    need_kvm(ctx)?;
    let mut guest = Guest::boot(2)?;
    guest.wait_for_tick(TICKS)?;
    let console = guest.console.preserve()?;
    ensure!(guest.send("preserve")? == "running, preserved");

    // No kernel is loaded.
    goes_on_after(ctx, &mut guest, Errno::EINVAL)?;

    let other = ctx.device()?.create_session("other")?;
    other.preserve(recorder.open(Kind::A, 1)?, 1)?;
    ctx.kexec_load()?;
    recorder.fail("freeze", 1, Errno::EXDEV)?;
    goes_on_after(ctx, &mut guest, Errno::EXDEV)?;

    // And the next attempt is a good one.
    drop(other);
    drop(console);
    recorder.remove()?;
    update(ctx, &guest)
}

/// An update that fails with this errno: the guest goes on within a second.
fn goes_on_after(ctx: &Ctx, guest: &mut Guest, errno: Errno) -> Result<()> {
    let before = guest.next_tick()?;
    match guest.send("update") {
        Ok(answer) => bail!("the VMM says {answer:?}"),
        Err(err) => ensure!(
            err.to_string()
                .contains(&format!("os error {}", errno as i32)),
            "{err}"
        ),
    }
    let still = guest.stood_still_ms()?;
    guest.wait_for_tick(before.count + TICKS)?;
    let ticks = guest.console.ticks()?;
    let seen = ticks[before.count as usize..]
        .iter()
        .map(|tick| tick.since_ms)
        .max();
    ctx.figure(&format!(
        "{errno:?}: the guest stood still for {still} ms, and saw {seen:?}"
    ));
    ensure!(still < 1000, "the guest stood still for {still} ms");
    ensure!(seen >= Some(still), "{seen:?} instead of {still} ms");
    ensure!(guest.send("status")? == "running, preserved");
    Ok(())
}

// ---- A state that is not what it should be ----

fn hand_over_paused(ctx: &mut Ctx) -> Result<()> {
    need_kvm(ctx)?;
    let mut guest = Guest::boot(2)?;
    guest.wait_for_tick(TICKS)?;
    ensure!(guest.send("preserve")? == "running, preserved");
    ensure!(guest.send("pause")? == "paused, preserved");
    let console = guest.console.preserve()?;
    ctx.keep((guest, console));
    Ok(())
}

/// What is done to the state (at which byte it is changed), and what the VMM says to it.
const DAMAGES: &[(u64, &str)] = &[
    (0, "this is not the state of a guest"),
    (8, "version"),
    (16, "checksum"),
    (32 + 3, "truncated"),
    (5000, "checksum"),
];

fn refuses_damage(ctx: &mut Ctx) -> Result<()> {
    insert_kvm()?;
    let session = ctx.device()?.retrieve_session(SESSION)?;
    let ram = File::from(session.retrieve(RAM_TOKEN)?);
    let state = File::from(session.retrieve(STATE_TOKEN)?);
    let sum = checksum(&ram)?;
    for &(at, wanted) in DAMAGES {
        flip(&state, at)?;
        let mut guest = Guest::resume_in(Console::new()?, session.as_fd())?;
        let said = guest.failure()?;
        ensure!(said.contains(wanted), "byte {at}: the VMM says {said:?}");
        flip(&state, at)?;
    }
    // The label behind the memory.
    let label = ram.metadata()?.len() - 4096 + 20;
    flip(&ram, label)?;
    let said = Guest::resume_in(Console::new()?, session.as_fd())?.failure()?;
    ensure!(
        said.contains("not of the guest that this memory is of"),
        "the VMM says {said:?}"
    );
    flip(&ram, label)?;
    ensure!(checksum(&ram)? == sum, "the guest's memory has changed");

    // Put right, it goes on as if nothing had been.
    let console = Console::retrieve()?;
    let before = console.ticks()?.len() as u64;
    ensure!(before >= TICKS);
    let mut guest = Guest::resume_in(console, session.as_fd())?;
    guest.wait_for_tick(before + TICKS)?;

    // Nobody can start it a second time.
    guest.kill()?;
    let said = Guest::resume_in(Console::new()?, session.as_fd())?.failure()?;
    ensure!(said.contains("has no token"), "the VMM says {said:?}");
    Ok(())
}

fn flip(file: &File, at: u64) -> Result<()> {
    let mut byte = [0];
    file.read_exact_at(&mut byte, at)?;
    file.write_all_at(&[byte[0] ^ 0x10], at)?;
    Ok(())
}

fn checksum(file: &File) -> Result<u64> {
    let mut sum = std::hash::DefaultHasher::new();
    let mut bytes = vec![0; 1 << 20];
    let mut at = 0;
    loop {
        match file.read_at(&mut bytes, at)? {
            0 => return Ok(sum.finish()),
            len => sum.write(&bytes[..len]),
        }
        at += bytes.len() as u64;
    }
}

// ---- A VMM that dies ----

fn killed_before(ctx: &mut Ctx) -> Result<()> {
    need_kvm(ctx)?;
    // Each leaves a machine on which the next can be.
    for commands in [
        &[][..],
        &["preserve"],
        &["preserve", "pause"],
        &["preserve", "unpreserve"],
    ] {
        let mut guest = Guest::start(Console::new()?, 2)?;
        guest.wait_for_socket()?;
        for command in commands {
            guest
                .send(command)
                .with_context(|| format!("{commands:?}"))?;
        }
        guest.kill()?;
        ensure!(
            ctx.device()?.create_session(SESSION).is_ok(),
            "after {commands:?} its session is still there"
        );
    }
    // And one that runs when somebody else starts the next kernel: it was not asked to pause.
    let mut guest = Guest::start(Console::new()?, 1)?;
    guest.wait_for_socket()?;
    guest.send("preserve")?;
    ctx.keep(guest);
    Ok(())
}

fn killed_after(ctx: &mut Ctx) -> Result<()> {
    insert_kvm()?;
    let said = Guest::resume(Console::new()?)?.failure()?;
    ensure!(
        said.contains("there is no state: the guest was not paused"),
        "the VMM says {said:?}"
    );
    let gone = ctx.device()?.retrieve_session(SESSION);
    ensure!(gone.is_err(), "its session can be retrieved again");
    // The next one works.
    boot(ctx, 2)
}

fn killed_again(ctx: &mut Ctx) -> Result<()> {
    go_on(ctx)?.kill()?;
    let mut guest = Guest::start(Console::new()?, 1)?;
    guest.wait_for_socket()?;
    ensure!(guest.send("preserve")? == "running, preserved");
    Ok(())
}

// SPDX-License-Identifier: GPL-2.0

//! The virtual machine beside the service: it counts, and writes its memory without a pause.

use super::{clock, report};
use crate::guest::{insert_kvm, Console, Guest};
use anyhow::{Context, Result};
use liveupdate::OutgoingSession;
use luo_vm_protocol::demo::{DemoEvent, Step};

/// Its processors.
const CPUS: u64 = 2;
/// How far it counts before the update, and again after it.
const TICKS: u64 = 20;

/// Boots it; none where KVM does not work in this VM.
pub fn boot() -> Result<Option<Guest>> {
    if let Err(why) = insert_kvm() {
        report(DemoEvent::NoGuest {
            why: format!("{why:#}"),
        });
        return Ok(None);
    }
    let mut guest = Guest::boot(CPUS)?;
    let tick = guest.wait_for_tick(TICKS)?;
    report(DemoEvent::Guest {
        processors: tick.processors,
        count: tick.count,
    });
    Ok(Some(guest))
}

/// Puts it and its console into sessions. That of the console is to be held.
pub fn preserve(guest: &Guest) -> Result<OutgoingSession> {
    guest.send("preserve")?;
    step(
        guest,
        Step::PreserveGuest,
        "preserving memory",
        "preserved memory",
    )?;
    guest.console.preserve()
}

/// Lets it stand still. It is the last thing before the new kernel.
pub fn pause(guest: &Guest) -> Result<()> {
    guest.send("pause")?;
    step(
        guest,
        Step::PauseGuest,
        "pausing the guest",
        "wrote the state",
    )
}

/// Goes on with it in the new kernel. Gives how far it had counted, too.
pub fn resume() -> Result<(Guest, u64)> {
    let from = clock::now();
    insert_kvm()?;
    clock::report_step(Step::LoadKvm, from);
    let from = clock::now();
    let console = Console::retrieve()?;
    let before = console.ticks()?.len() as u64;
    let mut guest = Guest::resume(console)?;
    let to = guest.wait_for_log("the guest goes on")?;
    report(DemoEvent::Step {
        step: Step::ResumeGuest,
        from,
        to,
    });
    Ok((guest, before))
}

/// Looks whether it counts on, from where it was, with its memory right.
pub fn verify(guest: &mut Guest, before: u64) -> Result<()> {
    guest.wait_for_tick(before + TICKS)?;
    // Fails if a number is missing or came twice, or if a word of its memory is wrong.
    let ticks = guest.console.ticks()?;
    let gap = ticks[before as usize..]
        .iter()
        .map(|tick| tick.since_ms)
        .max();
    report(DemoEvent::GuestVerdict {
        before,
        after: ticks.len() as u64,
        gap_ms: gap.unwrap_or(0),
    });
    Ok(())
}

/// Reports what the VMM did between two lines of its log.
fn step(guest: &Guest, step: Step, from: &str, to: &str) -> Result<()> {
    let at = |text: &str| {
        let tsc = guest.logged(text)?;
        tsc.with_context(|| format!("the VMM does not say {text:?}"))
    };
    report(DemoEvent::Step {
        step,
        from: at(from)?,
        to: at(to)?,
    });
    Ok(())
}

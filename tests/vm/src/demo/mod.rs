// SPDX-License-Identifier: GPL-2.0

//! The demonstration: a service keeps its data, and a virtual machine runs on, while the kernel under them is replaced.

mod client;
pub mod clock;
mod guest;
mod service;
mod store;

use crate::cmdline::Words;
use crate::{kexec, kmsg, report};
use anyhow::{bail, Context, Result};
use client::Client;
use luo_vm_protocol::demo::{DemoEvent, Step, MARK_CLOCK};
use luo_vm_protocol::{Event, Plan, DISK_DATA};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufReader;
use store::{Retrieved, Store};

/// Requests made before and after, beside those that check every sum.
const REQUESTS: usize = 200;
/// Under this name a file's path is carried over, for the first request in the new kernel.
const PATH: &str = "path";
/// Carried over if there is a virtual machine.
const GUEST: &str = "guest";

/// The part of this kernel: the first takes the data in and jumps, the second takes it back and checks it.
pub fn run(words: &Words, plan: &Plan) -> Result<()> {
    match words.stage {
        1 => before(plan),
        _ => after(words),
    }
}

/// Sends a line of the demonstration.
pub fn report(event: DemoEvent) {
    report::send(&Event::Demo(event));
}

fn before(plan: &Plan) -> Result<()> {
    report(clock::sample()?);
    let from = clock::now();
    // Dropping it would kill the service: the value lives to the end of this kernel.
    let _service = service::start(|| {
        let disk = File::open(kexec::disk(DISK_DATA)?)?;
        Store::load(BufReader::with_capacity(1 << 20, disk))
    })?;
    clock::report_step(Step::Load, from);
    let guest = guest::boot()?;

    let mut client = Client::connect()?;
    client.list()?;
    report(DemoEvent::Served {
        requests: client.sample(REQUESTS)?,
    });
    client.ask("PRESERVE")?;
    let _console = guest.as_ref().map(guest::preserve).transpose()?;

    let from = clock::now();
    let path = client
        .entries
        .keys()
        .min_by_key(|path| path.len())
        .context("no file")?;
    let mut carry = BTreeMap::from([(PATH.to_string(), path.clone())]);
    if guest.is_some() {
        carry.insert(GUEST.to_string(), String::new());
    }
    let next = Words { stage: 2, carry };
    kexec::load(
        &format!("{} {}", plan.stages[1].cmdline, next.to_cmdline()),
        &[],
    )?;
    clock::report_step(Step::LoadKernel, from);
    // Still at work, with everything preserved and the next kernel waiting.
    report(DemoEvent::Served {
        requests: client.sample(REQUESTS)?,
    });

    report(clock::sample()?);
    kmsg::write(&format!("{MARK_CLOCK}{}", clock::now()));
    report::send(&Event::Jump { stage: 2 });
    guest.as_ref().map(guest::pause).transpose()?;
    report(DemoEvent::Reboot { tsc: clock::now() });
    bail!("reboot(LINUX_REBOOT_CMD_KEXEC): {}", kexec::execute())
}

fn after(words: &Words) -> Result<()> {
    let begin = clock::now();
    let _service = service::start(|| {
        let from = clock::now();
        let retrieved = Retrieved::take()?;
        clock::report_step(Step::Retrieve, from);
        let from = clock::now();
        retrieved.session.finish()?;
        clock::report_step(Step::Finish, from);
        retrieved.into_store()
    })?;
    let mut client = Client::connect()?;
    let path = words.carry.get(PATH).context("the path of a file")?;
    client.ask(&format!("GET {path}"))?;
    clock::report_step(Step::FirstAnswer, begin);
    let guest = words.carry.contains_key(GUEST).then(guest::resume);
    let mut guest = guest.transpose()?;

    client.list()?;
    verify(&mut client)?;
    report(DemoEvent::Served {
        requests: client.sample(REQUESTS)?,
    });
    if let Some((guest, before)) = &mut guest {
        guest::verify(guest, *before)?;
    }
    Ok(())
}

/// Every file, through the service.
fn verify(client: &mut Client) -> Result<()> {
    let from = clock::now();
    let paths: Vec<_> = client.entries.keys().cloned().collect();
    let wrong = client.wrong_of(&paths)?;
    clock::report_step(Step::Verify, from);
    let right = client
        .entries
        .iter()
        .filter(|(path, _)| !wrong.contains(path));
    let bytes = right.clone().map(|(_, entry)| entry.len).sum();
    report(DemoEvent::Verdict {
        right: right.count() as u64,
        bytes,
        wrong,
    });
    Ok(())
}

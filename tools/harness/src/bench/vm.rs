// SPDX-License-Identifier: GPL-2.0

//! One VM of the benchmark: what it reports becomes a record.

use crate::console::{split_line, Console};
use crate::qemu::{Heard, Machine, Qemu};
use anyhow::{bail, ensure, Context, Result};
use luo_vm_protocol::bench::{BenchEvent, Figure, MARK_REBOOT};
use luo_vm_protocol::Event;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// How long a VM may be silent.
const PATIENCE: Duration = Duration::from_secs(1800);
/// The last line of the old kernel but for those about CPUs: what may fail is done, devices are down.
const LAST_LINE: &str = "Starting new kernel";

/// A sum and over how many operations.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sum {
    /// The sum.
    pub total: i64,
    /// Number of operations.
    pub count: u64,
}

/// Where time went, as the VM reports it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Profile {
    /// Of what.
    pub figure: Figure,
    /// All samples.
    pub samples: u64,
    /// Nanoseconds between two.
    pub period_ns: u64,
    /// Function, samples in itself, samples in it or what it called.
    pub functions: Vec<(String, u64, u64)>,
}

/// What was heard from one VM.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Record {
    /// Version of the kernel.
    pub release: String,
    /// The figures that the VM took itself.
    pub figures: BTreeMap<Figure, Sum>,
    /// Profiles, if they were asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub profiles: Vec<Profile>,
    /// Nanoseconds from the call of reboot() until nothing can refuse the kexec any more and devices are down.
    pub leave_ns: i64,
    /// Nanoseconds from the call of reboot() to the new kernel's /init.
    pub jump_ns: i64,
}

/// Runs it to its end.
pub fn run(machine: &Machine) -> Result<Record> {
    let mut qemu = Qemu::start(machine)?;
    let mut console = Console::follow(qemu.console())?;
    let outcome = listen(&mut qemu);
    qemu.stop();
    let lines = console.read_lines()?.to_vec();
    let complaint = console.take_complaints().into_iter().next();
    let last = lines.last().cloned().unwrap_or_default();
    let (mut record, arrived) = outcome.with_context(|| format!("after the line {last:?}"))?;
    if let Some(complaint) = complaint {
        bail!("the kernel complained: {}", complaint.line);
    }
    let reboot =
        Reboot::find(&lines).context("the console does not tell when reboot() was called")?;
    record.release = release(&lines).unwrap_or_default();
    record.leave_ns = reboot.leave_ns;
    record.jump_ns = i64::try_from(arrived - reboot.tsc)?;
    Ok(record)
}

/// The kernel's version, from the first line that it says.
fn release(lines: &[String]) -> Option<String> {
    let rest = lines
        .iter()
        .find_map(|line| Some(line.split_once("Linux version ")?.1));
    Some(rest?.split(' ').next()?.into())
}

/// Takes in the events, and when the new kernel's /init began.
fn listen(qemu: &mut Qemu) -> Result<(Record, u64)> {
    let mut record = Record::default();
    let (mut arrived, mut boots) = (None, Vec::new());
    loop {
        match qemu.next(PATIENCE) {
            Heard::Event(Event::Boot { boot_id, .. }, _) => boots.push(boot_id),
            Heard::Event(Event::Bench(event), _) => match event {
                BenchEvent::Figure {
                    figure,
                    total,
                    count,
                } => {
                    record.figures.insert(figure, Sum { total, count });
                }
                BenchEvent::Arrived { tsc } => arrived = Some(tsc),
                BenchEvent::Profile {
                    figure,
                    samples,
                    period_ns,
                    functions,
                } => record.profiles.push(Profile {
                    figure,
                    samples,
                    period_ns,
                    functions,
                }),
            },
            Heard::Event(Event::Note { text }, _) => bail!("{text}"),
            Heard::Event(Event::Done, _) => break,
            Heard::Event(..) => {}
            Heard::End => bail!("the VM ended by itself"),
            Heard::Silence => bail!("nothing from the VM for {} s", PATIENCE.as_secs()),
        }
    }
    ensure!(
        matches!(&boots[..], [old, new] if old != new),
        "there were not two kernels, but {}",
        boots.len()
    );
    Ok((record, arrived.context("the new kernel did not report")?))
}

/// What the console tells about the end of the old kernel.
#[derive(Debug, PartialEq)]
struct Reboot {
    /// Time stamp counter before the call of reboot().
    tsc: u64,
    /// Nanoseconds from there to the last line.
    leave_ns: i64,
}

impl Reboot {
    fn find(lines: &[String]) -> Option<Self> {
        let mut lines = lines.iter().filter_map(|line| split_line(line));
        let (from, tsc) = lines.find_map(|(time, text)| {
            Some((time, text.strip_prefix(MARK_REBOOT)?.trim().parse().ok()?))
        })?;
        let (to, _) = lines.find(|(_, text)| text.contains(LAST_LINE))?;
        Some(Self {
            tsc,
            leave_ns: ((to - from) * 1e9).round() as i64,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{release, Reboot};

    #[test]
    fn the_end_of_the_old_kernel() {
        let lines = [
            "[    0.000000] Linux version 7.3",
            "[    4.000100] luo-vm: reboot at 5000000",
            "[    4.000900] kexec_core: Starting new kernel",
            "[    0.000000] Linux version 7.3",
        ];
        let reboot = Reboot::find(&lines.map(String::from));
        let wanted = Reboot {
            tsc: 5_000_000,
            leave_ns: 800_000,
        };
        assert_eq!(reboot, Some(wanted));
        assert_eq!(release(&lines.map(String::from)).as_deref(), Some("7.3"));
        assert_eq!(
            Reboot::find(
                &lines[..2]
                    .iter()
                    .map(|line| line.to_string())
                    .collect::<Vec<_>>()
            ),
            None
        );
    }
}

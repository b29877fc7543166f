// SPDX-License-Identifier: GPL-2.0

//! `luoctl check`

use crate::cli::Format;
use crate::device;
use crate::failure::{Failure, Result, Status};
use crate::machine::Machine;
use crate::output::{self, Table, ERROR, GOOD, WARNING};
use serde::Serialize;
use std::fmt;
use std::process::ExitCode;

/// Prints it; the exit code tells whether the machine is ready.
pub fn run(format: &Format) -> Result<ExitCode> {
    let report = Report::of(&Machine::default(), orchestrator());
    output::print(&report, format.json)?;
    Ok(match report.ready {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(Status::NotReady as u8),
    })
}

/// The name of the orchestrator that serves the device, if it tells.
fn orchestrator() -> Result<Option<String>> {
    match device::open()?.info() {
        Ok(info) => Ok(Some(info.implementation)),
        Err(error) if error.is_unsupported() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// How one thing stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Good,
    Unknown,
    Missing,
}

#[derive(Serialize)]
struct Finding {
    what: &'static str,
    verdict: Verdict,
    detail: String,
    /// What the operator can do about it.
    next: Option<String>,
}

#[derive(Serialize)]
struct Report {
    /// Nothing is known to be missing.
    ready: bool,
    findings: Vec<Finding>,
}

impl Report {
    fn of(machine: &Machine, orchestrator: Result<Option<String>>) -> Self {
        let findings = vec![
            handover(machine),
            device(machine, &orchestrator),
            handlers(machine, &orchestrator),
            scratch(machine),
            image(machine),
        ];
        Self {
            ready: findings
                .iter()
                .all(|finding| finding.verdict != Verdict::Missing),
            findings,
        }
    }
}

fn good(what: &'static str, detail: impl Into<String>) -> Finding {
    Finding {
        what,
        verdict: Verdict::Good,
        detail: detail.into(),
        next: None,
    }
}

fn not(
    what: &'static str,
    verdict: Verdict,
    detail: impl Into<String>,
    next: impl Into<String>,
) -> Finding {
    Finding {
        what,
        verdict,
        detail: detail.into(),
        next: Some(next.into()),
    }
}

const DEBUGFS: &str = "mount -t debugfs debugfs /sys/kernel/debug, as root, to see it";

/// Whether a word switches something on, as the kernel's kstrtobool() has it: by its first letters.
fn is_on(word: &str) -> bool {
    let word = word.to_ascii_lowercase();
    word.starts_with(['1', 'y', 't']) || word.starts_with("on")
}

fn handover(machine: &Machine) -> Finding {
    const WHAT: &str = "Kexec HandOver";
    let boot = "boot a kernel with CONFIG_KEXEC_HANDOVER with kho=on on its command line";
    match (machine.has_kho(), machine.parameter("kho").as_deref()) {
        (Some(true), _) => good(WHAT, "on"),
        (Some(false), _) => not(WHAT, Verdict::Missing, "off", boot),
        (None, Some(word)) if is_on(word) => good(WHAT, "asked for on the kernel command line"),
        (None, Some(_)) => not(
            WHAT,
            Verdict::Missing,
            "off on the kernel command line",
            boot,
        ),
        (None, None) => not(
            WHAT,
            Verdict::Unknown,
            "not mentioned on the kernel command line",
            DEBUGFS,
        ),
    }
}

fn device(machine: &Machine, orchestrator: &Result<Option<String>>) -> Finding {
    const WHAT: &str = "orchestrator";
    let failure = match orchestrator {
        Ok(Some(name)) => return good(WHAT, name),
        Ok(None) => return good(WHAT, "the kernel's own: no lists, no PREPARE"),
        Err(failure) => failure,
    };
    match failure.status {
        Status::NotReady if machine.has_module() => not(
            WHAT,
            Verdict::Missing,
            "luo.ko is in, but there is no /dev/liveupdate",
            "mount devtmpfs on /dev, or see to udev",
        ),
        // It is there; what keeps us from it need not keep others.
        Status::Busy => not(WHAT, Verdict::Unknown, &failure.cause, &failure.next),
        _ => not(WHAT, Verdict::Missing, &failure.cause, &failure.next),
    }
}

fn handlers(machine: &Machine, orchestrator: &Result<Option<String>>) -> Finding {
    const WHAT: &str = "file types";
    let unknown = |detail: &str, next: &str| not(WHAT, Verdict::Unknown, detail, next);
    match (machine.handlers(), orchestrator) {
        (Some(handlers), _) if handlers.is_empty() => not(
            WHAT,
            Verdict::Missing,
            "no handler is registered",
            "load the handlers' modules",
        ),
        (Some(handlers), _) => {
            let names: Vec<&str> = handlers
                .iter()
                .map(|handler| handler.format.as_str())
                .collect();
            good(WHAT, names.join(", "))
        }
        (None, Ok(None)) => unknown(
            "this orchestrator does not tell",
            "see the configuration of the kernel, such as CONFIG_LIVEUPDATE_MEMFD",
        ),
        (
            None,
            Err(Failure {
                status: Status::NotReady,
                ..
            }),
        ) => unknown(
            "there is no orchestrator that could have any",
            "first see to that",
        ),
        (None, _) => unknown("cannot be seen", DEBUGFS),
    }
}

fn scratch(machine: &Machine) -> Finding {
    const WHAT: &str = "scratch area";
    match (machine.scratch(), machine.parameter("kho_scratch")) {
        (Some(sizes), _) if !sizes.is_empty() => {
            let total: u64 = sizes.iter().sum();
            let largest = sizes.iter().max().copied().unwrap_or(0);
            let text = format!(
                "{} in {} parts, the largest {}: the next kernel and its initrd must fit",
                output::bytes(total),
                sizes.len(),
                output::bytes(largest)
            );
            good(WHAT, text)
        }
        (_, Some(wish)) => not(
            WHAT,
            Verdict::Unknown,
            format!("asked for: {wish}"),
            DEBUGFS,
        ),
        (_, None) => not(WHAT, Verdict::Unknown, "size cannot be seen", DEBUGFS),
    }
}

fn image(machine: &Machine) -> Finding {
    const WHAT: &str = "next kernel";
    match machine.has_image() {
        Some(true) => good(WHAT, "loaded"),
        Some(false) => not(
            WHAT,
            Verdict::Missing,
            "none is loaded",
            "luoctl load KERNEL --initrd FILE --reuse-cmdline",
        ),
        None => not(
            WHAT,
            Verdict::Missing,
            "this kernel has no kexec",
            "boot a kernel with CONFIG_KEXEC_FILE",
        ),
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::without_heading();
        for finding in &self.findings {
            let (style, word) = match finding.verdict {
                Verdict::Good => (GOOD, "ok"),
                Verdict::Unknown => (WARNING, "unknown"),
                Verdict::Missing => (ERROR, "missing"),
            };
            table.row(&[
                &format!("{style}{word}{style:#}"),
                finding.what,
                &finding.detail,
            ]);
            if let Some(next) = &finding.next {
                table.row(&["", "", &format!("next step: {next}")]);
            }
        }
        f.write_str(&table.finish())?;
        match self.ready {
            true => write!(f, "{GOOD}ready for a live update{GOOD:#}"),
            false => write!(f, "{ERROR}not ready for a live update{ERROR:#}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::tests::{folder, READY};
    use anstream::adapter::strip_str;

    fn verdicts(report: &Report) -> Vec<Verdict> {
        report
            .findings
            .iter()
            .map(|finding| finding.verdict)
            .collect()
    }

    #[test]
    fn a_ready_machine() {
        let root = folder(READY);
        let report = Report::of(&Machine::at(root.path()), Ok(Some("luo.ko 0.1".into())));
        assert_eq!(
            strip_str(&report.to_string()).to_string(),
            "\
ok  Kexec HandOver  on
ok  orchestrator    luo.ko 0.1
ok  file types      memfd-extents-v2, memfd-v2
ok  scratch area    144.00 MiB in 2 parts, the largest 128.00 MiB: the next kernel and its initrd must fit
ok  next kernel     loaded
ready for a live update"
        );
    }

    #[test]
    fn a_switch_is_read_as_the_kernel_reads_it() {
        assert!(["1", "y", "Yes", "true", "on", "ON"].into_iter().all(is_on));
        assert!(!["0", "n", "off", "o", "false", ""].into_iter().any(is_on));
    }

    #[test]
    fn each_missing_thing_has_a_next_step() {
        let root = folder(&[
            ("proc/cmdline", "kho=off\n"),
            ("sys/kernel/kexec_loaded", "0\n"),
        ]);
        let none = liveupdate::Error::NoDevice(liveupdate::Errno::NOENT);
        let report = Report::of(&Machine::at(root.path()), Err(none.into()));
        assert!(!report.ready);
        use Verdict::{Missing, Unknown};
        assert_eq!(
            verdicts(&report),
            [Missing, Missing, Unknown, Unknown, Missing]
        );
        assert!(report.findings.iter().all(|finding| finding.next.is_some()));
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["ready"], false);
        assert_eq!(
            json["findings"][4],
            serde_json::json!({
                "what": "next kernel", "verdict": "missing", "detail": "none is loaded",
                "next": "luoctl load KERNEL --initrd FILE --reuse-cmdline",
            })
        );
    }

    #[test]
    fn a_busy_device_and_what_cannot_be_seen_are_no_lack() {
        let root = folder(&[
            ("proc/cmdline", "kho=on kho_scratch=16M,64M,64M\n"),
            ("sys/kernel/kexec_loaded", "1\n"),
        ]);
        let busy = liveupdate::Error::DeviceBusy;
        let report = Report::of(&Machine::at(root.path()), Err(busy.into()));
        assert!(report.ready);
        use Verdict::{Good, Unknown};
        assert_eq!(verdicts(&report), [Good, Unknown, Unknown, Unknown, Good]);
        assert!(report.to_string().contains("16M,64M,64M"));
    }
}

// SPDX-License-Identifier: GPL-2.0

//! What those see who look on: tracepoints, /proc/PID/fdinfo and debugfs.

use super::common::debugfs::has;
use super::common::luo::{Device, Session, CREATE_SESSION};
use super::common::modules::{Kind, Recorder};
use super::common::{
    memfd, name_bytes, names_of_every_byte, only_ours, preserve_number, refused, session_by_bytes,
};
use crate::ctx::Ctx;
use crate::kexec;
use crate::kmsg::Log;
use crate::test::{Config, Orchestrator, Test};
use anyhow::{ensure, Context, Result};
use nix::errno::Errno;
use std::collections::BTreeMap;
use std::os::fd::AsRawFd;
use std::path::Path;

/// The cases.
pub const TESTS: &[Test] = &[
    Test::new("trace", Config::new(), &[trace_outgoing, trace_incoming]),
    Test::new("fdinfo", Config::new(), &[fdinfo, fdinfo_incoming]),
    Test::new(
        "odd_names",
        Config::new().orchestrators(&[Orchestrator::None]),
        &[odd_names],
    ),
    Test::new("debugfs", Config::new(), &[debugfs, debugfs_incoming]),
];

const TRACING: &str = "/sys/kernel/tracing";

/// The tracepoints, switched on until this is dropped.
struct Tracing;

/// What one line of the trace says.
#[derive(Debug)]
struct Event {
    step: String,
    session: String,
    token: u64,
    duration_ns: u64,
    error: i32,
}

impl Tracing {
    fn new() -> Result<Self> {
        Self::write("events/luo/enable", "1")?;
        Ok(Self)
    }

    fn write(file: &str, text: &str) -> Result<()> {
        let path = Path::new(TRACING).join(file);
        std::fs::write(&path, text).with_context(|| path.display().to_string())
    }

    /// The events since the last look.
    fn take(&self) -> Result<Vec<Event>> {
        let text = std::fs::read_to_string(Path::new(TRACING).join("trace"))?;
        Self::write("trace", "\n")?;
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines
            .map(|line| event(line).with_context(|| line.to_string()))
            .collect()
    }

    /// Fails unless these are the events since the last look: step, session, token, and error if it is not 0.
    fn expect(&self, what: &str, wanted: &[&str]) -> Result<Vec<Event>> {
        let events = self.take()?;
        let told: Vec<_> = events
            .iter()
            .map(|event| {
                let Event {
                    step,
                    session,
                    token,
                    error,
                    ..
                } = event;
                match error {
                    0 => format!("{step} {session} {token}"),
                    _ => format!("{step} {session} {token} {error}"),
                }
            })
            .collect();
        ensure!(told == wanted, "{what}: {told:?} instead of {wanted:?}");
        Ok(events)
    }
}

impl Drop for Tracing {
    fn drop(&mut self) {
        let _ = Self::write("events/luo/enable", "0");
    }
}

/// "TASK-PID [CPU] ... TIME: luo_STEP: session=NAME token=0x1 duration_ns=2 error=0"
fn event(line: &str) -> Result<Event> {
    let (_, event) = line.split_once(": luo_").context("no event of ours")?;
    let (step, fields) = event.split_once(": ").context("no fields")?;
    let fields: BTreeMap<_, _> = fields
        .split_whitespace()
        .filter_map(|field| field.split_once('='))
        .collect();
    let field = |name: &str| fields.get(name).copied().context(name.to_string());
    let token = field("token")?;
    let token = token.strip_prefix("0x").unwrap_or(token);
    Ok(Event {
        step: step.into(),
        session: field("session")?.into(),
        token: u64::from_str_radix(token, 16)?,
        duration_ns: field("duration_ns")?.parse()?,
        error: field("error")?.parse()?,
    })
}

fn trace_outgoing(ctx: &mut Ctx) -> Result<()> {
    let recorder = Recorder::new(ctx)?;
    let tracing = Tracing::new()?;
    let device = Device::open()?;
    let session = device.create_session("traced")?;
    tracing.expect("sessions alone", &[])?;
    let files = [memfd::create(64 << 20)?, memfd::create(0)?];
    memfd::fallocate(&files[0], 0, 0, 64 << 20)?;
    session.preserve(&files[0], 0xabc)?;
    session.preserve(&files[1], 2)?;
    let events = tracing.expect(
        "PRESERVE_FD",
        &["preserve traced 2748", "preserve traced 2"],
    )?;
    // The one has much to do, and the other nothing.
    let took: Vec<_> = events.iter().map(|event| event.duration_ns).collect();
    ensure!(took[0] > 10 * took[1] && took[1] > 0, "{took:?} ns");
    let twice = session.preserve(&files[0], 3);
    refused("twice", twice, Errno::EBUSY)?;
    tracing.expect("it fails", &["preserve traced 3 -16"])?;
    session.unpreserve(0xabc)?;
    tracing.expect("UNPRESERVE_FD", &["unpreserve traced 2748"])?;
    session.preserve(&recorder.open(Kind::A, 5)?, 5)?;
    session.prepare().map_err(|(errno, _)| errno)?;
    tracing.expect(
        "PREPARE",
        &["preserve traced 5", "prepare traced 2", "prepare traced 5"],
    )?;
    ctx.kexec_load()?;
    recorder.fail("freeze", 1, Errno::EIO)?;
    ensure!(kexec::execute() == Errno::EIO);
    tracing.expect(
        "a kexec that is refused",
        &["freeze traced 2", "freeze traced 5 -5", "unfreeze traced 2"],
    )?;
    let other = device.create_session("other")?;
    other.preserve(&files[0], 9)?;
    drop(other);
    tracing.expect("closing", &["preserve other 9", "unpreserve other 9"])?;
    ctx.keep((session, recorder));
    Ok(())
}

fn trace_incoming(ctx: &mut Ctx) -> Result<()> {
    let recorder = Recorder::new(ctx)?;
    let tracing = Tracing::new()?;
    let session = Device::open()?.retrieve_session("traced")?;
    recorder.fail("retrieve", 1, Errno::EIO)?;
    refused("it fails", session.retrieve(5), Errno::EIO)?;
    session.retrieve(2)?;
    tracing.expect(
        "RETRIEVE_FD",
        &["retrieve traced 5 -5", "retrieve traced 2"],
    )?;
    recorder.fail("can_finish", 1, Errno::EBUSY)?;
    refused("it is not ready", session.finish(), Errno::EBUSY)?;
    tracing.expect(
        "FINISH is refused",
        &["can_finish traced 2", "can_finish traced 5 -16"],
    )?;
    drop(session);
    tracing.expect(
        "closing",
        &[
            "can_finish traced 2",
            "can_finish traced 5",
            "finish traced 5",
            "finish traced 2",
        ],
    )?;
    recorder.remove()
}

/// What fdinfo shows of a session.
fn info_text(session: &Session) -> Result<String> {
    let path = format!("/proc/self/fdinfo/{}", session.0.as_raw_fd());
    std::fs::read_to_string(&path).context(path)
}

/// Its fields, among those that it shows of any descriptor.
fn info(session: &Session) -> Result<BTreeMap<String, String>> {
    let text = info_text(session)?;
    let fields = text.lines().filter_map(|line| line.split_once(":\t"));
    Ok(fields
        .map(|(name, value)| (name.to_string(), value.to_string()))
        .collect())
}

fn shows(session: &Session, wanted: [(&str, &str); 4]) -> Result<()> {
    let info = info(session)?;
    for (name, value) in wanted {
        let shown = info.get(name).map(String::as_str);
        ensure!(shown == Some(value), "{name} {value:?}: {info:?}");
    }
    Ok(())
}

fn fdinfo(ctx: &mut Ctx) -> Result<()> {
    only_ours(ctx, "shows nothing there")?;
    let device = Device::open()?;
    let name = "a name: \"quoted\"";
    let session = device.create_session(name)?;
    // As in the log, so that a name cannot look like another field.
    let shown = "[a name: \\\"quoted\\\"]";
    let state = |state, ordered, files| -> Result<()> {
        shows(
            &session,
            [
                ("session", shown),
                ("state", state),
                ("ordered", ordered),
                ("files", files),
            ],
        )
    };
    state("normal", "0", "0")?;
    for token in 0..3 {
        session.preserve(&memfd::create(0)?, token)?;
    }
    session.set_flags(1)?;
    state("normal", "1", "3")?;
    session.prepare().map_err(|(errno, _)| errno)?;
    state("prepared", "1", "3")?;
    session.cancel()?;
    session.unpreserve(2)?;
    state("normal", "1", "2")?;
    ctx.keep(session);
    Ok(())
}

fn fdinfo_incoming(_: &mut Ctx) -> Result<()> {
    let session = Device::open()?.retrieve_session("a name: \"quoted\"")?;
    let shown = "[a name: \\\"quoted\\\"]";
    let state = |files| -> Result<()> {
        shows(
            &session,
            [
                ("session", shown),
                ("state", "updated"),
                ("ordered", "0"),
                ("files", files),
            ],
        )
    };
    state("2")?;
    session.retrieve(1)?;
    state("2")?;
    session.finish()?;
    state("0")
}

/// Would be two events, the second one of another session; and lines of fdinfo.
const FORGED: &[u8] = b"x token=0x9 error=-1\n: luo_preserve: session=y token=0x8";
const FORGED_INFO: &[u8] = b"x]\nfiles:\t9\nstate:\tfrozen\r\x1b[2K";

/// Whatever is in a name: fdinfo has the lines that it always has, and the log and the trace have one line of each step.
fn odd_names(ctx: &mut Ctx) -> Result<()> {
    // One that has not had as many lines of late as go to the log.
    ctx.insmod("")?;
    let tracing = Tracing::new()?;
    let device = Device::open()?;
    let plain = info_text(&device.create_session("plain")?)?;
    let mut names = names_of_every_byte();
    names.extend([FORGED.to_vec(), FORGED_INFO.to_vec()]);
    for name in names {
        let shown = name.escape_ascii().to_string();
        let test = || -> Result<()> {
            let session = session_by_bytes(&device, CREATE_SESSION, &name_bytes(&name))?;
            let info = info_text(&session)?;
            let wanted = plain.replace("[plain]", &format!("[{shown}]"));
            ensure!(info == wanted, "fdinfo: {info:?}");

            let mut log = Log::from_now()?;
            let closed = preserve_number(&session, -1, 1);
            refused("a closed descriptor", closed, Errno::EBADF)?;
            let lines = log.lines()?;
            let ours: Vec<_> = lines.iter().filter(|it| it.starts_with("luo:")).collect();
            let line = format!("luo: session [{shown}]: cannot preserve fd -1 as token 0x1: EBADF");
            // Backslashes are escaped where the log is read here.
            let wanted = line.replace('\\', "\\x5c");
            ensure!(ours == [&wanted], "the log: {lines:?}");

            session.preserve(&memfd::create(0)?, 2)?;
            let word = shown.replace(' ', "\\x20");
            let wanted = [
                format!("preserve {word} 1 -9"),
                format!("preserve {word} 2"),
            ];
            tracing.expect("the trace", &wanted.each_ref().map(String::as_str))?;
            drop(session);
            tracing.expect("closing", &[&format!("unpreserve {word} 2")])?;
            Ok(())
        };
        test().with_context(|| shown.clone())?;
    }
    Ok(())
}

const HANDLER: &str = "luo-recorder-a-v1";
const FLB: &str = "luo-recorder-x-v1";

fn debugfs(ctx: &mut Ctx) -> Result<()> {
    only_ours(ctx, "has no debugfs")?;
    has("handlers", "memfd-v2", Some("files 0"))?;
    has("handlers", HANDLER, None)?;
    has("flbs", FLB, None)?;
    let recorder = Recorder::new(ctx)?;
    has("handlers", HANDLER, Some("files 0"))?;
    has("flbs", FLB, Some("outgoing 0 incoming 0"))?;
    let device = Device::open()?;
    let session = device.create_session("counted")?;
    for token in 0..3 {
        session.preserve(&recorder.open(Kind::A, token)?, token)?;
    }
    session.preserve(&recorder.open(Kind::B, 3)?, 3)?;
    has("handlers", HANDLER, Some("files 3"))?;
    has("flbs", FLB, Some("outgoing 4 incoming 0"))?;
    session.unpreserve(0)?;
    has("handlers", HANDLER, Some("files 2"))?;
    has("flbs", FLB, Some("outgoing 3 incoming 0"))?;
    ctx.keep((session, recorder));
    Ok(())
}

fn debugfs_incoming(ctx: &mut Ctx) -> Result<()> {
    let recorder = Recorder::new(ctx)?;
    has("handlers", HANDLER, Some("files 0"))?;
    has("flbs", FLB, Some("outgoing 0 incoming 3"))?;
    let session = Device::open()?.retrieve_session("counted")?;
    session.retrieve(1)?;
    has("handlers", HANDLER, Some("files 1"))?;
    session.finish()?;
    has("handlers", HANDLER, Some("files 0"))?;
    has("flbs", FLB, Some("outgoing 0 incoming 0"))?;
    drop(session);
    recorder.remove()?;
    has("handlers", HANDLER, None)?;
    has("flbs", FLB, None)
}

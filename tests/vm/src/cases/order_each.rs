// SPDX-License-Identifier: GPL-2.0

//! The exact sequence of callbacks in the new kernel: each failing at each position, and the holder gone at each point.

use super::common::luo::{Device, Session};
use super::common::modules::{id_of, Kind, Recorder};
use super::common::refused;
use crate::ctx::Ctx;
use crate::process::Child;
use crate::test::{Config, Test};
use anyhow::{ensure, Context, Result};
use nix::errno::Errno;

/// The cases.
pub const TESTS: &[Test] = &[Test::new(
    "incoming",
    Config::new(),
    &[hand_nothing_on, hand_on, all],
)];

/// Files of a session: their kinds, by turns.
const FILES: usize = 4;

/// What becomes of a session in the new kernel.
#[derive(Clone, Copy, Debug)]
enum Scenario {
    /// The k-th retrieval fails.
    RetrieveFails(usize),
    /// The k-th file says no to FINISH.
    CanFinishRefuses(usize),
    /// So many files are retrieved, then the holder is killed.
    Killed(usize),
    /// So many files are retrieved, then the session is closed.
    Closed(usize),
    /// The holder is killed after FINISH.
    KilledFinished,
}

fn scenarios() -> Vec<Scenario> {
    let positions = || 1..=FILES;
    let counts = || 0..=FILES;
    positions()
        .map(Scenario::RetrieveFails)
        .chain(positions().map(Scenario::CanFinishRefuses))
        .chain(counts().map(Scenario::Killed))
        .chain(counts().map(Scenario::Closed))
        .chain([Scenario::KilledFinished])
        .collect()
}

/// The session of a scenario: its name, and its files, whose number is their token, too.
struct Files {
    name: String,
    first: u64,
}

impl Files {
    fn of(number: usize) -> Self {
        Self {
            name: format!("scenario-{number}"),
            first: (number * 10) as u64,
        }
    }

    fn tokens(&self) -> impl DoubleEndedIterator<Item = u64> + use<> {
        self.first..self.first + FILES as u64
    }

    fn kind(token: u64) -> Kind {
        if token % 2 == 0 {
            Kind::A
        } else {
            Kind::B
        }
    }

    /// As the record calls it.
    fn call(token: u64) -> String {
        let kind = match Self::kind(token) {
            Kind::A => 'a',
            _ => 'b',
        };
        format!("{kind}{token}")
    }
}

/// The session that is finished last, and with it the FLBs.
const LAST: &str = "last";

/// What is left of this kernel in the next one when there is nothing in it.
fn hand_nothing_on(ctx: &mut Ctx) -> Result<()> {
    Recorder::new(ctx)?.remove()
}

fn hand_on(ctx: &mut Ctx) -> Result<()> {
    let recorder = Recorder::new(ctx)?;
    let (count, pages) = recorder.unrestored()?;
    ctx.set("unrestored", format!("{count} {pages}"));
    let device = Device::open()?;
    for number in 0..scenarios().len() {
        let files = Files::of(number);
        let session = device.create_session(&files.name)?;
        for token in files.tokens() {
            let file = recorder.open(Files::kind(token), token)?;
            session.preserve(&file, token)?;
        }
        ctx.keep(session);
    }
    let last = device.create_session(LAST)?;
    last.preserve(&recorder.open(Kind::A, 1)?, 1)?;
    ctx.keep((last, recorder));
    Ok(())
}

fn all(ctx: &mut Ctx) -> Result<()> {
    let recorder = Recorder::new(ctx)?;
    let device = Device::open()?;
    for (number, scenario) in scenarios().into_iter().enumerate() {
        let files = Files::of(number);
        run(&device, &recorder, &files, scenario).with_context(|| format!("{scenario:?}"))?;
        let again = device.retrieve_session(&files.name);
        refused("it is finished", again, Errno::ENOENT)?;
        recorder.expect("nothing more", "")?;
        // Its name is free in either case, and the files can be preserved anew.
        let session = device.create_session(&files.name)?;
        session.preserve(&recorder.open(Kind::B, 7)?, 7)?;
        drop(session);
        recorder.take()?;
    }
    drop(device.retrieve_session(LAST)?);
    recorder.expect(
        "the last file",
        "can_finish a1 0, finish a1 0, y.retrieve, y.finish, x.retrieve, x.finish",
    )?;
    recorder.nothing_left()?;
    let (count, pages) = recorder.unrestored()?;
    let (now, wanted) = (format!("{count} {pages}"), ctx.get("unrestored")?);
    ensure!(
        now == wanted,
        "of the previous kernel is left (number, pages): {now} instead of {wanted}"
    );
    recorder.remove()
}

fn run(device: &Device, recorder: &Recorder, files: &Files, scenario: Scenario) -> Result<()> {
    let take = || device.retrieve_session(&files.name);
    match scenario {
        Scenario::RetrieveFails(k) => {
            let session = take()?;
            recorder.fail("retrieve", k, Errno::EIO)?;
            for (i, token) in files.tokens().enumerate() {
                match i + 1 == k {
                    true => refused("it fails", session.retrieve(token), Errno::EIO)?,
                    false => retrieve(&session, token)?,
                }
            }
            recorder.expect("RETRIEVE_FD", &retrieved(files, FILES))?;
            let failed = files.tokens().nth(k - 1);
            refused(
                "it is final",
                session.retrieve(failed.unwrap_or(0)),
                Errno::EIO,
            )?;
            recorder.expect("again", "")?;
            session.finish()?;
            let status = |i| if i + 1 == k { -5 } else { 1 };
            recorder.expect("FINISH", &finished(files, status))?;
        }
        Scenario::CanFinishRefuses(k) => {
            let session = take()?;
            for token in files.tokens() {
                retrieve(&session, token)?;
            }
            recorder.take()?;
            let asked = can_finish(files, |_| 1);
            for _ in 0..2 {
                recorder.fail("can_finish", k, Errno::EBUSY)?;
                refused("FINISH", session.finish(), Errno::EBUSY)?;
                recorder.expect("FINISH is refused", &asked[..k].join(", "))?;
                // Nothing was finished.
                for token in files.tokens() {
                    session.retrieve(token)?;
                }
                recorder.expect("all is there", "")?;
            }
            // Nor by closing it, which makes it available again.
            recorder.fail("can_finish", k, Errno::EBUSY)?;
            drop(session);
            recorder.expect("closing is refused", &asked[..k].join(", "))?;
            let session = take()?;
            ensure!(session.state()? == (4, FILES as u64, FILES as u64));
            drop(session);
            recorder.expect("closing", &finished(files, |_| 1))?;
        }
        Scenario::Killed(count) | Scenario::Closed(count) => {
            let hold = || -> Result<_> {
                let session = take()?;
                for token in files.tokens().take(count) {
                    retrieve(&session, token)?;
                }
                Ok(session)
            };
            match scenario {
                Scenario::Killed(_) => {
                    let holder = Child::holder(hold)?;
                    recorder.expect("RETRIEVE_FD", &retrieved(files, count))?;
                    holder.kill()?;
                }
                _ => {
                    let session = hold()?;
                    recorder.expect("RETRIEVE_FD", &retrieved(files, count))?;
                    drop(session);
                }
            }
            let status = |i| i32::from(i < count);
            recorder.expect("the end of it", &finished(files, status))?;
        }
        Scenario::KilledFinished => {
            let holder = Child::holder(|| {
                let session = take()?;
                session.finish()?;
                Ok(session)
            })?;
            recorder.expect("FINISH", &finished(files, |_| 0))?;
            holder.kill()?;
        }
    }
    Ok(())
}

fn retrieve(session: &Session, token: u64) -> Result<()> {
    let id = id_of(&session.retrieve(token)?)?;
    ensure!(id == token, "token {token} is file {id}");
    Ok(())
}

/// The record of retrieving the first files.
fn retrieved(files: &Files, count: usize) -> String {
    let lines = files.tokens().take(count);
    let lines = lines.map(|token| format!("retrieve {}", Files::call(token)));
    lines.collect::<Vec<_>>().join(", ")
}

/// What all files are asked; `status` is what is said of the i-th.
fn can_finish(files: &Files, status: impl Fn(usize) -> i32) -> Vec<String> {
    let lines = files.tokens().enumerate();
    lines
        .map(|(i, token)| format!("can_finish {} {}", Files::call(token), status(i)))
        .collect()
}

/// The record of a session's end.
fn finished(files: &Files, status: impl Fn(usize) -> i32) -> String {
    let mut record = can_finish(files, &status);
    let tokens: Vec<_> = files.tokens().enumerate().collect();
    for (i, token) in tokens.into_iter().rev() {
        record.push(format!("finish {} {}", Files::call(token), status(i)));
    }
    record.join(", ")
}

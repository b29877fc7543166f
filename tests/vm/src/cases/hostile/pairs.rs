// SPDX-License-Identifier: GPL-2.0

//! Pairs of sessions, each file of which claims what one of the other has, and two threads that take or discard those
//! of a pair at the same time: of two files, one is whole.

use super::super::common::forger::Forger;
use super::super::common::luo::{Device, Session};
use super::super::common::{data, raise_fd_limit, still_works};
use super::format::Format;
use super::press;
use super::victim::{self, Strangers, Victim, BYSTANDER};
use crate::ctx::Ctx;
use crate::test::StageFn;
use anyhow::{ensure, Context, Result};
use luo_handover::locate::{file, Place};
use luo_handover::memory::Memory;
use luo_handover::write;
use nix::errno::Errno;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What two files have in common.
struct Kind {
    /// What it is.
    name: &'static str,
    /// The encoding of the files.
    format: Format,
    /// How many files there are in a session, beside one that is nobody else's.
    files: usize,
    /// Lets the second file claim what the first one has.
    share: fn(&mut Victim<'_>, First),
    /// Which of the data that is: index and number of pages, each within an extent.
    shared: &'static [(u64, u64)],
}

impl Kind {
    /// The tokens of the files.
    fn tokens(&self) -> impl DoubleEndedIterator<Item = u64> {
        (0..self.files as u64).map(|i| BYSTANDER + 1 + i)
    }
}

/// Where the first one of two files is described.
#[derive(Clone, Copy)]
struct First {
    memfd: Place,
    chunk: Place,
    entries: Place,
    table: Place,
}

/// Copies words from one place to the same ones of another.
fn copy(it: &mut Victim<'_>, from: Place, to: Place, words: std::ops::Range<usize>) {
    for word in words {
        let value = from.get(it.memory, word);
        it.set(to, word, value);
    }
}

const KINDS: &[Kind] = &[
    Kind {
        name: "the description",
        format: Format::V2,
        files: 60,
        share: |it, first| it.set(it.file, file::DATA, first.memfd.pa),
        shared: &[(0, 1), (1, 1), (4, 4)],
    },
    Kind {
        name: "the array",
        format: Format::V2,
        files: 60,
        share: |it, first| copy(it, first.chunk, it.chunk(), 1..2),
        shared: &[(0, 1), (1, 1), (4, 4)],
    },
    Kind {
        name: "single pages",
        format: Format::Run,
        files: 60,
        share: |it, first| copy(it, first.entries, it.entries, 0..2),
        shared: &[(0, Format::RUN)],
    },
    Kind {
        name: "a large folio",
        format: Format::Extents,
        files: 60,
        share: |it, first| copy(it, first.entries, it.entries, 4..6),
        shared: &[(8, 4)],
    },
    Kind {
        name: "many large folios",
        format: Format::Folios,
        files: 2,
        share: |it, first| copy(it, first.entries, it.entries, 0..2 * 70),
        shared: &[(0, 4 * 70)],
    },
    Kind {
        name: "a table",
        format: Format::Singles,
        files: 3,
        share: |it, first| copy(it, first.entries, it.entries, 4..6),
        shared: &[(512, 512)],
    },
    Kind {
        name: "the pages of a table",
        format: Format::Singles,
        files: 3,
        share: |it, first| copy(it, first.table, it.table(), 0..512),
        shared: &[(512, 512)],
    },
    Kind {
        name: "placed pages",
        format: Format::Tables,
        files: 3,
        share: |it, first| {
            copy(it, first.entries, it.entries, 4..6);
            copy(it, first.table, it.table(), 480..512);
        },
        shared: &[(992, 32)],
    },
];

/// What is done with the files of a session.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Act {
    Retrieve,
    Discard,
}

/// What is done with those of a pair.
const WAYS: [[Act; 2]; 3] = [
    [Act::Retrieve, Act::Retrieve],
    [Act::Retrieve, Act::Discard],
    [Act::Discard, Act::Discard],
];

/// Each pair: its sessions are number 2 * i and 2 * i + 1.
fn pairs() -> impl Iterator<Item = (&'static Kind, [Act; 2])> {
    KINDS.iter().flat_map(|kind| WAYS.map(|way| (kind, way)))
}

fn name(number: usize) -> String {
    format!("session {number}")
}

/// Two kernels.
pub const STAGES: &[StageFn] = &[forge, claim];

fn forge(ctx: &mut Ctx) -> Result<()> {
    let Some(forger) = Forger::new()? else {
        return ctx.skip("there is no luo_forger.ko in this VM");
    };
    let mut memory = forger.memory();
    let sessions: Vec<_> = pairs()
        .flat_map(|(kind, _)| [kind; 2])
        .enumerate()
        .map(|(number, kind)| {
            let tokens = kind.tokens().chain([BYSTANDER]);
            victim::session_of(&name(number), kind.format, tokens)
        })
        .collect();
    let root = write::handover(&mut memory, 1, &sessions).root_pa;
    victim::fill(&memory, &forger, root)?;
    for (i, (kind, _)) in pairs().enumerate() {
        for j in 0..kind.files {
            share(&mut memory, root, kind, (i, j));
        }
    }
    forger.publish(&memory, root)
}

/// Lets two files of a pair claim the same.
fn share(memory: &mut Memory, root: u64, kind: &Kind, (i, j): (usize, usize)) {
    let none = Strangers::default();
    let it = Victim::find_file(memory, root, (2 * i, j), kind.format, none);
    let first = First {
        memfd: it.memfd,
        chunk: it.chunk(),
        entries: it.entries,
        table: it.table(),
    };
    let mut it = Victim::find_file(memory, root, (2 * i + 1, j), kind.format, none);
    (kind.share)(&mut it, first);
}

/// Lets two threads go on at once: to wake one of them takes longer than what they do then.
#[derive(Default)]
struct Together(AtomicUsize);

impl Together {
    /// Comes to this meeting, of those that are numbered from 0.
    fn meet(&self, number: usize) {
        self.0.fetch_add(1, Ordering::AcqRel);
        while self.0.load(Ordering::Acquire) < 2 * (number + 1) {
            std::hint::spin_loop();
        }
    }
}

/// What a thread was told of a session. Nothing was retrieved of one that was discarded.
struct Told {
    files: Vec<(u64, Result<File, Errno>)>,
    bystander: Option<Result<File, Errno>>,
    finished: Result<(), Errno>,
}

fn act(act: Act, kind: &Kind, session: Session) -> Told {
    let (mut files, mut bystander) = (Vec::new(), None);
    if act == Act::Retrieve {
        bystander = Some(session.retrieve(BYSTANDER));
        // In the order in which FINISH discards: who was late comes to where the other one is.
        let each = |token| (token, session.retrieve(token));
        files.extend(kind.tokens().rev().map(each));
    }
    Told {
        files,
        bystander,
        finished: session.finish(),
    }
}

fn claim(ctx: &mut Ctx) -> Result<()> {
    raise_fd_limit(1 << 14)?;
    ctx.insmod("")?;
    let device = Device::open()?;
    let mut sides = [Vec::new(), Vec::new()];
    for i in 0..pairs().count() {
        for (side, sessions) in sides.iter_mut().enumerate() {
            sessions.push(device.retrieve_session(&name(2 * i + side))?);
        }
    }
    let together = Together::default();
    let work = |side: usize, sessions: Vec<Session>| -> Vec<Told> {
        let all = pairs().zip(sessions).enumerate();
        let told = all.map(|(i, ((kind, acts), session))| {
            together.meet(i);
            act(acts[side], kind, session)
        });
        told.collect()
    };
    let [first, second] = sides;
    let told = std::thread::scope(|scope| {
        let second = scope.spawn(|| work(1, second));
        [work(0, first), second.join().expect("no panic")]
    });
    let mut pressed = None;
    // Once more when all that was freed is somebody else's.
    for _ in 0..2 {
        for (i, (kind, acts)) in pairs().enumerate() {
            look(kind, i, acts, [&told[0][i], &told[1][i]])
                .with_context(|| format!("two have {}: {acts:?}", kind.name))?;
        }
        pressed = pressed.or(Some(press(ctx)?));
    }
    drop((pressed, told, device));

    // What they wrote to the account, all at once, is right.
    ctx.rmmod()?;
    ctx.log().lines()?;
    ctx.insmod("")?;
    ctx.log()
        .expect("live update number 1: 0 sessions were handed over")?;
    still_works(&Device::open()?.create_session("afterwards")?)
}

/// Fails unless of two files that were retrieved one is whole, and all that are nobody else's are.
fn look(kind: &Kind, pair: usize, acts: [Act; 2], told: [&Told; 2]) -> Result<()> {
    let mut owners = vec![0; kind.files];
    for (side, told) in told.into_iter().enumerate() {
        told.finished.context("FINISH")?;
        let number = 2 * pair + side;
        for ((token, file), owners) in told.files.iter().zip(&mut owners) {
            match file {
                Ok(file) => {
                    *owners += 1;
                    let seeds = [2 * pair, number].map(|it| victim::seed(it, *token));
                    check(file, kind, seeds).with_context(|| format!("side {side}, {token}"))?;
                }
                Err(errno) => ensure!(*errno == Errno::EINVAL, "{errno:?}"),
            }
        }
        if let Some(bystander) = &told.bystander {
            let bystander = bystander.as_ref().map_err(|errno| *errno);
            victim::check(bystander?, kind.format, number, BYSTANDER).context("beside")?;
        }
    }
    let wanted = match acts {
        [Act::Retrieve, Act::Retrieve] => 1..=1,
        [Act::Discard, Act::Discard] => 0..=0,
        _ => 0..=1,
    };
    let each_has = owners.iter().all(|owners| wanted.contains(owners));
    ensure!(each_has, "so many have each file: {owners:?}");
    Ok(())
}

/// Fails unless a file has its own data, and what the first one of the two had.
fn check(file: &File, kind: &Kind, [first, own]: [u64; 2]) -> Result<()> {
    let bytes =
        |seed, index: u64, nr_pages: u64| data::bytes(seed, index * 4096, nr_pages as usize * 4096);
    for &(index, nr_pages) in kind.format.extents() {
        let mut wanted = bytes(own, index, nr_pages);
        let inside = |(start, _): &&(u64, u64)| (index..index + nr_pages).contains(start);
        for &(start, len) in kind.shared.iter().filter(inside) {
            let from = (start - index) as usize * 4096;
            let shared = bytes(first, start, len);
            wanted[from..from + shared.len()].copy_from_slice(&shared);
        }
        let mut got = vec![0; wanted.len()];
        file.read_exact_at(&mut got, index * 4096)?;
        let differs = got
            .iter()
            .zip(&wanted)
            .position(|(got, wanted)| got != wanted);
        ensure!(differs.is_none(), "byte {differs:?} behind page {index}");
    }
    Ok(())
}

// SPDX-License-Identifier: GPL-2.0

//! LIST_SESSIONS and LIST_FDS taken in small parts, while others add to the list and take away.

use super::common::luo::{Device, Session};
use super::common::{memfd, only_ours};
use crate::ctx::Ctx;
use crate::test::{Config, Test};
use anyhow::{ensure, Context, Result};
use nix::errno::Errno;
use std::collections::HashSet;
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::Barrier;

/// The cases.
pub const TESTS: &[Test] = &[
    Test::new("sessions_shift", Config::new(), &[sessions_shift]),
    Test::new("fds_shift", Config::new(), &[fds_shift]),
    Test::new("two_listers", Config::new(), &[two_listers]),
    Test::new(
        "sessions_while_changing",
        Config::new(),
        &[sessions_while_changing],
    ),
    Test::new("fds_while_changing", Config::new(), &[fds_while_changing]),
    Test::new("incoming_shift", Config::new(), &[hand_on, incoming_shift]),
];

fn ours(ctx: &Ctx) -> Result<()> {
    only_ours(ctx, "has no extensions")
}

/// A part of a list, by whatever its entries are told by, and the total.
type Part<K> = Result<(Vec<K>, u64), Errno>;

fn sessions(device: &Device, start: u64, room: usize) -> Part<String> {
    let (entries, total) = device.list_sessions(start, room)?;
    Ok((entries.iter().map(|entry| entry.name()).collect(), total))
}

fn tokens(session: &Session, start: u64, room: usize) -> Part<u64> {
    let (entries, total) = session.list_fds(start, room)?;
    Ok((entries.iter().map(|entry| entry.token).collect(), total))
}

/// Until when a client goes on: both are as the header says.
#[derive(Clone, Copy, Debug)]
enum Until {
    NoMore,
    Total,
}

/// Everything, in parts of so many.
fn in_parts<K>(room: usize, until: Until, list: impl Fn(u64, usize) -> Part<K>) -> Result<Vec<K>> {
    let mut all = Vec::new();
    loop {
        let (part, total) = list(all.len() as u64, room)?;
        let empty = part.is_empty();
        all.extend(part);
        ensure!(total >= all.len() as u64, "{total} after {}", all.len());
        match until {
            Until::NoMore if empty => return Ok(all),
            Until::Total if all.len() as u64 == total => return Ok(all),
            _ => {}
        }
    }
}

/// Fails if something is listed twice, or something of what was there throughout is not.
fn whole<K: Clone + Debug + Eq + Hash>(all: &[K], lasting: &[K]) -> Result<()> {
    let set: HashSet<_> = all.iter().collect();
    ensure!(set.len() == all.len(), "something is there twice: {all:?}");
    let missing: Vec<_> = lasting.iter().filter(|key| !set.contains(key)).collect();
    ensure!(missing.is_empty(), "{missing:?} are not in {all:?}");
    Ok(())
}

fn sessions_shift(ctx: &mut Ctx) -> Result<()> {
    ours(ctx)?;
    let device = Device::open()?;
    let create = |name: &str| device.create_session(name);
    let mut kept = ["a", "b", "c", "d", "e", "f"]
        .map(|name| Some(create(name)))
        .into_iter()
        .collect::<Option<Result<Vec<_>, _>>>()
        .context("names")??;
    let list = |start, room, names: &[&str], total| -> Result<()> {
        let got = sessions(&device, start, room)?;
        ensure!(
            got.0 == names && got.1 == total,
            "from {start}: {got:?} instead of {names:?} of {total}"
        );
        Ok(())
    };
    list(0, 2, &["a", "b"], 6)?;
    // What comes next is c, even with a gone.
    drop(kept.remove(0));
    list(2, 2, &["c", "d"], 6)?;
    // The same call again says the same.
    list(2, 2, &["c", "d"], 6)?;
    // b and d go; what comes is of no listing that has begun.
    drop((kept.remove(0), kept.remove(1)));
    kept.push(create("g")?);
    list(4, 2, &["e", "f"], 6)?;
    list(6, 2, &[], 6)?;
    // A call further back is remembered, too; any other index counts what is there now.
    list(4, 1, &["e"], 6)?;
    list(1, 9, &["e", "f", "g"], 4)?;
    list(3, 9, &["g"], 4)?;
    // A new listing forgets the old one.
    list(0, 2, &["c", "e"], 4)?;
    list(6, 2, &[], 4)?;
    list(4, 2, &[], 4)?;
    list(2, 2, &["f", "g"], 4)?;
    // Also one that has no room, and so lists nothing.
    list(0, 0, &[], 4)?;
    let new = create("h")?;
    list(4, 2, &["h"], 5)?;
    drop(new);
    list(0, 2, &["c", "e"], 4)?;
    list(2, 2, &["f", "g"], 4)?;
    // All of what was listed goes; and a name that comes again is another session.
    drop(kept);
    let _again = create("c")?;
    list(2, 2, &[], 2)?;
    list(0, 2, &["c"], 1)?;
    // Another open file has nothing to do with it.
    drop(device);
    let device = Device::open()?;
    ensure!(sessions(&device, 2, 2)? == (vec![], 1));
    Ok(())
}

fn fds_shift(ctx: &mut Ctx) -> Result<()> {
    ours(ctx)?;
    let session = Device::open()?.create_session("shift")?;
    for token in 1..=6 {
        session.preserve(&memfd::create(0)?, token)?;
    }
    let list = |start, wanted: &[u64], total| -> Result<()> {
        let got = tokens(&session, start, 2)?;
        ensure!(got.0 == wanted && got.1 == total, "from {start}: {got:?}");
        Ok(())
    };
    list(0, &[1, 2], 6)?;
    session.unpreserve(1)?;
    session.unpreserve(3)?;
    // Put there again, it is another one.
    session.preserve(&memfd::create(0)?, 1)?;
    list(2, &[4, 5], 5)?;
    list(4, &[6], 5)?;
    list(5, &[], 5)?;
    ensure!(session.tokens()? == [2, 4, 5, 6, 1]);
    Ok(())
}

/// Two threads that list at the same time do not disturb one another.
fn two_listers(ctx: &mut Ctx) -> Result<()> {
    ours(ctx)?;
    let device = Device::open()?;
    let mut kept = Vec::new();
    for i in 0..10 {
        kept.push(device.create_session(&i.to_string())?);
    }
    let other = |start, wanted: [&str; 2]| -> Result<()> {
        let got = std::thread::scope(|scope| {
            let list = scope.spawn(|| sessions(&device, start, 2));
            list.join().expect("no panic")
        })?;
        ensure!(got.0 == wanted, "another thread from {start}: {got:?}");
        Ok(())
    };
    ensure!(sessions(&device, 0, 3)?.0 == ["0", "1", "2"]);
    drop(kept.drain(..3));
    // To a thread that has listed nothing, an index is one of what is there.
    other(3, ["6", "7"])?;
    other(0, ["3", "4"])?;
    ensure!(sessions(&device, 3, 3)?.0 == ["3", "4", "5"]);
    Ok(())
}

/// How often the list is made anew, so that what goes away stands before what lasts, and each such list is listed.
const LISTS: u64 = 8;
const LISTINGS: usize = 7;

/// Lists in parts of all sizes, in two threads, while `change` runs in a third again and again.
fn while_changing<K: Clone + Debug + Eq + Hash + Sync>(
    lasting: &[K],
    list: impl Fn(u64, usize) -> Part<K> + Sync,
    mut change: impl FnMut(u64) -> Result<()> + Send,
) -> Result<()> {
    let done = AtomicBool::new(false);
    let start = Barrier::new(3);
    let lister = |until| -> Result<()> {
        start.wait();
        for room in 1..=LISTINGS {
            let all = in_parts(room, until, &list)?;
            whole(&all, lasting).with_context(|| format!("{until:?}, in parts of {room}"))?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let changer = scope.spawn(|| -> Result<()> {
            start.wait();
            for round in 0.. {
                change(round)?;
                if done.load(Relaxed) {
                    break;
                }
            }
            Ok(())
        });
        let listers = [Until::NoMore, Until::Total].map(|until| {
            let lister = &lister;
            scope.spawn(move || lister(until))
        });
        let results = listers.map(|lister| lister.join().expect("no panic"));
        done.store(true, Relaxed);
        changer.join().expect("no panic")?;
        results.into_iter().collect()
    })
}

/// Entries that last among others that come and go.
const LASTING: u64 = 12;
const FLEETING: u64 = 24;

fn sessions_while_changing(ctx: &mut Ctx) -> Result<()> {
    ours(ctx)?;
    let device = Device::open()?;
    for _ in 0..LISTS {
        let (mut fleeting, mut lasting) = (Vec::new(), Vec::new());
        for i in 0..FLEETING {
            fleeting.push(device.create_session(&format!("fleeting-{i}"))?);
            if i % (FLEETING / LASTING) == 0 {
                lasting.push(device.create_session(&format!("lasting-{i}"))?);
            }
        }
        let names: Result<Vec<_>, _> = lasting.iter().map(Session::name).collect();
        let list = |start, room| sessions(&device, start, room);
        while_changing(&names?, list, |round| {
            let at = (round * 7 % FLEETING) as usize;
            let name = fleeting[at].name()?;
            drop(fleeting.remove(at));
            fleeting.push(device.create_session(&name)?);
            Ok(())
        })?;
        let (_, total) = device.list_sessions(0, 0)?;
        ensure!(total == LASTING + FLEETING, "{total} at the end");
    }
    Ok(())
}

fn fds_while_changing(ctx: &mut Ctx) -> Result<()> {
    ours(ctx)?;
    let device = Device::open()?;
    let is_fleeting = |token: u64| token % 3 != 0;
    let all = LASTING + FLEETING;
    let files: Result<Vec<_>> = (0..all).map(|_| memfd::create(0)).collect();
    let files = files?;
    for _ in 0..LISTS {
        let session = device.create_session("files")?;
        for (file, token) in files.iter().zip(0..) {
            session.preserve(file, token)?;
        }
        let lasting: Vec<_> = (0..all).filter(|&token| !is_fleeting(token)).collect();
        let list = |start, room| tokens(&session, start, room);
        while_changing(&lasting, list, |round| {
            let token = round * 7 % all;
            if is_fleeting(token) {
                session.unpreserve(token)?;
                session.preserve(&files[token as usize], token)?;
            }
            Ok(())
        })?;
        ensure!(session.tokens()?.len() as u64 == all);
    }
    Ok(())
}

const HANDED_ON: [&str; 5] = ["one", "two", "three", "four", "five"];

fn hand_on(ctx: &mut Ctx) -> Result<()> {
    ours(ctx)?;
    let device = Device::open()?;
    for name in HANDED_ON {
        ctx.keep(device.create_session(name)?);
    }
    Ok(())
}

/// Sessions that are finished while they are listed, behind others that are made and closed.
fn incoming_shift(_: &mut Ctx) -> Result<()> {
    let device = Device::open()?;
    let list = |start, wanted: &[&str], total| -> Result<()> {
        let got = sessions(&device, start, 2)?;
        ensure!(got.0 == wanted && got.1 == total, "from {start}: {got:?}");
        Ok(())
    };
    let mut new = vec![device.create_session("a")?, device.create_session("b")?];
    list(0, &["a", "b"], 7)?;
    drop(new.remove(0));
    new.push(device.create_session("c")?);
    list(2, &["one", "two"], 7)?;
    for name in ["one", "three"] {
        drop(device.retrieve_session(name)?);
    }
    // Of the same name as one that is finished.
    new.push(device.create_session("one")?);
    list(4, &["four", "five"], 6)?;
    drop((new, device.retrieve_session("two")?));
    list(6, &[], 6)?;
    list(0, &["four", "five"], 2)?;
    drop(device.retrieve_session("four")?);
    list(2, &[], 2)?;
    Ok(())
}

// SPDX-License-Identifier: GPL-2.0

//! The extensions of the user ABI: what each does, and each of its errors.

use super::common::command::Command;
use super::common::ext::{self, FdEntry, FlagsArg, InfoArg, ListArg, SessionEntry, TokenArg};
use super::common::ext::{
    CANCEL, GET_INFO, GET_STATE, LIST_FDS, LIST_SESSIONS, PREPARE, SET_FLAGS, UNPRESERVE_FD,
};
use super::common::ext::{NORMAL, ORDERED, PREPARED, UPDATED};
use super::common::luo::{ioctl, number, Device, FinishArg, Session};
use super::common::pages::bytes_of;
use super::common::{data, memfd, only_ours, refused, still_works};
use crate::ctx::Ctx;
use crate::kexec;
use crate::test::{Config, Test};
use anyhow::{ensure, Context, Result};
use nix::errno::Errno;
use std::fs::File;
use std::os::fd::AsRawFd;

/// The cases.
pub const TESTS: &[Test] = &[
    Test::new("get_info", Config::new(), &[get_info]),
    Test::new("list_sessions", Config::new(), &[list_sessions]),
    Test::new("list_fds", Config::new(), &[list_fds]),
    Test::new("unpreserve", Config::new(), &[unpreserve]),
    Test::new("prepare", Config::new(), &[prepare]),
    Test::new("set_flags", Config::new(), &[set_flags]),
    Test::new("sizes", Config::new(), &[sizes]),
    Test::new("reserved", Config::new(), &[reserved]),
    Test::new("unknown_numbers", Config::new(), &[unknown_numbers]),
    Test::new("incoming", Config::new(), &[hand_on, incoming]),
    Test::new("ordered_retrieve", Config::new(), &[hand_on, ordered]),
];

const SIZE: u64 = 20_000;
/// In an order that no sorting gives.
const TOKENS: [u64; 4] = [7, 0, u64::MAX - 1, 3];

fn ours(ctx: &Ctx) -> Result<()> {
    only_ours(ctx, "has no extensions")
}

fn filled(seed: u64) -> Result<File> {
    let file = memfd::create(SIZE)?;
    data::fill(&file, seed, data::whole(SIZE))?;
    Ok(file)
}

/// A session with a file for each of [`TOKENS`].
fn session_of_four(device: &Device, name: &str) -> Result<Session> {
    let session = device.create_session(name)?;
    for token in TOKENS {
        session.preserve(&filled(token)?, token)?;
    }
    Ok(session)
}

fn get_info(ctx: &mut Ctx) -> Result<()> {
    ours(ctx)?;
    let info = Device::open()?.info()?;
    ensure!((info.flags, info.features) == (0, 0), "{info:?}");
    ensure!(info.liveupdate_num == 0, "{info:?}");
    let name = ext::text(&info.implementation);
    ensure!(name.starts_with("luo.ko "), "it is called {name:?}");
    let end = name.len();
    ensure!(info.implementation[end..].iter().all(|&byte| byte == 0));
    let format = ext::text(&info.memfd_format);
    ensure!(!format.is_empty() && info.memfd_format[47] == 0, "{info:?}");
    Ok(())
}

fn list_sessions(ctx: &mut Ctx) -> Result<()> {
    ours(ctx)?;
    let device = Device::open()?;
    ensure!(device.list_sessions(0, 4)? == (vec![], 0), "at first");
    let long = "n".repeat(63);
    let names = ["zebra", "ant", long.as_str()];
    let mut sessions = Vec::new();
    for name in names {
        sessions.push(device.create_session(name)?);
    }
    sessions[1].preserve(&memfd::create(0)?, 1)?;
    sessions[1].set_flags(ORDERED)?;
    sessions[2].prepare().map_err(|(errno, _)| errno)?;
    let wanted: Vec<_> = [
        (names[0], NORMAL, 0, 0),
        (names[1], NORMAL, ORDERED, 1),
        (names[2], PREPARED, 0, 0),
    ]
    .map(|(name, state, flags, nr_files)| SessionEntry {
        name: super::common::name_bytes(name.as_bytes()),
        state,
        flags,
        nr_files,
    })
    .into();
    parts(&wanted, |start, room| device.list_sessions(start, room))?;

    // In the order in which they were made, whatever went in between.
    drop(sessions.remove(0));
    sessions.push(device.create_session("zebra")?);
    let (entries, total) = device.list_sessions(0, 9)?;
    let listed: Vec<_> = entries.iter().map(SessionEntry::name).collect();
    ensure!(
        total == 3 && listed == [names[1], names[2], "zebra"],
        "{listed:?}"
    );

    let mut arg = ListArg::new(0, &mut [SessionEntry::NONE; 0]);
    (arg.count, arg.entries) = (1, 8);
    let result = ioctl(device.0.as_raw_fd(), LIST_SESSIONS, &mut arg);
    refused("an array that is not mapped", result, Errno::EFAULT)?;
    ensure!(arg.total == !0, "it answered all the same");
    drop(sessions);
    ensure!(device.list_sessions(0, 4)? == (vec![], 0), "at the end");
    Ok(())
}

/// Lists every part of what should be there.
fn parts<T: Copy + Eq + std::fmt::Debug>(
    wanted: &[T],
    list: impl Fn(u64, usize) -> ext::Listed<T>,
) -> Result<()> {
    for start in 0..=wanted.len() + 1 {
        for room in 0..=wanted.len() + 1 {
            let (entries, total) = list(start as u64, room)?;
            let from = start.min(wanted.len());
            let to = (from + room).min(wanted.len());
            ensure!(
                entries == wanted[from..to],
                "from {start}, room for {room}: {entries:?}"
            );
            ensure!(total == wanted.len() as u64, "total {total}");
        }
    }
    let (entries, total) = list(u64::MAX, 1)?;
    ensure!(entries.is_empty() && total == wanted.len() as u64);
    Ok(())
}

fn list_fds(ctx: &mut Ctx) -> Result<()> {
    ours(ctx)?;
    let device = Device::open()?;
    let session = session_of_four(&device, "listed")?;
    let compatible = device.info()?.memfd_format;
    let entry = |state| {
        move |token| FdEntry {
            token,
            compatible,
            state,
            reserved: 0,
        }
    };
    let list = |start, room| session.list_fds(start, room);
    parts(&TOKENS.map(entry(NORMAL)), list)?;
    session.prepare().map_err(|(errno, _)| errno)?;
    parts(&TOKENS.map(entry(PREPARED)), list)?;
    session.cancel()?;
    session.unpreserve(TOKENS[0])?;
    parts(&[TOKENS[1], TOKENS[2], TOKENS[3]].map(entry(NORMAL)), list)?;

    let mut arg = ListArg::new(0, &mut [FdEntry::NONE; 0]);
    (arg.count, arg.entries) = (1, 8);
    let result = ioctl(session.0.as_raw_fd(), LIST_FDS, &mut arg);
    refused("an array that is not mapped", result, Errno::EFAULT)?;
    // Room for more than there is memory costs nothing.
    let mut entries = vec![FdEntry::NONE; TOKENS.len()];
    let mut arg = ListArg::new(0, &mut entries);
    arg.count = u64::MAX;
    ioctl(session.0.as_raw_fd(), LIST_FDS, &mut arg).context("endless room")?;
    ensure!(arg.count == 3, "{} entries", arg.count);
    Ok(())
}

fn unpreserve(ctx: &mut Ctx) -> Result<()> {
    ours(ctx)?;
    let device = Device::open()?;
    let session = device.create_session("undone")?;
    refused("an empty session", session.unpreserve(0), Errno::ENOENT)?;
    let mut files = Vec::new();
    for token in TOKENS {
        files.push(filled(token)?);
        session.preserve(files.last().context("just pushed")?, token)?;
    }
    refused("no such token", session.unpreserve(1), Errno::ENOENT)?;
    // From the middle, the first, the last: each is free then, and the others are not.
    let mut left = TOKENS.to_vec();
    for i in [1, 0, 3, 2] {
        refused("before", memfd::truncate(&files[i], 0), Errno::EPERM)?;
        session.unpreserve(TOKENS[i])?;
        left.retain(|&token| token != TOKENS[i]);
        ensure!(session.tokens()? == left, "{:?}", session.tokens()?);
        let again = session.unpreserve(TOKENS[i]);
        refused("a second time", again, Errno::ENOENT)?;
        data::check(&files[i], TOKENS[i], SIZE, &[data::whole(SIZE)])?;
        memfd::truncate(&files[i], SIZE + 1).context("the file it let go")?;
    }
    // Token and file can be used again, and come last in the order.
    for i in [2, 0] {
        session.preserve(&files[i], TOKENS[i])?;
    }
    session.unpreserve(TOKENS[2])?;
    session.preserve(&files[2], TOKENS[2])?;
    ensure!(session.tokens()? == [TOKENS[0], TOKENS[2]]);
    still_works(&session)
}

fn prepare(ctx: &mut Ctx) -> Result<()> {
    ours(ctx)?;
    let device = Device::open()?;
    let session = session_of_four(&device, "prepared")?;
    let other = filled(1)?;
    ensure!(session.state()? == (NORMAL, 4, 0), "{:?}", session.state());
    session.cancel().context("CANCEL without PREPARE")?;
    for round in 0..2 {
        session
            .prepare()
            .map_err(|(errno, _)| errno)
            .context("PREPARE")?;
        ensure!(session.state()? == (PREPARED, 4, 0), "round {round}");
        refused("PRESERVE_FD", session.preserve(&other, 1), Errno::EBUSY)?;
        let used = session.preserve(&other, TOKENS[0]);
        refused("PRESERVE_FD of a token in use", used, Errno::EBUSY)?;
        for token in [TOKENS[0], TOKENS[3], 1] {
            refused("UNPRESERVE_FD", session.unpreserve(token), Errno::EBUSY)?;
        }
        ensure!(session.tokens()? == TOKENS, "{:?}", session.tokens());
        // What is not about the set of files goes on.
        session.set_flags(ORDERED)?;
        session.set_flags(0)?;
        session.name()?;
        data::fill(&other, 2, data::whole(SIZE))?;
        let errno = kexec::execute();
        ensure!(errno == Errno::EINVAL, "reboot() says {errno:?}");
        ensure!(session.state()?.0 == PREPARED, "after a failed kexec");
        // Others are not concerned.
        still_works(&device.create_session("not prepared")?)?;
        if round == 0 {
            session.cancel()?;
            ensure!(session.state()? == (NORMAL, 4, 0), "{:?}", session.state());
            session.preserve(&other, 1)?;
            session.unpreserve(1)?;
        } else {
            session
                .prepare()
                .map_err(|(errno, _)| errno)
                .context("twice")?;
        }
    }
    drop(session);
    let session = device.create_session("prepared")?;
    ensure!(session.state()? == (NORMAL, 0, 0), "a new session");
    Ok(())
}

fn set_flags(ctx: &mut Ctx) -> Result<()> {
    ours(ctx)?;
    let device = Device::open()?;
    let session = session_of_four(&device, "flags")?;
    let flags = || -> Result<u32> { Ok(device.list_sessions(0, 1)?.0[0].flags) };
    ensure!(flags()? == 0);
    session.set_flags(ORDERED)?;
    ensure!(flags()? == ORDERED);
    for unknown in [2, 3, 1 << 31, !0] {
        let result = session.set_flags(unknown);
        refused("an unknown flag", result, Errno::EOPNOTSUPP)?;
        ensure!(flags()? == ORDERED, "it was set all the same");
    }
    // The last first, and no other.
    for i in (0..TOKENS.len()).rev() {
        for &token in &TOKENS[..i] {
            refused("out of order", session.unpreserve(token), Errno::EBUSY)?;
        }
        refused("no such token", session.unpreserve(1), Errno::ENOENT)?;
        session.unpreserve(TOKENS[i])?;
    }
    for token in TOKENS {
        session.preserve(&memfd::create(0)?, token)?;
    }
    session.set_flags(0)?;
    ensure!(flags()? == 0);
    session.unpreserve(TOKENS[1])?;
    session.unpreserve(TOKENS[0])?;
    Ok(())
}

/// Every extension, as it succeeds on an outgoing session or the device.
fn commands(device: &Device, session: &Session) -> Vec<Command> {
    let finish = FinishArg {
        size: size_of::<FinishArg>() as u32,
        reserved: 0,
    };
    let list = bytes_of(&ListArg::new(0, &mut [FdEntry::NONE; 0]));
    let token = bytes_of(&TokenArg::new(TOKENS[0]));
    let mut state = vec![0; 24];
    state[0] = 24;
    let (device, session) = (device.0.as_raw_fd(), session.0.as_raw_fd());
    let command = |what, on, number, arg| Command {
        what,
        on,
        number,
        arg,
        gives_fd: false,
    };
    vec![
        command("GET_INFO", device, GET_INFO, bytes_of(&InfoArg::new())),
        command("LIST_SESSIONS", device, LIST_SESSIONS, list.clone()),
        command("LIST_FDS", session, LIST_FDS, list),
        command("GET_STATE", session, GET_STATE, state),
        command("SET_FLAGS", session, SET_FLAGS, bytes_of(&FlagsArg::new(0))),
        command("PREPARE", session, PREPARE, token.clone()),
        command("CANCEL", session, CANCEL, bytes_of(&finish)),
        command("UNPRESERVE_FD", session, UNPRESERVE_FD, token),
    ]
}

fn sizes(ctx: &mut Ctx) -> Result<()> {
    ours(ctx)?;
    let device = Device::open()?;
    let session = session_of_four(&device, "sizes")?;
    for command in commands(&device, &session) {
        let (what, len) = (command.what, command.arg.len());
        let state = session.state()?;
        for size in [0, 4, len as u32 - 1] {
            let result = command.resized(size, len).issue()?;
            refused(&format!("{what} of {size} bytes"), result, Errno::EINVAL)?;
        }
        let result = command.with_tail(&[0, 0, 1]).issue()?;
        refused(&format!("{what} with a tail"), result, Errno::E2BIG)?;
        let result = command.resized(len as u32, len - 1).issue()?;
        refused(&format!("{what} cut off"), result, Errno::EFAULT)?;
        let result = command.issue_at(std::ptr::without_provenance_mut(8));
        refused(&format!("{what} nowhere"), result, Errno::EFAULT)?;
        ensure!(session.tokens()? == TOKENS, "{what} had an effect");
        ensure!(session.state()? == state, "{what} had an effect");
        // Twice for those that only ask; UNPRESERVE_FD comes last, and once.
        let answer = command.with_tail(&[0; 40]).issue()?;
        answer.with_context(|| format!("{what} with zeros behind it"))?;
        if what != "UNPRESERVE_FD" {
            command.issue()?.with_context(|| what.to_string())?;
        }
    }
    Ok(())
}

fn reserved(ctx: &mut Ctx) -> Result<()> {
    ours(ctx)?;
    let device = Device::open()?;
    let session = session_of_four(&device, "reserved")?;
    for mut command in commands(&device, &session) {
        // Those whose second field is an answer, or flags.
        if ["GET_INFO", "GET_STATE", "SET_FLAGS"].contains(&command.what) {
            continue;
        }
        for reserved in [1, 1 << 31, u32::MAX] {
            command.arg[4..8].copy_from_slice(&reserved.to_ne_bytes());
            let what = format!("{}, reserved not zero", command.what);
            refused(&what, command.issue()?, Errno::EINVAL)?;
        }
        ensure!(session.tokens()? == TOKENS, "{} was done", command.what);
        ensure!(session.state()?.0 == NORMAL, "{} was done", command.what);
    }
    Ok(())
}

fn unknown_numbers(ctx: &mut Ctx) -> Result<()> {
    ours(ctx)?;
    let device = Device::open()?;
    let session = session_of_four(&device, "numbers")?;
    let arg = TokenArg::new(TOKENS[0]);
    let (of_device, of_session) = (0xA0..=0xA1, 0xC0..=0xC5);
    for nr in 0xA0..=0xFF {
        if !of_device.contains(&nr) {
            let result = ioctl(device.0.as_raw_fd(), number(nr), &mut arg.clone());
            refused(&format!("{nr:#x} on the device"), result, Errno::ENOTTY)?;
        }
        if !of_session.contains(&nr) {
            let result = ioctl(session.0.as_raw_fd(), number(nr), &mut arg.clone());
            refused(&format!("{nr:#x} on a session"), result, Errno::ENOTTY)?;
        }
    }
    // The same numbers of another type, or with a direction or size in them.
    for other in [GET_INFO ^ 0x100, GET_INFO | 1 << 30, GET_INFO | 16 << 16] {
        let result = ioctl(device.0.as_raw_fd(), other, &mut InfoArg::new());
        refused(&format!("{other:#x}"), result, Errno::ENOTTY)?;
    }
    ensure!(session.tokens()? == TOKENS);
    Ok(())
}

fn hand_on(ctx: &mut Ctx) -> Result<()> {
    ours(ctx)?;
    let device = Device::open()?;
    ctx.keep(session_of_four(&device, "one")?);
    let two = session_of_four(&device, "two")?;
    two.set_flags(ORDERED)?;
    two.prepare().map_err(|(errno, _)| errno)?;
    ctx.keep(two);
    ctx.keep(device.create_session("empty")?);
    Ok(())
}

/// The extensions in the new kernel.
fn incoming(_: &mut Ctx) -> Result<()> {
    let device = Device::open()?;
    let info = device.info()?;
    ensure!(info.liveupdate_num == 1, "{info:?}");
    let outgoing = device.create_session("one")?;
    let (entries, total) = device.list_sessions(0, 9)?;
    let seen: Vec<_> = entries
        .iter()
        .map(|entry| (entry.name(), entry.state, entry.flags, entry.nr_files))
        .collect();
    let wanted = [
        ("one", NORMAL, 0, 0),
        ("one", UPDATED, 0, 4),
        ("two", UPDATED, 0, 4),
        ("empty", UPDATED, 0, 0),
    ]
    .map(|(name, state, flags, files)| (name.to_string(), state, flags, files));
    ensure!(total == 4 && seen == wanted, "{seen:?}");
    drop(outgoing);

    let session = device.retrieve_session("one")?;
    for command in commands(&device, &session) {
        if ["UNPRESERVE_FD", "PREPARE", "CANCEL"].contains(&command.what) {
            let what = format!("{} on an incoming session", command.what);
            refused(&what, command.issue()?, Errno::EINVAL)?;
            let result = command.with_tail(&[1]).issue()?;
            refused(&what, result, Errno::EINVAL)?;
        }
    }
    ensure!(session.state()? == (UPDATED, 4, 0), "{:?}", session.state());
    let mut files = Vec::new();
    for (i, token) in [TOKENS[2], TOKENS[0]].into_iter().enumerate() {
        let file = session.retrieve(token)?;
        data::check(&file, token, SIZE, &[data::whole(SIZE)])?;
        files.push(file);
        ensure!(session.state()? == (UPDATED, 4, i as u64 + 1));
    }
    let (entries, _) = session.list_fds(0, 9)?;
    for (entry, token) in entries.iter().zip(TOKENS) {
        let retrieved = [TOKENS[2], TOKENS[0]].contains(&token);
        let state = if retrieved { NORMAL } else { UPDATED };
        ensure!((entry.token, entry.state) == (token, state), "{entry:?}");
        ensure!(entry.compatible == info.memfd_format, "{entry:?}");
    }
    ensure!(entries.len() == TOKENS.len());
    session.finish()?;
    ensure!(session.state()? == (UPDATED, 0, 0), "{:?}", session.state());
    ensure!(session.tokens()?.is_empty());
    drop(session);
    ensure!(device.list_sessions(0, 0)?.1 == 2, "two are left");
    Ok(())
}

/// An ordered session in the new kernel gives its files in the order of preservation.
fn ordered(_: &mut Ctx) -> Result<()> {
    let device = Device::open()?;
    let session = device.retrieve_session("two")?;
    // The flag was set in the old kernel, and is the new user's to set again.
    session.retrieve(TOKENS[0])?;
    session.set_flags(ORDERED)?;
    for i in 1..TOKENS.len() {
        for &token in &TOKENS[i + 1..] {
            let result = session.retrieve(token);
            refused("not its turn", result, Errno::EBUSY)?;
        }
        refused("no such token", session.retrieve(1), Errno::ENOENT)?;
        let file = session.retrieve(TOKENS[i])?;
        data::check(&file, TOKENS[i], SIZE, &[data::whole(SIZE)])?;
        // What was taken before may be asked for again at any time.
        for &token in &TOKENS[..=i] {
            session.retrieve(token)?;
        }
    }
    session.finish()?;
    let session = device.retrieve_session("one")?;
    session.set_flags(ORDERED)?;
    refused("not its turn", session.retrieve(TOKENS[3]), Errno::EBUSY)?;
    session.set_flags(0)?;
    session.retrieve(TOKENS[3])?;
    Ok(())
}

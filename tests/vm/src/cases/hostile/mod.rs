// SPDX-License-Identifier: GPL-2.0

//! What the previous kernel left is input: it is forged here, with damage of every kind in one handover, beside what
//! is good. The kernel runs, the log says what was refused, the good is usable, and no page of what was refused is
//! anybody else's.

mod classes;
mod flbs;
mod format;
mod pages;
mod pairs;
mod roots;
mod victim;

use super::common::data::{self, Extent};
use super::common::forger::{kernel_code, Forger};
use super::common::luo::Device;
use super::common::{memfd, refused, still_works};
use crate::ctx::Ctx;
use crate::procfs::started_with;
use crate::test::{Config, Orchestrator, Test};
use anyhow::{ensure, Context, Result};
use classes::{Class, Outcome, ACCOUNT, CLASSES, FIRST, ONE_PLACE};
use luo_handover::write;
use nix::errno::Errno;
use pages::{Owner, Pages};
use std::fs::File;
use std::os::unix::fs::FileExt;
use victim::{Strangers, Victim, BYSTANDER, VICTIM};

/// The cases.
pub const TESTS: &[Test] = &[
    Test::new(
        "retrieved",
        BARE.look_for_leaks(),
        &[forge, retrieve, arrive],
    ),
    Test::new(
        "discarded",
        BARE.look_for_leaks(),
        &[forge, |ctx| discard(ctx, false)],
    ),
    Test::new(
        "tables_discarded",
        BARE.look_for_leaks(),
        &[forge, |ctx| discard(ctx, true)],
    ),
    Test::repeated("entries", BARE, &[|ctx| roots::stage(ctx, roots::ENTRIES)]),
    Test::repeated("fields", BARE, &[|ctx| roots::stage(ctx, roots::FIELDS)]),
    Test::repeated("lists", BARE, &[|ctx| roots::stage(ctx, roots::LISTS)]),
    Test::repeated("flbs", BARE, &[flbs::stage]),
    Test::new("pairs", BARE, pairs::STAGES),
];

/// With memory that has another user, in each kernel.
const BARE: Config = Config::new()
    .orchestrators(&[Orchestrator::None])
    .cmdline("reserve_mem=4096:4096:forger");

/// The session in which the good files go on, and a new one of these bytes.
const ONWARDS: &str = "onwards";
const NEW: Extent = data::whole(4 << 20);
const NEW_TOKEN: u64 = 0xff_ffff;

/// What is kept for as long as a session is refused, and an FLB not finished.
const ACCOUNT_OF_ALL: [Owner; 3] = [Owner::Root, Owner::List, Owner::Flbs];

/// All that is a session's.
fn session_pages(i: usize) -> [Owner; 3] {
    let [first, second] = [VICTIM, BYSTANDER].map(|token| Owner::Memfd(i, token));
    [Owner::Session(i), first, second]
}

fn classes() -> impl Iterator<Item = &'static Class> {
    CLASSES.iter().copied().flatten()
}

fn forge(ctx: &mut Ctx) -> Result<()> {
    let Some(forger) = Forger::new()? else {
        return ctx.skip("there is no luo_forger.ko in this VM");
    };
    let mut memory = forger.memory();
    let sessions: Vec<_> = classes()
        .map(|class| victim::session(&class.session(), class.format))
        .collect();
    let root_pa = write::handover(&mut memory, 1, &sessions).root_pa;
    write::flbs(&mut memory, root_pa, &[("nobody's", 7, 1)]);
    let pages = victim::fill(&memory, &forger, root_pa)?;
    let strangers = Strangers {
        lost: memory.allocate_lost(),
        kernel: kernel_code()?,
        tree: forger.tree()?,
        reserved: forger.reserved()?,
    };
    for (i, class) in classes().enumerate() {
        let format = class.format;
        (class.damage)(&mut Victim::find(
            &mut memory,
            root_pa,
            i,
            format,
            strangers,
        ));
    }
    forger.publish(&memory, root_pa)?;
    pages.give_along(ctx, &forger)
}

/// The classes with their numbers, in the order in which their sessions are taken.
fn in_turn() -> impl Iterator<Item = (usize, &'static Class)> {
    let claims_account = |(i, _): &(usize, _)| ACCOUNT.contains(i);
    let others = classes().enumerate().filter(move |it| !claims_account(it));
    classes().enumerate().filter(claims_account).chain(others)
}

/// Inserts the module, which has to say what it refuses, of each class in a line of its own, and nothing else; and how many
/// sessions it does not.
fn insert(ctx: &mut Ctx) -> Result<Device> {
    ctx.log().lines()?;
    ctx.insmod("")?;
    let mut lines = ctx.log().lines()?;
    let device = Device::open()?;
    let (_, good) = device.list_sessions(0, 0)?;
    let says = format!(": {good} sessions were handed over");
    ensure!(
        lines.iter().any(|line| line.contains(&says)),
        "no line with {says:?}, but {lines:#?}"
    );
    lines.retain(|line| line.contains("refused") || line.contains("damaged"));
    for class in classes() {
        let (Outcome::Gone(why) | Outcome::Alone(why)) = class.outcome else {
            continue;
        };
        let name = format!("[{}]", class.session());
        // A session whose name is what is wrong with it is not named.
        let find = |wanted: &dyn Fn(&str) -> bool| {
            let is_it = |line: &String| line.contains(why) && wanted(line);
            lines.iter().position(is_it)
        };
        let line = find(&|line| line.contains(&name))
            .or_else(|| find(&|line| !line.contains("session [")))
            .with_context(|| format!("{name}: not a word of {why:?} in {lines:#?}"))?;
        lines.remove(line);
    }
    ensure!(lines.is_empty(), "{lines:#?}");
    Ok(device)
}

/// Replaces the module: the account of all that was not retrieved is what it was.
fn replace(ctx: &mut Ctx, device: Device) -> Result<Device> {
    drop(device);
    ctx.rmmod()?;
    insert(ctx)
}

/// Fails unless a file has what was written into it.
fn check(file: &File, class: &Class, session: usize, token: u64) -> Result<()> {
    let zeroes = match class.outcome {
        Outcome::Zeroes(extent) if token == VICTIM => Some(extent),
        _ => None,
    };
    victim::check_but(file, class.format, session, token, zeroes)
        .with_context(|| format!("{:?}, token {token}", class.name))
}

fn retrieve(ctx: &mut Ctx) -> Result<()> {
    let forger = Forger::new()?.context("luo_forger.ko")?;
    let mut device = insert(ctx)?;
    let (mut held, mut kept) = (Vec::new(), ACCOUNT_OF_ALL.to_vec());
    for (i, class) in in_turn() {
        if i == FIRST {
            device = replace(ctx, device)?;
        }
        let name = &class.session();
        let named = || name.clone();
        if let Outcome::Gone(_) = class.outcome {
            kept.extend(session_pages(i));
            refused(name, device.retrieve_session(name), Errno::ENOENT)?;
            continue;
        }
        let session = device.retrieve_session(name).with_context(named)?;
        ctx.log().lines()?;
        let first = session.retrieve(VICTIM);
        match class.outcome {
            Outcome::Lost(errno, why) => {
                kept.push(Owner::Memfd(i, VICTIM));
                refused(name, first, errno)?;
                let lines = ctx.log().lines()?;
                for wanted in [why, &format!("session [{name}]: ")] {
                    ensure!(
                        lines.iter().any(|line| line.contains(wanted)),
                        "{name}: no line with {wanted:?}, but {lines:#?}"
                    );
                }
                match errno {
                    Errno::ENOENT => {
                        let (files, _) = session.list_fds(0, 8)?;
                        let all_end = files.iter().all(|file| file.compatible.contains(&0));
                        ensure!(all_end, "{name}: {files:?}");
                    }
                    // What was not understood once is not looked at again.
                    _ => refused(name, session.retrieve(VICTIM), errno)?,
                }
            }
            _ => {
                let first = first.with_context(named)?;
                check(&first, class, i, VICTIM)?;
                held.push((first, class, i, VICTIM));
            }
        }
        let second = session.retrieve(BYSTANDER);
        if let Outcome::Alone(_) = class.outcome {
            kept.push(Owner::Memfd(i, BYSTANDER));
            refused(name, second, Errno::ENOENT)?;
        } else {
            let second = second.with_context(|| format!("beside {name:?}"))?;
            check(&second, class, i, BYSTANDER)?;
            held.push((second, class, i, BYSTANDER));
        }
        match class.outcome {
            // Nobody knows how to free it.
            Outcome::Lost(Errno::ENOENT, _) => {
                kept.push(Owner::Session(i));
                refused(name, session.finish(), Errno::EBUSY)?;
            }
            _ => session.finish().with_context(named)?,
        }
    }
    let pressed = press(ctx)?;
    for (file, class, session, token) in &held {
        check(file, class, *session, *token)?;
    }
    Pages::of_previous(ctx)?.unchanged(&forger, &kept)?;
    drop(pressed);
    still_works(&device.create_session("afterwards")?)?;
    ctx.look_for_leaks()?;
    let good = held
        .iter()
        .filter(|(_, class, _, token)| class.outcome.has_finished(*token));
    go_on(
        ctx,
        &device,
        good.map(|(file, _, i, token)| (file, *i, *token)),
    )
}

/// Hands what was good over to a kernel that finds nothing else, and a new file, beside all that is kept.
fn go_on<'a>(
    ctx: &mut Ctx,
    device: &Device,
    held: impl Iterator<Item = (&'a File, usize, u64)>,
) -> Result<()> {
    let session = device.create_session(ONWARDS)?;
    for (file, i, token) in held {
        session
            .preserve(file, victim::seed(i, token))
            .with_context(|| format!("class {i}, token {token}"))?;
    }
    let new = memfd::create(NEW.len)?;
    data::fill(&new, NEW_TOKEN, NEW)?;
    session.preserve(&new, NEW_TOKEN)?;
    ctx.keep((session, new));
    Ok(())
}

fn arrive(ctx: &mut Ctx) -> Result<()> {
    ctx.log().lines()?;
    ctx.insmod("")?;
    ctx.log()
        .expect("live update number 2: 1 sessions were handed over")?;
    let device = Device::open()?;
    let session = device.retrieve_session(ONWARDS)?;
    for (i, class) in classes().enumerate() {
        for token in [VICTIM, BYSTANDER] {
            if class.outcome.has_finished(token) {
                let file = session.retrieve(victim::seed(i, token));
                let file = file.with_context(|| format!("{:?}, token {token}", class.name))?;
                check(&file, class, i, token)?;
            }
        }
    }
    data::check(&session.retrieve(NEW_TOKEN)?, NEW_TOKEN, NEW.len, &[NEW])?;
    session.finish()?;
    still_works(&device.create_session("afterwards")?)
}

/// Finishes sessions of which nothing was retrieved, those with tables or the others: of all of them there would be
/// more lines than the log takes in so short a time.
fn discard(ctx: &mut Ctx, with_tables: bool) -> Result<()> {
    let forger = Forger::new()?.context("luo_forger.ko")?;
    let mut device = insert(ctx)?;
    let mut kept = ACCOUNT_OF_ALL.to_vec();
    // What is good comes first: pages of it are claimed by others.
    let chosen = |class: &Class| {
        matches!(class.outcome, Outcome::Good) || class.format.has_table() == with_tables
    };
    for (i, class) in in_turn() {
        if i == FIRST {
            device = replace(ctx, device)?;
        }
        // Neither what nobody finds nor what nobody asks for is touched.
        if matches!(class.outcome, Outcome::Gone(_)) || !chosen(class) {
            kept.extend(session_pages(i));
            continue;
        }
        let name = &class.session();
        let named = || name.clone();
        let session = device.retrieve_session(name).with_context(named)?;
        ctx.log().lines()?;
        match class.outcome {
            Outcome::Lost(Errno::ENOENT, _) => {
                refused(name, session.finish(), Errno::EBUSY)?;
                kept.extend(session_pages(i));
            }
            Outcome::Lost(_, ONE_PLACE) => session.finish().with_context(named)?,
            Outcome::Lost(_, why) => {
                session.finish().with_context(named)?;
                ctx.log().expect(why).with_context(named)?;
                kept.push(Owner::Memfd(i, VICTIM));
            }
            Outcome::Alone(_) => {
                session.finish().with_context(named)?;
                kept.push(Owner::Memfd(i, BYSTANDER));
            }
            Outcome::Good | Outcome::Zeroes(_) | Outcome::Gone(_) => {
                session.finish().with_context(named)?
            }
        }
    }
    let pressed = press(ctx)?;
    Pages::of_previous(ctx)?.unchanged(&forger, &kept)?;
    drop(pressed);
    still_works(&device.create_session("afterwards")?)
}

/// Takes most of the memory that is free and writes to it: a page that was given back is one of these. There is no need
/// for that, which takes a minute there, on a kernel that writes to each page as it is given back.
fn press(ctx: &Ctx) -> Result<File> {
    let file = memfd::create(0)?;
    if started_with("page_poison=1")? {
        return Ok(file);
    }
    let free = ctx.meminfo_kib("MemAvailable")? * 1024 / 10 * 8;
    let piece = vec![0xa5; 1 << 20];
    for at in (0..free).step_by(piece.len()) {
        file.write_all_at(&piece, at).context("taking memory")?;
    }
    Ok(file)
}

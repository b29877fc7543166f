// SPDX-License-Identifier: GPL-2.0

//! PRESERVE_FD and FINISH of a large memfd take long: meanwhile they can be ended by a fatal signal, and the workload
//! goes on, on the same CPU, too.

use super::common::luo::{Device, Session};
use super::common::memfd::{self, Mapping};
use super::common::pages::PAGE;
use super::common::stalled::StalledPage;
use super::common::{only_ours, refused, seen};
use crate::ctx::Ctx;
use crate::process::{self, Child, Said};
use crate::test::{Config, Test};
use anyhow::{bail, ensure, Context, Result};
use nix::errno::Errno;
use nix::sys::wait::WaitStatus;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Barrier;
use std::time::{Duration, Instant};

/// The cases.
pub const TESTS: &[Test] = &[
    Test::new("killed", CONFIG, &[killed]),
    Test::new("killed_in_v2", CONFIG.params("memfd_v2=1"), &[killed]),
    Test::new("killed_in_line", CONFIG, &[killed_in_line]),
    Test::new("let_go_beside_a_write", CONFIG, &[let_go_beside_a_write]),
    Test::new("finish_killed", CONFIG, &[hand_on, finish_killed]),
    Test::new(
        "finish_killed_in_v2",
        CONFIG.params("memfd_v2=1"),
        &[hand_on, finish_killed],
    ),
    Test::new("faults_go_on", CONFIG, &[faults_go_on]),
    Test::new(
        "faults_go_on_in_v2",
        CONFIG.params("memfd_v2=1"),
        &[faults_go_on],
    ),
    Test::new("two_at_once", CONFIG, &[two_at_once]),
    Test::new(
        "others_run",
        CONFIG.cpus(1),
        &[preserve_beside, finish_beside],
    ),
];

const CONFIG: Config = Config::new().memory_mib(2048).timeout_s(600);
const P: u64 = PAGE as u64;
const SIZE: u64 = 768 << 20;
/// Times are of a machine that does other things, too: one attempt of these must come out well.
const ATTEMPTS: usize = 10;
const PATIENCE: Duration = Duration::from_secs(120);

/// A large file of which all but the last pages are filled, in an order that makes it long work: no two pages that
/// follow each other in the file do so in memory.
fn file(spare: u64) -> Result<File> {
    file_of(SIZE, spare)
}

/// The same, of another size.
fn file_of(size: u64, spare: u64) -> Result<File> {
    let file = memfd::create(size + spare * P)?;
    let map = Mapping::new(&file, size as usize)?;
    let pages = size as usize / PAGE;
    const STRIDE: usize = 64;
    for start in 0..STRIDE {
        for page in (start..pages).step_by(STRIDE) {
            map.write(page * PAGE, page as u8);
        }
    }
    Ok(file)
}

/// How long PRESERVE_FD takes when nothing disturbs it.
fn undisturbed(session: &Session, file: &File) -> Result<Duration> {
    let start = Instant::now();
    session.preserve(file, 0)?;
    let took = start.elapsed();
    session.unpreserve(0)?;
    Ok(took)
}

fn killed(ctx: &mut Ctx) -> Result<()> {
    only_ours(ctx, "it does not look for signals")?;
    let file = file(1)?;
    let session = Device::open()?.create_session("killed")?;
    undisturbed(&session, &file)?;
    let free = ctx.free_kib()?;
    let whole = undisturbed(&session, &file)?;

    let (mut interrupted, mut best) = (0, Duration::MAX);
    for _ in 0..ATTEMPTS {
        let took = kill_while_preserving(&session, &file)?;
        let (_, files, _) = session.state()?;
        if files == 1 {
            // It was done before the signal came, which a busy machine can delay.
            session.unpreserve(0)?;
        } else {
            interrupted += 1;
            best = best.min(took);
        }
        nothing_is_left(ctx, &session, &file, free)?;
    }
    ensure!(interrupted > 0, "it was never interrupted");
    ensure!(
        best < whole / 3,
        "it ends {best:?} after the signal, at best; all of it takes {whole:?}"
    );
    Ok(())
}

/// Kills a child in PRESERVE_FD. Returns how long it then took to end.
fn kill_while_preserving(session: &Session, file: &File) -> Result<Duration> {
    let mut child = Child::spawn(|pipe| {
        let _ = writeln!(pipe, "begin");
        let done = session.preserve(file, 0);
        let _ = writeln!(pipe, "{done:?}");
    })?;
    match child.listen(PATIENCE)? {
        Said::Line(line) if line == "begin" => {}
        other => bail!("the child process: {other:?}"),
    }
    // A hole beyond the last page is punched without a trace, unless the mapping is frozen: then it has begun.
    let deadline = Instant::now() + PATIENCE;
    while memfd::punch(file, SIZE, P) != Err(Errno::EPERM) {
        ensure!(Instant::now() < deadline, "it does not begin");
        std::thread::yield_now();
    }
    let start = Instant::now();
    let end = child.kill()?;
    let took = start.elapsed();
    ensure!(
        matches!(end, WaitStatus::Signaled(..) | WaitStatus::Exited(..)),
        "{end:?}"
    );
    Ok(took)
}

/// The same where it has not begun, as somebody else has the inode's lock.
fn killed_in_line(ctx: &mut Ctx) -> Result<()> {
    only_ours(ctx, "it does not look for signals")?;
    const FILE: u64 = 1 << 30;
    let session = Device::open()?.create_session("killed")?;
    for _ in 0..ATTEMPTS {
        let file = memfd::create(FILE)?;
        let locker = Child::spawn(|_| {
            let _ = memfd::fallocate(&file, 0, 0, FILE);
        })?;
        let begun = || file.metadata().is_ok_and(|file| file.blocks() > 0);
        ctx.wait_for("fallocate()", PATIENCE, begun)?;
        let waits = Child::spawn(|_| {
            let _ = session.preserve(&file, 0);
        })?;
        ctx.wait_for("a process that waits", PATIENCE, || {
            process::state_of(waits.pid()) == Some('D') || locker.has_ended().unwrap_or(true)
        })?;
        waits.kill()?;
        let first = !locker.has_ended()?;
        locker.kill()?;
        if first {
            return Ok(());
        }
        if session.state()?.1 == 1 {
            session.unpreserve(0)?;
        }
    }
    bail!("it always waits until the other is done")
}

/// To let a memfd go takes no lock that somebody else's write() may hold for ever.
fn let_go_beside_a_write(ctx: &mut Ctx) -> Result<()> {
    only_ours(ctx, "it takes the inode's lock")?;
    let file = memfd::create(P)?;
    let session = Device::open()?.create_session("let go")?;
    session.preserve(&file, 0)?;
    let page = StalledPage::new()?;
    std::thread::scope(|scope| {
        let write = scope.spawn(|| page.write_to(&file));
        page.awaited(PATIENCE)?;
        let let_go = scope.spawn(|| session.unpreserve(0));
        let in_time = ctx.wait_for("UNPRESERVE_FD", Duration::from_secs(20), || {
            let_go.is_finished()
        });
        ensure!(!write.is_finished(), "the write() did not wait");
        page.come()?;
        write.join().expect("it does not panic")?;
        let_go.join().expect("it does not panic")?;
        in_time
    })?;
    memfd::truncate(&file, 0).context("truncating what was let go")
}

fn nothing_is_left(ctx: &Ctx, session: &Session, file: &File, free: u64) -> Result<()> {
    ensure!(session.state()?.1 == 0, "the session has a file");
    memfd::punch(file, SIZE, P).context("punching a file that is not preserved")?;
    memfd::truncate(file, SIZE + 2 * P).context("growing it")?;
    memfd::truncate(file, SIZE + P).context("shrinking it")?;
    let mut now = 0;
    ctx.wait_for("memory", PATIENCE, || {
        now = ctx.free_kib().unwrap_or(0);
        now + 2048 > free
    })
    .with_context(|| format!("{now} KiB are free, {free} were"))
}

fn hand_on(ctx: &mut Ctx) -> Result<()> {
    let session = Device::open()?.create_session("finish")?;
    session.preserve(&file(0)?, 0)?;
    ctx.keep(session);
    Ok(())
}

/// FINISH that is ended leaves what it has not come to to whoever touches it. In "memfd-v2", which lists each of the
/// pages by itself, there are more of them than one chunk of the list's pages holds, and than RETRIEVE_FD takes at once.
fn finish_killed(ctx: &mut Ctx) -> Result<()> {
    only_ours(ctx, "it has brought in all before")?;
    let session = Device::open()?.retrieve_session("finish")?;
    let file = session.retrieve(0)?;
    let pages = SIZE as usize / PAGE;
    ensure!(seen::resident(&file)? == 0, "some of it is there already");
    let child = Child::spawn(|_| {
        let _ = session.finish();
    })?;
    // Of the first page alone: to ask for all of them takes a good part of the time that FINISH does.
    let (first, mut is_there) = (Mapping::new(&file, PAGE)?, [0]);
    let deadline = Instant::now() + PATIENCE;
    while is_there[0] & 1 == 0 {
        ensure!(Instant::now() < deadline, "it does not begin");
        std::thread::yield_now();
        first.mincore(&mut is_there)?;
    }
    child.kill()?;
    let resident = seen::resident(&file)?;
    ensure!(resident < pages, "it did all of it, and was not ended");
    let (_, files, _) = session.state()?;
    ensure!(files == 0, "the session has {files} files");
    let map = Mapping::new(&file, SIZE as usize)?;
    let wrong = (0..pages).find(|&page| map.read(page * PAGE) != page as u8);
    ensure!(wrong.is_none(), "page {wrong:?} is wrong");
    ensure!(seen::resident(&file)? == pages, "a page is missing");
    Ok(())
}

/// While PRESERVE_FD runs, no page fault and no write waits for all of it.
fn faults_go_on(ctx: &mut Ctx) -> Result<()> {
    only_ours(ctx, "it holds the inode's lock")?;
    /// Pages that are filled meanwhile: more than there is time for.
    const SPARE: u64 = 64 << 10;
    let file = file(SPARE)?;
    let session = Device::open()?.create_session("faults")?;
    let whole = undisturbed(&session, &file)?;
    let mut best = f64::MAX;
    for _ in 0..ATTEMPTS {
        memfd::punch(&file, SIZE, SPARE * P)?;
        let (took, longest, count) = longest_stall(&session, &file)?;
        session.unpreserve(0)?;
        if count > 10 {
            best = best.min(longest.as_secs_f64() / took.as_secs_f64());
        }
    }
    ensure!(
        best < 0.25,
        "a page fault or a write takes {best:.2} times as long as PRESERVE_FD, at best, which takes {whole:?}"
    );
    // With all that was filled meanwhile.
    session.preserve(&file, 0)?;
    if let Err((errno, _)) = session.prepare() {
        bail!("PREPARE: {errno:?}");
    }
    session.cancel()?;
    refused("punching", memfd::punch(&file, SIZE, P), Errno::EPERM)
}

/// How long PRESERVE_FD took, and of the faults and writes meanwhile the longest, and their number.
fn longest_stall(session: &Session, file: &File) -> Result<(Duration, Duration, usize)> {
    let map = Mapping::new(file, file.metadata()?.len() as usize)?;
    let (running, done) = (AtomicBool::new(false), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let preserve = scope.spawn(|| {
            running.store(true, Ordering::SeqCst);
            let start = Instant::now();
            let result = session.preserve(file, 0);
            let took = start.elapsed();
            done.store(true, Ordering::SeqCst);
            result.map(|()| took)
        });
        while !running.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
        let (mut longest, mut count) = (Duration::ZERO, 0);
        let (first, last) = (SIZE as usize / PAGE, file.metadata()?.len() as usize / PAGE);
        for page in (first..last).cycle() {
            if done.load(Ordering::SeqCst) {
                break;
            }
            let start = Instant::now();
            if page % 2 == 0 {
                map.write(page * PAGE, 1);
            } else {
                memfd::write_at(file, (page * PAGE) as u64, &[1])?;
            }
            longest = longest.max(start.elapsed());
            count += 1;
        }
        let took = preserve.join().expect("it does not panic")?;
        Ok((took, longest, count))
    })
}

/// Two memfds of two sessions are preserved at the same time, on as many CPUs.
fn two_at_once(ctx: &mut Ctx) -> Result<()> {
    only_ours(ctx, "it does not freeze what it preserves")?;
    const HALF: u64 = SIZE / 2;
    let device = Device::open()?;
    let pair = ["one", "two"]
        .map(|name| -> Result<_> { Ok((device.create_session(name)?, file_of(HALF, 1)?)) });
    let [one, two] = pair;
    let pair = [one?, two?];
    // As in kill_while_preserving(): this says that it has begun.
    let has_begun = |file: &File| memfd::punch(file, HALF, P) == Err(Errno::EPERM);
    for _ in 0..ATTEMPTS {
        let done = AtomicBool::new(false);
        let seen = std::thread::scope(|scope| -> Result<bool> {
            let threads = pair.each_ref().map(|(session, file)| {
                let done = &done;
                scope.spawn(move || {
                    let result = session.preserve(file, 0);
                    done.store(true, Ordering::SeqCst);
                    result
                })
            });
            let mut seen = false;
            while !seen && !done.load(Ordering::SeqCst) {
                let both = pair.iter().all(|(_, file)| has_begun(file));
                seen = both && !done.load(Ordering::SeqCst);
            }
            for thread in threads {
                thread.join().expect("it does not panic")?;
            }
            Ok(seen)
        })?;
        if seen {
            return Ok(());
        }
        pair.iter()
            .try_for_each(|(session, _)| session.unpreserve(0))?;
    }
    bail!("one waits for the other")
}

/// On the only CPU, others run while PRESERVE_FD and UNPRESERVE_FD do.
fn preserve_beside(ctx: &mut Ctx) -> Result<()> {
    only_ours(ctx, "it may do otherwise")?;
    let file = file(0)?;
    let session = Device::open()?.create_session("finish")?;
    for _ in 0..ATTEMPTS {
        let preserve = longest_wait(|| Ok(session.preserve(&file, 0)?))?;
        let unpreserve = longest_wait(|| Ok(session.unpreserve(0)?))?;
        ctx.figure(&format!(
            "PRESERVE_FD: {preserve:?}, UNPRESERVE_FD: {unpreserve:?}"
        ));
        if is_short(preserve) && is_short(unpreserve) {
            session.preserve(&file, 0)?;
            ctx.keep(session);
            return Ok(());
        }
    }
    bail!("others have to wait for all of it")
}

/// FINISH can be called once for each session: so there is but one attempt.
fn finish_beside(ctx: &mut Ctx) -> Result<()> {
    let session = Device::open()?.retrieve_session("finish")?;
    let file = session.retrieve(0)?;
    let finish = longest_wait(|| Ok(session.finish()?))?;
    ctx.figure(&format!("FINISH: {finish:?}"));
    ensure!(is_short(finish), "others have to wait for all of it");
    drop(file);
    Ok(())
}

/// How long a call takes, and how long somebody who wanted the CPU meanwhile had to wait for it at most.
fn longest_wait(call: impl FnOnce() -> Result<()>) -> Result<(Duration, Duration)> {
    let (ready, done) = (Barrier::new(2), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let other = scope.spawn(|| {
            ready.wait();
            let (mut last, mut longest) = (Instant::now(), Duration::ZERO);
            while !done.load(Ordering::SeqCst) {
                // To want the CPU again in a moment.
                std::thread::sleep(Duration::from_millis(1));
                longest = longest.max(last.elapsed());
                last = Instant::now();
            }
            longest
        });
        ready.wait();
        let start = Instant::now();
        let result = call();
        let took = start.elapsed();
        done.store(true, Ordering::SeqCst);
        let longest = other.join().expect("it does not panic");
        result.map(|()| (took, longest))
    })
}

fn is_short((took, longest): (Duration, Duration)) -> bool {
    longest < took / 3
}

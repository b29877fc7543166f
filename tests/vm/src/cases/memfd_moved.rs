// SPDX-License-Identifier: GPL-2.0

//! Memory that lies where the next kernel boots is moved by PRESERVE_FD: 2 MiB at a time where it can be, while the guest
//! runs, and at nobody else's expense. A page that somebody uses just then is waited for.

use super::common::cgroup::Cgroup;
use super::common::data::{self, Extent};
use super::common::in_the_way::{self, Layout, BLOCK};
use super::common::luo::{Device, Session};
use super::common::memfd::{self, Mapping};
use super::common::pages::PAGE;
use super::common::{only_ours, refused};
use crate::ctx::Ctx;
use crate::kexec;
use crate::test::{Config, Test};
use anyhow::{bail, ensure, Context, Result};
use nix::errno::Errno;
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Barrier;
use std::time::{Duration, Instant};

/// The cases.
pub const TESTS: &[Test] = &[
    Test::new("into_large_folios", CONFIG, &[with_room, arrived]),
    Test::new("page_by_page", CONFIG, &[in_a_full_cgroup, arrived]),
    Test::new("held", CONFIG, &[held, held_arrived]),
];

/// With a scratch area, and memory beside it.
pub const CONFIG: Config = Config::new().memory_mib(1536).timeout_s(400);
const SIZE: usize = 64 << 20;
const PAGES: usize = SIZE / PAGE;
const WORDS_PER_PAGE: usize = PAGE / 8;
const PATIENCE: Duration = Duration::from_secs(120);
/// Times are of a machine that does other things, too: one attempt of these must come out well.
pub const ATTEMPTS: usize = 10;

/// A guest: its memory, and who pays for it.
struct Guest {
    file: File,
    map: Mapping,
    payer: Cgroup,
}

impl Guest {
    /// One whose memory comes from where the next kernel boots, the second half from elsewhere in turns; and at least that
    /// much free memory elsewhere.
    fn new() -> Result<Self> {
        let payer = Cgroup::new("guest")?;
        let file = memfd::create(SIZE as u64)?;
        let map = Mapping::aligned(&file, SIZE, BLOCK * PAGE)?;
        let taken = in_the_way::crowd(SIZE / 2, SIZE)?;
        payer.run(PATIENCE, || {
            for page in 0..PAGES {
                map.store(page * WORDS_PER_PAGE, first_word(page));
            }
            Ok(())
        })?;
        drop(taken);
        Ok(Self { file, map, payer })
    }

    fn layout(&self) -> Result<Layout> {
        Layout::of(&self.map, PAGES)
    }

    /// Preserves the memory while the guest writes to it: it must never see anything but what it wrote.
    fn preserve(&self) -> Result<(Session, Course)> {
        let session = Device::open()?.create_session("guest")?;
        // With each page mapped, as in a guest that has been running for long.
        self.round(0, || {})?;
        let (ready, over) = (Barrier::new(2), AtomicBool::new(false));
        let course = std::thread::scope(|scope| {
            let guest = scope.spawn(|| {
                ready.wait();
                self.run(1, &over)
            });
            ready.wait();
            let start = Instant::now();
            let preserved = session.preserve(&self.file, 1);
            let took = start.elapsed();
            over.store(true, Ordering::SeqCst);
            let course = match guest.join() {
                Ok(course) => course?,
                Err(_) => bail!("the guest has panicked"),
            };
            preserved.context("PRESERVE_FD")?;
            Ok(Course { took, ..course })
        })?;
        Ok((session, course))
    }

    /// Goes round and round through the memory until it is told to stop, and then to the end of that round.
    fn run(&self, first: u64, over: &AtomicBool) -> Result<Course> {
        let mut course = Course {
            rounds: first,
            ..Course::default()
        };
        let (mut last, mut stopped) = (Instant::now(), false);
        while !stopped {
            self.round(course.rounds, || {
                if !stopped {
                    // One that has waited for the end counts, too.
                    course.longest = course.longest.max(last.elapsed());
                    course.accesses += 1;
                    last = Instant::now();
                    stopped = over.load(Ordering::SeqCst);
                }
            })?;
            course.rounds += 1;
        }
        Ok(course)
    }

    /// Looks at the second word of each page, and writes the next one.
    fn round(&self, round: u64, mut after_each: impl FnMut()) -> Result<()> {
        for page in 0..PAGES {
            let at = page * WORDS_PER_PAGE + 1;
            let word = self.map.load(at);
            ensure!(word == round, "page {page} has {word} in round {round}");
            self.map.store(at, round + 1);
            after_each();
        }
        Ok(())
    }
}

/// How a guest fared while its memory was preserved.
#[derive(Debug, Default)]
struct Course {
    /// How long that took.
    took: Duration,
    /// How many pages it has looked at and written meanwhile.
    accesses: usize,
    /// The longest that it took from one to the next.
    longest: Duration,
    /// How often it has been through all of its memory in the end.
    rounds: u64,
}

impl Course {
    /// Whether the guest went on all the while.
    fn is_steady(&self) -> bool {
        self.longest < self.took / 3 && self.accesses > PAGES
    }
}

/// A guest whose memory was preserved while it went on, and how that lay in memory before.
fn preserved(ctx: &mut Ctx, limit: Option<u64>) -> Result<(Guest, Layout)> {
    for _ in 0..ATTEMPTS {
        let guest = Guest::new()?;
        guest.payer.limit(limit)?;
        let before = guest.layout()?;
        ensure!(
            before.in_the_way > PAGES / 4 && before.whole_blocks < PAGES / BLOCK / 2,
            "that proves nothing: {before:?}"
        );
        let (session, course) = guest.preserve()?;
        ctx.figure(&format!("{course:?}"));
        if course.is_steady() {
            ctx.set("rounds", course.rounds);
            ctx.keep(session);
            return Ok((guest, before));
        }
    }
    bail!("the guest stands still while its memory is preserved")
}

fn first_word(page: usize) -> u64 {
    (page as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Nothing is in the way any more, in large folios, and who pays is who paid before.
fn with_room(ctx: &mut Ctx) -> Result<()> {
    only_ours(ctx, "it moves page by page")?;
    let (guest, before) = preserved(ctx, None)?;
    let after = guest.layout()?;
    ensure!(after.in_the_way == 0, "{before:?}, then {after:?}");
    // What the guest had in use just then stays in small pieces.
    ensure!(
        after.whole_blocks > before.whole_blocks + PAGES / BLOCK / 4,
        "{before:?}, then {after:?}"
    );
    ctx.figure(&format!("{before:?}, then {after:?}"));
    guest.payer.is_charged(ctx, SIZE as u64)?;
    ctx.keep(guest);
    Ok(())
}

/// Where the guest's cgroup has no room for a large folio its pages are moved all the same, and nobody is killed.
fn in_a_full_cgroup(ctx: &mut Ctx) -> Result<()> {
    only_ours(ctx, "it moves page by page")?;
    let (guest, before) = preserved(ctx, Some(SIZE as u64 + (1 << 20)))?;
    let after = guest.layout()?;
    ensure!(
        after.in_the_way == 0 && after.whole_blocks <= before.whole_blocks,
        "{before:?}, then {after:?}"
    );
    let killed = guest.payer.events("oom_kill")?;
    ensure!(killed == 0, "{killed} processes were killed");
    ctx.keep(guest);
    Ok(())
}

fn arrived(ctx: &mut Ctx) -> Result<()> {
    let rounds: u64 = ctx.get("rounds")?.parse()?;
    let file = Device::open()?.retrieve_session("guest")?.retrieve(1)?;
    let map = Mapping::new(&file, SIZE)?;
    for page in 0..PAGES {
        let words = [0, 1].map(|word| map.load(page * WORDS_PER_PAGE + word));
        let wanted = [first_word(page), rounds];
        ensure!(
            words == wanted,
            "page {page}: {words:x?} instead of {wanted:x?}"
        );
    }
    Ok(())
}

/// Parts of a memfd: what is there at PRESERVE_FD, what comes before PREPARE, and what comes after it.
pub const PARTS: [Extent; 3] = [part(0), part(1), part(2)];
const PART: u64 = 4 << 20;
pub const HELD: u64 = 3 * PART;
/// How long a page is waited for.
pub const WAIT: Duration = Duration::from_millis(435);

const fn part(number: u64) -> Extent {
    Extent {
        start: number * PART,
        len: PART,
    }
}

/// Somebody who uses a page, as long as these are open.
pub type User = (OwnedFd, OwnedFd);
/// How to become one, of a page of a file that is mapped, by its offset.
pub type Hold = fn(&File, &Mapping, usize) -> Result<User>;

/// All that may have a page, by the offset of it in the file.
pub const USERS: [(&str, Hold); 3] = [
    ("splice", |file, _, start| {
        let (reader, writer) = nix::unistd::pipe()?;
        let mut start = start as libc::loff_t;
        // SAFETY: descriptors, and an offset of ours.
        let done = unsafe {
            let (from, to) = (file.as_raw_fd(), writer.as_raw_fd());
            libc::splice(from, &mut start, to, std::ptr::null_mut(), PAGE, 0)
        };
        has_all(done)?;
        Ok((reader, writer))
    }),
    ("vmsplice", |_, map, start| {
        let (reader, writer) = nix::unistd::pipe()?;
        let page = libc::iovec {
            iov_base: (map.address() + start) as *mut _,
            iov_len: PAGE,
        };
        // SAFETY: a page of a shared mapping, which others may read and write at any time.
        has_all(unsafe { libc::vmsplice(writer.as_raw_fd(), &page, 1, 0) })?;
        Ok((reader, writer))
    }),
    ("sendfile", |file, _, start| {
        let (reader, writer) = UnixStream::pair()?;
        let mut start = start as libc::off_t;
        // SAFETY: descriptors, and an offset of ours.
        let done =
            unsafe { libc::sendfile(writer.as_raw_fd(), file.as_raw_fd(), &mut start, PAGE) };
        has_all(done)?;
        Ok((reader.into(), writer.into()))
    }),
];

fn has_all(done: isize) -> Result<()> {
    let done = Errno::result(done)?;
    ensure!(done == PAGE as isize, "{done} bytes of a page");
    Ok(())
}

/// Fills a part with memory from where the next kernel boots. Returns where in the file a page of it is that lies there.
pub fn fill_in_the_way(file: &File, map: &Mapping, part: Extent) -> Result<usize> {
    for _ in 0..ATTEMPTS {
        let taken = in_the_way::crowd(2 * PART as usize, 2 * PART as usize)?;
        data::fill(file, 0, part)?;
        drop(taken);
        for start in (part.start as usize..)
            .step_by(PAGE)
            .take(part.len as usize / PAGE)
        {
            if in_the_way::is_page(map, start)? {
                return Ok(start);
            }
        }
        // Somebody has freed memory elsewhere meanwhile.
        memfd::punch(file, part.start, part.len)?;
    }
    bail!("that proves nothing: none is in the way")
}

/// A page that cannot be moved, as somebody uses it, is waited for; then the command fails, and all is as before.
fn held(ctx: &mut Ctx) -> Result<()> {
    only_ours(ctx, "it does not wait as long")?;
    let file = memfd::create(HELD)?;
    let map = Mapping::new(&file, HELD as usize)?;
    let session = Device::open()?.create_session("held")?;

    let page = fill_in_the_way(&file, &map, PARTS[0])?;
    for (name, hold) in USERS {
        let test = || -> Result<()> {
            ensure!(
                in_the_way::is_page(&map, page)?,
                "that proves nothing: it is not in the way"
            );
            let user = hold(&file, &map, page)?;
            let start = Instant::now();
            refused("PRESERVE_FD", session.preserve(&file, 1), Errno::ENOMEM)?;
            let took = start.elapsed();
            ensure!(took >= WAIT, "it has waited {took:?} only");
            ensure!(session.state()? == (1, 0, 0), "{:?}", session.state());
            memfd::truncate(&file, HELD + PART).context("growing it")?;
            memfd::truncate(&file, HELD).context("shrinking it")?;
            memfd::punch(&file, HELD - PART, PART).context("punching it")?;
            drop(user);
            data::check(&file, 0, HELD, &PARTS[..1])
        };
        test().context(name)?;
    }
    let waited_for = (0..ATTEMPTS).any(|_| preserve_while_let_go(&session, &file, &map, page));
    ensure!(waited_for, "it does not wait for a page");
    ensure!(!in_the_way::is_page(&map, page)?, "it was not moved");

    let hold = USERS[0].1;
    let page = fill_in_the_way(&file, &map, PARTS[1])?;
    let user = hold(&file, &map, page)?;
    let result = session.prepare();
    ensure!(result == Err((Errno::ENOMEM, 1)), "PREPARE: {result:?}");
    ensure!(session.state()? == (1, 1, 0), "{:?}", session.state());
    drop(user);
    let result = session.prepare();
    ensure!(result == Ok(()), "PREPARE: {result:?}");
    ensure!(!in_the_way::is_page(&map, page)?, "it was not moved");

    let page = fill_in_the_way(&file, &map, PARTS[2])?;
    let user = hold(&file, &map, page)?;
    ctx.kexec_load()?;
    let errno = kexec::execute();
    ensure!(errno == Errno::ENOMEM, "the kexec: {errno:?}");
    ensure!(session.state()? == (2, 1, 0), "{:?}", session.state());
    drop(user);
    data::check(&file, 0, HELD, &PARTS)?;
    ensure!(
        in_the_way::is_page(&map, page)?,
        "that proves nothing: it was moved"
    );
    // A kernel that the refused call started after all would not be given this.
    ctx.set("refused", errno);
    ctx.keep((session, map));
    Ok(())
}

/// What is held is let go of while PRESERVE_FD waits for it. Returns whether it was in time.
fn preserve_while_let_go(session: &Session, file: &File, map: &Mapping, page: usize) -> bool {
    let (_, hold) = USERS[0];
    let Ok(user) = hold(file, map, page) else {
        return false;
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(WAIT / 4);
            drop(user);
        });
        session.preserve(file, 1).is_ok()
    })
}

fn held_arrived(ctx: &mut Ctx) -> Result<()> {
    ctx.get("refused")?;
    let session = Device::open()?.retrieve_session("held")?;
    let file = session.retrieve(1)?;
    data::check(&file, 0, HELD, &PARTS)?;
    session.finish()?;
    Ok(())
}

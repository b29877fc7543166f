// SPDX-License-Identifier: GPL-2.0

//! Everything that can be done to a memfd, to be done to two of the same contents: one that a live update brought, and
//! one that it did not. What is answered and what comes out must be the same.

use super::data::{self, Extent};
use super::memfd::{self, Mapping};
use super::pages::PAGE;
use crate::process::Child;
use anyhow::{ensure, Context, Result};
use nix::errno::Errno;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

const P: u64 = PAGE as u64;
/// The size of the file: in its last page there is a rest.
pub const SIZE: u64 = 640 * P - 1000;
const LEN: usize = SIZE as usize;

/// What the file has, all else being hole: a run as long as a huge page and more, single pages, and a run to the end.
pub const EXTENTS: &[Extent] = &[
    pages(0, 520),
    pages(540, 20),
    pages(600, 1),
    Extent {
        start: 630 * P,
        len: SIZE - 630 * P,
    },
];

/// How many pages that is.
pub const POPULATED: u64 = 551;

const fn pages(first: u64, count: u64) -> Extent {
    Extent {
        start: first * P,
        len: count * P,
    }
}

/// A new file of these contents. Pages 540 to 559 are filled backwards, so that in memory they do not follow each other.
pub fn file(seed: u64) -> Result<File> {
    let file = memfd::create(SIZE)?;
    data::fill(&file, seed, EXTENTS[0])?;
    fill_rest(&file, seed)?;
    Ok(file)
}

/// The same, but no two pages of the first run follow each other in memory; they are a run there, in another order.
pub fn shuffled(seed: u64) -> Result<File> {
    among(seed, &[])
}

/// The same, but no two are neighbours in memory.
pub fn scattered(seed: u64) -> Result<File> {
    among(seed, &[memfd::create(SIZE)?])
}

/// The pages of the first run are made in no order of the file, and in turn with those of others.
fn among(seed: u64, others: &[File]) -> Result<File> {
    let file = memfd::create(SIZE)?;
    let all: Vec<_> = others.iter().chain([&file]).collect();
    memfd::scatter(&all, EXTENTS[0])?;
    data::fill(&file, seed, EXTENTS[0])?;
    fill_rest(&file, seed)?;
    Ok(file)
}

/// The same, but the first run is in folios of `kib` KiB, as many as fit.
pub fn in_folios(seed: u64, kib: u64) -> Result<File> {
    let file = memfd::create(SIZE)?;
    let len = EXTENTS[0].len / (kib << 10) * (kib << 10);
    memfd::fill_with_folios(&file, data::whole(len), kib)?;
    data::fill(&file, seed, EXTENTS[0])?;
    fill_rest(&file, seed)?;
    Ok(file)
}

fn fill_rest(file: &File, seed: u64) -> Result<()> {
    for page in (540..560).rev() {
        data::fill(file, seed, pages(page, 1))?;
    }
    data::fill(file, seed, EXTENTS[2])?;
    data::fill(file, seed, EXTENTS[3])
}

/// What is done to a file.
pub enum Op {
    /// Punches holes: start and length in bytes.
    Punch(&'static [(u64, u64)]),
    /// Gives it these sizes, one after the other.
    Truncate(&'static [u64]),
    /// Anything else, with the answers that it gets.
    Run(fn(&File) -> Result<String>),
}

/// All that is done, each to a file of its own.
pub const OPS: &[(&str, Op)] = &[
    ("nothing", Op::Run(|_| Ok(String::new()))),
    ("read by mapping", Op::Run(read_mapped)),
    ("write by mapping", Op::Run(write_mapped)),
    ("write in private", Op::Run(write_private)),
    ("write", Op::Run(write)),
    ("append", Op::Run(append)),
    ("fallocate", Op::Run(fallocate)),
    ("punch the first page", Op::Punch(&[(0, P)])),
    ("punch the last page", Op::Punch(&[(639 * P, P)])),
    ("punch pages inside a run", Op::Punch(&[(7 * P, 300 * P)])),
    ("punch one page of a run", Op::Punch(&[(255 * P, P)])),
    (
        "punch parts of pages",
        Op::Punch(&[(3 * P + 10, 100), (99 * P + 1, 50 * P), (300 * P, P + 5)]),
    ),
    (
        "punch across runs",
        Op::Punch(&[(500 * P + 77, 50 * P), (559 * P, 42 * P)]),
    ),
    ("punch holes", Op::Punch(&[(521 * P, 10 * P), (700 * P, P)])),
    ("punch it all", Op::Punch(&[(0, 1000 * P)])),
    (
        "truncate inside a run and grow",
        Op::Truncate(&[200 * P + 123, 400 * P]),
    ),
    (
        "truncate at a page and grow",
        Op::Truncate(&[511 * P, 512 * P, 700 * P]),
    ),
    ("truncate in a hole", Op::Truncate(&[530 * P + 1, SIZE])),
    ("truncate by a byte", Op::Truncate(&[SIZE - 1, SIZE + 1])),
    ("truncate to nothing", Op::Truncate(&[0, 0, SIZE])),
    ("MADV_REMOVE", Op::Run(remove)),
    (
        "MADV_WILLNEED",
        Op::Run(|file| advise(file, libc::MADV_WILLNEED)),
    ),
    ("MADV_PAGEOUT", Op::Run(page_out)),
    (
        "MADV_POPULATE_WRITE",
        Op::Run(|file| advise(file, libc::MADV_POPULATE_WRITE)),
    ),
    ("MADV_COLLAPSE", Op::Run(collapse)),
    ("mlock", Op::Run(lock)),
    ("POSIX_FADV_DONTNEED", Op::Run(dont_need)),
    ("copies", Op::Run(copies)),
    ("copies in", Op::Run(copies_in)),
    ("fork", Op::Run(fork)),
    ("seals", Op::Run(seals)),
    ("smaps", Op::Run(smaps)),
];

impl Op {
    /// Does it, and tells what was answered.
    pub fn run(&self, file: &File) -> Result<String> {
        match self {
            Op::Punch(holes) => Ok(answers(holes, |(start, len)| {
                memfd::punch(file, start, len)
            })),
            Op::Truncate(sizes) => Ok(answers(sizes, |size| memfd::truncate(file, size))),
            Op::Run(run) => run(file),
        }
    }
}

fn answers<T: Copy>(args: &[T], call: impl Fn(T) -> Result<(), Errno>) -> String {
    let all: Vec<_> = args.iter().map(|&arg| call(arg)).collect();
    format!("{all:?}")
}

/// Places all over the file: at borders of pages, in holes, in the last page.
fn places() -> impl Iterator<Item = usize> {
    let pages = [
        0, 1, 63, 64, 255, 256, 511, 519, 520, 539, 540, 550, 559, 600, 629, 630,
    ];
    let inside = pages
        .into_iter()
        .flat_map(|page| [page * PAGE, page * PAGE + PAGE - 1]);
    inside.chain([LEN - 1])
}

fn read_mapped(file: &File) -> Result<String> {
    let map = Mapping::with_protection(file, LEN, libc::PROT_READ)?;
    // Backwards: nothing may depend on the order of the first touches.
    let bytes: Vec<_> = (0..LEN).rev().step_by(97).map(|i| map.read(i)).collect();
    Ok(format!("{:?}", &bytes))
}

fn write_mapped(file: &File) -> Result<String> {
    let map = Mapping::new(file, LEN)?;
    for (n, place) in places().enumerate() {
        map.write(place, n as u8);
    }
    Ok(String::new())
}

fn write_private(file: &File) -> Result<String> {
    let map = Mapping::private(file, LEN)?;
    for place in places() {
        map.write(place, !map.read(place));
    }
    let bytes: Vec<_> = places().map(|place| map.read(place)).collect();
    Ok(format!("{bytes:?}"))
}

fn write(file: &File) -> Result<String> {
    let mut answers = Vec::new();
    // Within a page, over some of them, over the end of a run, over the end of the file, behind it.
    for (start, len) in [
        (5 * P + 3, 10),
        (100 * P - 1, 2),
        (130 * P + 50, 20_000),
        (519 * P, 5 * P),
        (SIZE - 10, 3 * PAGE as u64),
        (800 * P + 9, 9),
    ] {
        let bytes = data::bytes(start, 0, len as usize);
        answers.push(memfd::write_at(file, start, &bytes));
    }
    Ok(format!("{answers:?}"))
}

fn append(mut file: &File) -> Result<String> {
    let at = file.seek(SeekFrom::End(0))?;
    file.write_all(&data::bytes(4711, 0, 3 * PAGE))?;
    Ok(format!("{at} {}", file.stream_position()?))
}

fn fallocate(file: &File) -> Result<String> {
    let zero = libc::FALLOC_FL_ZERO_RANGE;
    let keep = libc::FALLOC_FL_KEEP_SIZE;
    let calls = [
        (0, 10 * P, 600 * P),
        (keep, 630 * P, 100 * P),
        (zero, 5 * P, 10 * P),
        (0, 0, 660 * P),
    ];
    Ok(answers(&calls, |(mode, start, len)| {
        memfd::fallocate(file, mode, start, len)
    }))
}

fn remove(file: &File) -> Result<String> {
    let map = Mapping::new(file, LEN)?;
    map.read(20 * PAGE);
    let parts = [(0, PAGE), (10 * PAGE, 90 * PAGE), (510 * PAGE, 40 * PAGE)];
    Ok(answers(&parts, |(start, len)| {
        map.advise_part(start, len, libc::MADV_REMOVE)
    }))
}

fn advise(file: &File, advice: libc::c_int) -> Result<String> {
    let map = Mapping::new(file, LEN)?;
    Ok(format!("{:?}", map.advise(advice)))
}

fn page_out(file: &File) -> Result<String> {
    let map = Mapping::new(file, LEN)?;
    let before = map.advise(libc::MADV_PAGEOUT);
    let sum: u64 = (0..LEN).step_by(PAGE).map(|i| u64::from(map.read(i))).sum();
    let after = map.advise(libc::MADV_PAGEOUT);
    Ok(format!("{before:?} {sum} {after:?}"))
}

/// What a file on a disk loses can be read again: there is no other copy of these pages, be they there yet or not.
fn dont_need(file: &File) -> Result<String> {
    let drop_pages = || {
        // SAFETY: a descriptor and numbers.
        let done =
            unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
        ensure!(done == 0, "posix_fadvise: {}", Errno::from_raw(done));
        Ok(())
    };
    drop_pages()?;
    let map = Mapping::new(file, LEN)?;
    let sum: u64 = (0..LEN).step_by(PAGE).map(|i| u64::from(map.read(i))).sum();
    drop(map);
    drop_pages()?;
    Ok(format!("{sum}"))
}

fn collapse(file: &File) -> Result<String> {
    const HUGE: usize = 2 << 20;
    // Only an address that is aligned as the file is can be that of a huge page.
    let map = Mapping::aligned(file, LEN, HUGE)?;
    Ok(format!("{:?}", map.collapse(0, HUGE)))
}

fn lock(file: &File) -> Result<String> {
    let map = Mapping::new(file, LEN)?;
    map.lock()?;
    let mut pages = vec![0; LEN.div_ceil(PAGE)];
    map.mincore(&mut pages)?;
    ensure!(
        pages.iter().all(|page| page & 1 == 1),
        "locked, and not there"
    );
    Ok(String::new())
}

/// sendfile(2), splice(2), copy_file_range(2), readahead(2).
fn copies(file: &File) -> Result<String> {
    let fd = file.as_raw_fd();
    let to = memfd::create(0)?;
    let mut from = 3 * P as libc::off_t + 5;
    // SAFETY: descriptors, and an offset of ours.
    let sent = unsafe { libc::sendfile(to.as_raw_fd(), fd, &mut from, 550 * PAGE) };
    let sent = Errno::result(sent).context("sendfile")?;
    ensure!(sent == 550 * PAGE as isize, "{sent} bytes sent");
    let mut bytes = vec![0; sent as usize];
    to.read_exact_at(&mut bytes, 0)?;
    let mut wanted = vec![0; sent as usize];
    file.read_exact_at(&mut wanted, 3 * P + 5)?;
    ensure!(bytes == wanted, "other bytes sent");

    let (reader, writer) = nix::unistd::pipe()?;
    let mut offset = 600 * P as libc::loff_t - 100;
    // SAFETY: descriptors, and an offset of ours.
    let spliced = Errno::result(unsafe {
        libc::splice(
            fd,
            &mut offset,
            writer.as_raw_fd(),
            std::ptr::null_mut(),
            200,
            0,
        )
    })
    .context("splice")?;
    let mut piece = vec![0; spliced as usize];
    File::from(reader).read_exact(&mut piece)?;

    let (mut from, mut to) = (40 * P as libc::loff_t + 1, 560 * P as libc::loff_t + 7);
    // SAFETY: descriptors, and offsets of ours.
    let copied =
        Errno::result(unsafe { libc::copy_file_range(fd, &mut from, fd, &mut to, 30 * PAGE, 0) });
    // SAFETY: a descriptor and numbers.
    let ahead = Errno::result(unsafe { libc::readahead(fd, 100 * P as libc::off64_t, 10 * PAGE) });
    Ok(format!("{piece:?} {copied:?} {ahead:?}"))
}

/// splice(2) and sendfile(2) into the file, and a write to a mapping of it by way of /proc/self/mem, which takes its pages
/// without a fault: each from a run on into the hole behind.
fn copies_in(file: &File) -> Result<String> {
    const COUNT: usize = 2 * PAGE + 100;
    let fd = file.as_raw_fd();
    let bytes = data::bytes(815, 0, COUNT);

    let (reader, writer) = nix::unistd::pipe()?;
    File::from(writer).write_all(&bytes)?;
    let mut to = 520 * P as libc::loff_t - 70;
    // SAFETY: descriptors, and an offset of ours.
    let spliced = Errno::result(unsafe {
        let from = reader.as_raw_fd();
        libc::splice(from, std::ptr::null_mut(), fd, &mut to, COUNT, 0)
    })
    .context("splice")?;

    let from = memfd::create(0)?;
    from.write_all_at(&bytes, 0)?;
    memfd::seek(file, 560 * P - 1001)?;
    // SAFETY: descriptors; the position is that of the file.
    let sent = unsafe { libc::sendfile(fd, from.as_raw_fd(), std::ptr::null_mut(), COUNT) };
    let sent = Errno::result(sent).context("sendfile")?;

    let map = Mapping::new(file, LEN)?;
    let memory = File::options().write(true).open("/proc/self/mem")?;
    memory
        .write_all_at(&bytes, map.address() as u64 + 601 * P - 33)
        .context("/proc/self/mem")?;
    Ok(format!("{spliced} {to} {sent} {}", memfd::position(file)?))
}

/// A child writes where the parent has not looked yet, and the other way round.
fn fork(file: &File) -> Result<String> {
    let map = Mapping::new(file, LEN)?;
    map.write(PAGE, 1);
    let child = Child::spawn(|_| {
        for (n, place) in places().enumerate().filter(|(n, _)| n % 2 == 0) {
            map.write(place, n as u8);
        }
    })?;
    for (n, place) in places().enumerate().filter(|(n, _)| n % 2 == 1) {
        map.write(place, n as u8);
    }
    child.wait()?;
    let bytes: Vec<_> = places().map(|place| map.read(place)).collect();
    Ok(format!("{bytes:?}"))
}

fn seals(file: &File) -> Result<String> {
    let mut log = Vec::new();
    let map = Mapping::new(file, LEN)?;
    log.push(memfd::add_seals(file, libc::F_SEAL_WRITE));
    drop(map);
    log.push(memfd::add_seals(file, libc::F_SEAL_GROW));
    log.push(memfd::truncate(file, SIZE + 1));
    log.push(memfd::add_seals(file, libc::F_SEAL_SHRINK));
    log.push(memfd::truncate(file, SIZE - 1));
    log.push(memfd::add_seals(file, libc::F_SEAL_FUTURE_WRITE));
    log.push(Mapping::new(file, LEN).map(drop));
    log.push(memfd::add_seals(file, libc::F_SEAL_WRITE));
    log.push(memfd::write_at(file, 9, b"!").map(drop));
    log.push(memfd::punch(file, 0, P));
    log.push(memfd::add_seals(file, libc::F_SEAL_SEAL));
    log.push(memfd::add_seals(file, libc::F_SEAL_EXEC));
    Ok(format!("{log:?} {:?}", memfd::seals(file)))
}

/// What is resident and what is not add up to what there is.
fn smaps(file: &File) -> Result<String> {
    let map = Mapping::new(file, LEN)?;
    for page in 0..100 {
        map.read(page * PAGE);
    }
    let text = std::fs::read_to_string("/proc/self/smaps")?;
    let start = format!("{:x}-", map.address());
    let mut lines = text.lines().skip_while(|line| !line.starts_with(&start));
    let mut kib = |key: &str| -> Result<u64> {
        let line = lines.find(|line| line.starts_with(key));
        let value = line.and_then(|line| line.split_whitespace().nth(1));
        Ok(value
            .with_context(|| format!("no {key} in smaps"))?
            .parse()?)
    };
    let (size, rss) = (kib("Size:")?, kib("Rss:")?);
    let (pss, swap) = (kib("Pss:")?, kib("Swap:")?);
    ensure!((400..=SIZE >> 10).contains(&rss), "{rss} KiB are mapped");
    ensure!(pss <= rss, "Pss {pss}, Rss {rss}");
    let there = super::seen::resident(file)? as u64 * 4;
    ensure!(
        there + swap == POPULATED * 4,
        "{there} KiB resident, {swap} in swap"
    );
    Ok(format!("{size}"))
}

// SPDX-License-Identifier: GPL-2.0

//! Memory that the hardware has lost: a memfd that has some cannot be preserved, and says so; without it, it can.

mod retrieved;

use super::common::cgroup::Cgroup;
use super::common::data::{self, whole, Extent};
use super::common::in_the_way::{self, BLOCK};
use super::common::luo::{Device, Session};
use super::common::memfd::{self, Mapping};
use super::common::pages::PAGE;
use super::common::{io_errno, only_ours, refused, seen};
use crate::ctx::Ctx;
use crate::frames;
use crate::init::swap;
use crate::kmsg::Log;
use crate::process::Child;
use crate::test::{Config, Test};
use anyhow::{bail, ensure, Context, Result};
use nix::errno::Errno;
use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::time::Duration;

/// The cases.
pub const TESTS: &[Test] = &[
    Test::new("small", CONFIG, &[small, arrived]),
    Test::new("large", CONFIG, &[large, arrived]),
    Test::new("in_the_way", CONFIG, &[in_the_way, arrived]),
    Test::new("late", CONFIG, &[late, arrived]),
    Test::new("pinned", CONFIG, &[pinned]),
    Test::new(
        "untouched",
        CONFIG,
        &[retrieved::hand_on, retrieved::lose_untouched],
    ),
    Test::new(
        "uncharged",
        CONFIG,
        &[retrieved::hand_on, retrieved::lose_uncharged],
    ),
    Test::new("in_swap", CONFIG, &[in_swap, hole_arrived]),
];

const CONFIG: Config = Config::new().memory_mib(1536).timeout_s(400);
const SEED: u64 = 5;
const LARGE: u64 = (BLOCK * PAGE) as u64;
const SIZE: u64 = 2 * LARGE;
/// The page that is lost.
const LOST: u64 = LARGE + 7 * PAGE as u64;
/// Of this size folios are free for everybody at once, and not only for the CPU that has freed them.
const FOLIO: u64 = 1 << 20;
/// Far longer than anything takes here.
const LONG: Duration = Duration::from_secs(60);

/// Has the kernel believe that the hardware has lost a page, which is mapped nowhere else.
fn lose(file: &File) -> Result<()> {
    lose_page(file, SIZE, LOST)?;
    refused("reading it", read_page(file, LOST), Errno::EIO)
}

/// The same for any page of a file of any size.
fn lose_page(file: &File, size: u64, start: u64) -> Result<()> {
    // Whoever does this is who touches it.
    Child::spawn(|_| {
        if let Ok(map) = Mapping::new(file, size as usize) {
            map.read(start as usize);
            let _ = map.advise_part(start as usize, PAGE, libc::MADV_HWPOISON);
        }
    })?
    .wait()?;
    Ok(())
}

/// Has the kernel believe that the hardware has lost a page, of which it cannot tell whose it is, and says so.
fn lose_frame(frame: u64) -> Result<()> {
    let _ = std::fs::write(
        "/sys/kernel/debug/hwpoison/corrupt-pfn",
        format!("{frame:#x}"),
    );
    ensure!(frames::is_lost(frame)?, "frame {frame:#x} is not lost");
    Ok(())
}

/// The frame of a page of the file.
fn frame_of(file: &File, start: u64) -> Result<u64> {
    let map = Mapping::new(file, SIZE as usize)?;
    map.read(start as usize);
    Ok(frames::of_mapping(map.address() + start as usize, 1)?[0])
}

/// The allocator does not have it, and nobody else.
fn is_kept(frame: u64) -> Result<()> {
    let used = frames::in_use(&[frame])?;
    ensure!(used.is_empty(), "frame {frame:#x} is lost, and free");
    Ok(())
}

/// It is what it was, a part of a large folio, which nobody frees.
fn stays(frame: u64) -> Result<()> {
    ensure!(
        frames::is_of_folio(frame)? && frames::is_lost(frame)?,
        "frame {frame:#x} is lost, and free"
    );
    Ok(())
}

fn read_page(file: &File, start: u64) -> Result<(), Errno> {
    file.read_exact_at(&mut [0; PAGE], start).map_err(io_errno)
}

/// PRESERVE_FD is refused at once, and nothing is left of it.
fn is_refused(session: &Session, file: &File) -> Result<()> {
    let mut log = Log::from_now()?;
    Child::run(LONG, || {
        refused("PRESERVE_FD", session.preserve(file, 1), Errno::EHWPOISON)
    })?;
    log.expect("cannot preserve fd")?;
    ensure!(session.state()? == (1, 0, 0), "{:?}", session.state());
    memfd::truncate(file, 2 * SIZE).context("growing it")?;
    memfd::truncate(file, SIZE).context("shrinking it")
}

/// Without what is lost it is a memfd like any other, of which the page is a hole.
fn let_go_and_preserve(ctx: &mut Ctx, session: Session, file: File) -> Result<()> {
    memfd::punch(&file, LOST / LARGE * LARGE, LARGE).context("punching it")?;
    session.preserve(&file, 1)?;
    ctx.keep((session, file));
    Ok(())
}

fn arrived(_: &mut Ctx) -> Result<()> {
    let session = Device::open()?.retrieve_session("lost")?;
    let file = session.retrieve(1)?;
    let there = whole(LOST / LARGE * LARGE);
    data::check(&file, SEED, SIZE, &[there])?;
    session.finish()?;
    Ok(())
}

/// PRESERVE_FD of a memfd that was made so, and has lost a page then.
fn preserve(ctx: &mut Ctx, make: impl FnOnce() -> Result<File>) -> Result<()> {
    only_ours(ctx, "it hands over what is lost, or waits for ever")?;
    let session = Device::open()?.create_session("lost")?;
    let file = make()?;
    lose(&file)?;
    is_refused(&session, &file)?;
    let_go_and_preserve(ctx, session, file)
}

fn filled() -> Result<File> {
    let file = memfd::create(SIZE)?;
    data::fill(&file, SEED, whole(SIZE))?;
    Ok(file)
}

fn small(ctx: &mut Ctx) -> Result<()> {
    preserve(ctx, filled)
}

/// The page is in a large folio, which can be split for it.
fn large(ctx: &mut Ctx) -> Result<()> {
    preserve(ctx, || folios(LARGE))
}

/// A file in folios of this size.
fn folios(size: u64) -> Result<File> {
    let file = memfd::create(SIZE)?;
    memfd::fill_with_folios(&file, whole(SIZE), size >> 10)?;
    data::fill(&file, SEED, whole(SIZE))?;
    Ok(file)
}

/// The page is where the next kernel boots, and cannot be moved from there.
fn in_the_way(ctx: &mut Ctx) -> Result<()> {
    /// Where one page comes from is chance, of so many it is not.
    const FILES: usize = 8;
    preserve(ctx, || {
        let _crowd = in_the_way::crowd(FILES * SIZE as usize, FILES * SIZE as usize)?;
        let files = (0..FILES).map(|_| filled()).collect::<Result<Vec<_>>>()?;
        let is_in_the_way = |file: &File| {
            let map = Mapping::new(file, SIZE as usize)?;
            in_the_way::is_page(&map, LOST as usize)
        };
        for file in files {
            if is_in_the_way(&file)? {
                return Ok(file);
            }
        }
        bail!("that proves nothing: nothing is in the way")
    })
}

/// The page came after PRESERVE_FD: neither PREPARE nor the kexec takes it.
fn late(ctx: &mut Ctx) -> Result<()> {
    only_ours(ctx, "it hands over what is lost")?;
    let session = Device::open()?.create_session("lost")?;
    let file = memfd::create(SIZE)?;
    data::fill(&file, SEED, whole(LARGE))?;
    session.preserve(&file, 1)?;
    let page = Extent {
        start: LOST,
        len: PAGE as u64,
    };
    data::fill(&file, SEED, page)?;
    lose(&file)?;
    let result = session.prepare();
    ensure!(result == Err((Errno::EHWPOISON, 1)), "PREPARE: {result:?}");
    ctx.kexec_load()?;
    let errno = crate::kexec::execute();
    ensure!(errno == Errno::EHWPOISON, "the kexec: {errno:?}");
    session.unpreserve(1)?;
    let_go_and_preserve(ctx, session, file)
}

/// It was lost of a large folio that could not be split, as it was preserved: nobody gets it once that is let go.
fn pinned(_: &mut Ctx) -> Result<()> {
    let session = Device::open()?.create_session("lost")?;
    let file = folios(FOLIO)?;
    session.preserve(&file, 1)?;
    let frame = frame_of(&file, LOST)?;
    lose_frame(frame)?;
    drop(session);
    ensure!(frames::is_of_folio(frame)?, "it could be split");
    memfd::punch(&file, LOST / FOLIO * FOLIO, FOLIO)?;
    stays(frame)
}

/// What is filled of a memfd that goes to swap, behind which there are holes.
const FILLED: Extent = Extent {
    start: 0,
    len: 8 * PAGE as u64,
};
/// Pages that are lost there: one of these, and one that was a hole.
const LOST_IN_SWAP: [u64; 2] = [3 * PAGE as u64, 11 * PAGE as u64];
/// A page that is not.
const HOLE: u64 = 12 * PAGE as u64;
const IN_SWAP: u64 = 16 * PAGE as u64;
/// Size of the swap device.
const SWAP: u64 = 4 << 20;

/// A memfd that goes to swap, and where that is.
struct Swapped<'a> {
    file: &'a File,
    swap: &'a File,
    /// Whose memory it is.
    owner: &'a Cgroup,
}

/// Lets the swap device lose a page, once all but so many of the file are there.
fn lose_in_swap(ctx: &Ctx, it: &Swapped<'_>, start: u64, stay: usize) -> Result<()> {
    let Swapped { file, swap, owner } = it;
    let mut lost = [0; PAGE];
    file.read_exact_at(&mut lost, start)?;
    // A page that is on its way there is still in memory.
    let is_out = || owner.reclaim().is_ok() && seen::resident(file).ok() == Some(stay);
    ctx.wait_for("the rest is in swap", LONG, is_out)?;
    let mut page = [0; PAGE];
    let is_lost = |at: &u64| swap.read_exact_at(&mut page, *at).is_ok() && page == lost;
    let at = (0..SWAP).step_by(PAGE).find(is_lost);
    lose_page(swap, SWAP, at.context("it is not in swap")?)?;
    refused("reading it", read_page(file, start), Errno::EIO)
}

/// What is lost in swap cannot be handed over. Without it all is that comes later, into holes, too.
fn in_swap(ctx: &mut Ctx) -> Result<()> {
    only_ours(ctx, "it hands over what was never in a hole")?;
    let session = Device::open()?.create_session("swap")?;
    let swap = memfd::create(SWAP)?;
    // Not by whoever swaps, which would have to be swapped out.
    swap.write_all_at(&vec![0; SWAP as usize], 0)?;
    swap::start(&loop_device(&swap)?, SWAP)?;
    let owner = Cgroup::new("swapped")?;
    let file = memfd::create(IN_SWAP)?;
    owner.inside(|| data::fill(&file, SEED, FILLED))?;
    let it = Swapped {
        file: &file,
        swap: &swap,
        owner: &owner,
    };
    let [first, second] = LOST_IN_SWAP;
    lose_in_swap(ctx, &it, first, 0)?;
    refused("what is lost", session.preserve(&file, 1), Errno::EIO)?;
    memfd::punch(&file, first, PAGE as u64)?;
    session.preserve(&file, 1)?;

    owner.inside(|| Ok(file.write_all_at(b"soon lost", second)?))?;
    lose_in_swap(ctx, &it, second, 7)?;
    let prepared = session.prepare().map_err(|(errno, _)| errno);
    refused("what is lost later", prepared, Errno::EIO)?;
    session.unpreserve(1)?;
    memfd::punch(&file, second, PAGE as u64)?;
    session.preserve(&file, 1)?;

    // As many pages as were lost.
    for page in 0..2 {
        file.write_all_at(b"late", HOLE + page * PAGE as u64)?;
    }
    ctx.keep((session, file, swap));
    Ok(())
}

fn hole_arrived(_: &mut Ctx) -> Result<()> {
    let session = Device::open()?.retrieve_session("swap")?;
    let file = session.retrieve(1)?;
    for page in 0..2 {
        let mut late = [0; 4];
        file.read_exact_at(&mut late, HOLE + page * PAGE as u64)?;
        ensure!(late == *b"late", "{late:?} in what was a hole");
    }
    memfd::punch(&file, HOLE, 2 * PAGE as u64)?;
    let [lost, _] = LOST_IN_SWAP;
    let end = lost + PAGE as u64;
    let before = whole(lost);
    let behind = Extent {
        start: end,
        len: FILLED.len - end,
    };
    data::check(&file, SEED, IN_SWAP, &[before, behind])?;
    Ok(session.finish()?)
}

/// A block device whose blocks are in this file.
fn loop_device(file: &File) -> Result<String> {
    /// Of `linux/loop.h`.
    const LOOP_SET_FD: libc::Ioctl = 0x4c00;
    const LOOP_CTL_GET_FREE: libc::Ioctl = 0x4c82;
    let control = File::open("/dev/loop-control").context("/dev/loop-control")?;
    // SAFETY: it takes nothing.
    let number = unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE) };
    let path = format!(
        "/dev/loop{}",
        Errno::result(number).context("a loop device")?
    );
    let device = OpenOptions::new()
        .read(true)
        .write(true)
        .open(&path)
        .context(path.clone())?;
    // SAFETY: it takes a descriptor.
    Errno::result(unsafe { libc::ioctl(device.as_raw_fd(), LOOP_SET_FD, file.as_raw_fd()) })
        .context("LOOP_SET_FD")?;
    Ok(path)
}

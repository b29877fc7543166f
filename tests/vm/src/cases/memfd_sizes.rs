// SPDX-License-Identifier: GPL-2.0

//! Sizes and shapes around every boundary, in both encodings, filled before PRESERVE_FD, before PREPARE and before the
//! kexec: the new kernel makes the same file again, and what arrived looks like it.

use super::common::data::{self, Extent};
use super::common::luo::{Device, Session};
use super::common::memfd::{self, Mapping};
use super::common::pages::PAGE;
use super::common::{only_ours, seen};
use crate::ctx::Ctx;
use crate::test::{Config, Test};
use anyhow::{bail, ensure, Context, Result};
use std::fs::File;

/// The cases.
pub const TESTS: &[Test] = &[
    Test::new("boundaries", CONFIG, &[preserve, check]),
    Test::new(
        "boundaries_in_v2",
        CONFIG.params("memfd_v2=1"),
        &[preserve, check],
    ),
];

const CONFIG: Config = Config::new().memory_mib(1536).swap_mib(128).timeout_s(400);
const P: u64 = PAGE as u64;
const HUGE: u64 = 2 << 20;
const SHMEM_ENABLED: &str = "/sys/kernel/mm/transparent_hugepage/shmem_enabled";

/// What is done to a file. Pages are counted from 0; one that reaches beyond the end is cut.
#[derive(Clone, Copy)]
enum Step {
    /// Fills bytes: start and length.
    Bytes(u64, u64),
    /// Fills pages, in order: first and count.
    Pages(u64, u64),
    /// The same from the last one on.
    Backwards(u64, u64),
    /// The same in random order.
    Shuffled(u64, u64),
    /// Fills every second page from 0 on, so many of them: each is an extent of its own.
    Alternate(u64),
    /// Fills as huge pages, where the size allows it.
    Huge(u64, u64),
    /// Allocates pages, which read as zeroes.
    Allocate(u64, u64),
    /// Swaps all of it out.
    SwapOut,
}
use Step::*;

/// A file: its size, and what is done before PRESERVE_FD, before PREPARE, and before the kexec.
struct Case(u64, [&'static [Step]; 3]);

/// As many entries as there are in the page of the description, of the encoding of our own.
const HEAD: u64 = 253;
/// As many as there are in a page of the array.
const PER_PAGE: u64 = 256;

const CASES: &[Case] = &[
    // Full, of every odd size.
    Case(0, [&[], &[], &[]]),
    Case(1, [&[Pages(0, 1)], &[], &[]]),
    Case(P - 1, [&[Pages(0, 1)], &[], &[]]),
    Case(P, [&[Pages(0, 1)], &[], &[]]),
    Case(P + 1, [&[Pages(0, 2)], &[], &[]]),
    Case(HUGE - 1, [&[Pages(0, 512)], &[], &[]]),
    Case(HUGE, [&[Pages(0, 512)], &[], &[]]),
    Case(HUGE + 1, [&[Pages(0, 513)], &[], &[]]),
    Case(700 * P + 77, [&[Pages(0, 701)], &[], &[]]),
    // All hole, and filled later or too late for one of the looks at it.
    Case(1, [&[], &[], &[]]),
    Case(1, [&[], &[Pages(0, 1)], &[]]),
    Case(1, [&[], &[], &[Pages(0, 1)]]),
    Case(P + 1, [&[], &[Pages(1, 1)], &[Pages(0, 1)]]),
    Case(HUGE + P, [&[], &[], &[]]),
    Case(HUGE + P, [&[], &[], &[Pages(0, 513)]]),
    // Ends in a hole; begins with one; what is written within a page leaves the rest of it empty.
    Case(600 * P + 5, [&[Pages(0, 1)], &[], &[]]),
    Case(600 * P + 5, [&[Pages(600, 1)], &[], &[]]),
    Case(
        600 * P + 5,
        [&[Bytes(P - 1, 2), Bytes(300 * P + 9, 1)], &[], &[]],
    ),
    Case(
        600 * P,
        [
            &[Pages(100, 50)],
            &[Pages(99, 1), Pages(150, 1)],
            &[Pages(0, 2), Bytes(599 * P, 3)],
        ],
    ),
    // Extents as many as there is room for, and one less, and one more; in the head, and in the array's first page.
    Case(2 * HEAD * P, [&[Alternate(HEAD - 1)], &[], &[]]),
    Case(2 * HEAD * P, [&[Alternate(HEAD)], &[], &[]]),
    Case(2 * HEAD * P + P, [&[Alternate(HEAD + 1)], &[], &[]]),
    Case(1200 * P, [&[Alternate(HEAD + PER_PAGE - 1)], &[], &[]]),
    Case(1200 * P, [&[Alternate(HEAD + PER_PAGE)], &[], &[]]),
    Case(1200 * P, [&[Alternate(HEAD + PER_PAGE + 1)], &[], &[]]),
    // The same, one extent at a time.
    Case(
        1200 * P,
        [&[Alternate(HEAD - 1)], &[Pages(700, 1)], &[Pages(702, 1)]],
    ),
    Case(
        1200 * P,
        [&[Alternate(HEAD)], &[], &[Pages(700, 1), Pages(800, 300)]],
    ),
    Case(
        1200 * P,
        [
            &[Alternate(HEAD + PER_PAGE)],
            &[Backwards(1100, 50)],
            &[Backwards(1000, 50)],
        ],
    ),
    // Between what is there already, each new page is a hole's end and another's beginning.
    Case(
        1000 * P,
        [&[Alternate(300)], &[Shuffled(0, 300)], &[Shuffled(0, 1000)]],
    ),
    // As a table, with a page less and one more, with a hole in between, at the file's uneven end, and with a page that comes
    // when the others were looked at.
    Case(HUGE, [&[Shuffled(0, 511)], &[], &[]]),
    Case(HUGE, [&[Shuffled(0, 512)], &[], &[]]),
    Case(HUGE + P, [&[Shuffled(0, 513)], &[], &[]]),
    Case(HUGE - 77, [&[Shuffled(0, 512)], &[], &[]]),
    Case(
        3 * HUGE,
        [&[Shuffled(0, 512), Shuffled(1024, 512)], &[], &[]],
    ),
    Case(2 * HUGE, [&[Shuffled(0, 512)], &[Shuffled(600, 77)], &[]]),
    Case(
        HUGE,
        [
            &[Shuffled(0, 200), Shuffled(201, 311)],
            &[],
            &[Pages(200, 1)],
        ],
    ),
    // In any order of memory.
    Case(1000 * P + 1, [&[Backwards(0, 1001)], &[], &[]]),
    Case(1000 * P + 1, [&[Shuffled(0, 1001)], &[], &[]]),
    Case(
        1000 * P + 1,
        [
            &[Shuffled(300, 400)],
            &[Shuffled(0, 400)],
            &[Shuffled(0, 1001)],
        ],
    ),
    // Allocated, and not written.
    Case(
        900 * P,
        [&[Allocate(0, 400)], &[Bytes(10 * P, 5)], &[Pages(500, 3)]],
    ),
    // Swapped out: what was there before, and between.
    Case(800 * P, [&[Pages(0, 700), SwapOut], &[], &[]]),
    Case(
        800 * P,
        [
            &[Shuffled(0, 300), SwapOut, Pages(400, 100)],
            &[Pages(600, 9), SwapOut],
            &[],
        ],
    ),
    Case(
        800 * P,
        [&[Pages(0, 300)], &[], &[Pages(500, 300), SwapOut]],
    ),
    // Huge pages: a whole one and a byte less and more, one that ends within the file's last page, mixed with small ones.
    Case(HUGE, [&[Huge(0, 512)], &[], &[]]),
    Case(HUGE - 1, [&[Huge(0, 512)], &[], &[]]),
    Case(HUGE + 1, [&[Huge(0, 513)], &[], &[]]),
    Case(
        3 * HUGE + P + 9,
        [&[Huge(512, 1026)], &[Pages(511, 1)], &[Pages(0, 2)]],
    ),
    Case(
        4 * HUGE,
        [
            &[Pages(3, 5), Huge(512, 512), Alternate(100)],
            &[Huge(1536, 512)],
            &[Huge(1024, 300)],
        ],
    ),
    Case(3 * HUGE, [&[Huge(0, 1536), SwapOut], &[], &[]]),
];

impl Step {
    fn run(self, file: &File, size: u64, seed: u64) -> Result<()> {
        let page = |page: u64| {
            let start = (page * P).min(size);
            data::fill(
                file,
                seed,
                Extent {
                    start,
                    len: (size - start).min(P),
                },
            )
        };
        match self {
            Bytes(start, len) => data::fill(file, seed, Extent { start, len }),
            Pages(first, count) => (first..first + count).try_for_each(page),
            Backwards(first, count) => (first..first + count).rev().try_for_each(page),
            // The step has no divisor in common with any count here: each page comes once.
            Shuffled(first, count) => (0..count).try_for_each(|i| page(first + i * 7919 % count)),
            Alternate(count) => (0..count).try_for_each(|i| page(2 * i)),
            Huge(first, count) => {
                std::fs::write(SHMEM_ENABLED, "always").context(SHMEM_ENABLED)?;
                // Backwards within a huge page would do as well: the first touch makes all of it.
                let filled = (first..first + count).try_for_each(page);
                std::fs::write(SHMEM_ENABLED, "never").context(SHMEM_ENABLED)?;
                filled
            }
            Allocate(first, count) => Ok(memfd::fallocate(file, 0, first * P, count * P)?),
            SwapOut => {
                let before = seen::resident(file)?;
                memfd::swap_out(file)?;
                // Huge pages are only split the first time.
                memfd::swap_out(file)?;
                let left = seen::resident(file)?;
                // What is preserved is pinned, and stays.
                ensure!(left < before, "all {left} pages are still in memory");
                Ok(())
            }
        }
    }
}

impl Case {
    fn file(&self, seed: u64) -> Result<File> {
        let file = memfd::create(self.0)?;
        self.steps(0, &file, seed)?;
        memfd::seek(&file, seed * 1000)?;
        memfd::add_seals(&file, seals(seed))?;
        Ok(file)
    }

    fn steps_of(&self) -> impl Iterator<Item = Step> + '_ {
        self.1.iter().flat_map(|steps| steps.iter().copied())
    }

    /// What was allocated is preserved as zeroes: it is not told apart from what was written any more.
    fn settle(&self, file: &File) -> Result<()> {
        for step in self.steps_of() {
            if let Allocate(first, count) = step {
                let map = Mapping::new(file, self.0 as usize)?;
                for page in first..first + count {
                    map.read(page as usize * PAGE);
                }
            }
        }
        Ok(())
    }

    fn steps(&self, at: usize, file: &File, seed: u64) -> Result<()> {
        self.1[at]
            .iter()
            .try_for_each(|step| step.run(file, self.0, seed))
    }
}

fn seals(seed: u64) -> libc::c_int {
    [
        0,
        libc::F_SEAL_SHRINK,
        libc::F_SEAL_GROW,
        libc::F_SEAL_SHRINK | libc::F_SEAL_SEAL,
    ][seed as usize % 4]
}

/// Two files whose pages were allocated by turns, in runs of growing length: their runs interleave in memory.
fn interleaved() -> Result<[File; 2]> {
    const PAGES: u64 = 1500;
    let files = [memfd::create(PAGES * P)?, memfd::create(PAGES * P)?];
    let mut filled = [0; 2];
    for turn in 0.. {
        let which = turn % 2;
        let count = (turn as u64 / 2 % 13 + 1).min(PAGES - filled[which]);
        for _ in 0..count {
            // One upwards, one downwards.
            let index = if which == 0 {
                filled[0]
            } else {
                PAGES - 1 - filled[1]
            };
            let seed = 1000 + which as u64;
            data::fill(
                &files[which],
                seed,
                Extent {
                    start: index * P,
                    len: P,
                },
            )?;
            filled[which] += 1;
        }
        if filled == [PAGES; 2] {
            return Ok(files);
        }
    }
    bail!("they are never full")
}

fn preserve(ctx: &mut Ctx) -> Result<()> {
    only_ours(ctx, "it has no PREPARE, and fills holes")?;
    std::fs::write(SHMEM_ENABLED, "never").context(SHMEM_ENABLED)?;
    let session = Device::open()?.create_session("sizes")?;
    let before = memfd::folios_made(HUGE >> 10)?;
    let mut files = Vec::new();
    for (seed, case) in (0..).zip(CASES) {
        let make = || -> Result<File> {
            let file = case.file(seed)?;
            session.preserve(&file, seed)?;
            case.steps(1, &file, seed).context("after PRESERVE_FD")?;
            Ok(file)
        };
        files.push(make().with_context(|| format!("case {seed}"))?);
    }
    let made = memfd::folios_made(HUGE >> 10)? - before;
    ensure!(made > 10, "only {made} huge pages were to be had");
    for (token, file) in (1000..).zip(interleaved()?) {
        session.preserve(&file, token)?;
    }
    if let Err((errno, token)) = session.prepare() {
        bail!("PREPARE: {errno:?} for token {token}");
    }
    for (seed, (case, file)) in (0..).zip(CASES.iter().zip(&files)) {
        case.steps(2, file, seed)
            .with_context(|| format!("case {seed} after PREPARE"))?;
    }
    ctx.keep((session, files));
    Ok(())
}

fn check(_: &mut Ctx) -> Result<()> {
    std::fs::write(SHMEM_ENABLED, "never").context(SHMEM_ENABLED)?;
    let session = Device::open()?.retrieve_session("sizes")?;
    let mut arrived = Vec::new();
    for (seed, case) in (0..).zip(CASES) {
        let file = check_case(&session, case, seed).with_context(|| format!("case {seed}"))?;
        arrived.push(file);
    }
    for (token, wanted) in (1000..).zip(interleaved()?) {
        let file = session.retrieve(token)?;
        seen::alike(&file, &wanted).with_context(|| format!("file {token}"))?;
    }
    session.finish()?;
    Ok(())
}

fn check_case(session: &Session, case: &Case, seed: u64) -> Result<File> {
    let file = session.retrieve(seed)?;
    let wanted = case.file(seed)?;
    case.steps(1, &wanted, seed)?;
    case.steps(2, &wanted, seed)?;
    case.settle(&wanted)?;
    ensure!(memfd::position(&file)? == seed * 1000, "its position");
    let actual = memfd::seals(&file)?;
    ensure!(actual == seals(seed), "seals {actual:#x}");
    if case.steps_of().any(|step| matches!(step, Huge(..))) {
        // Whether there was a huge page to be had can differ; the bytes cannot.
        seen::same_bytes(&file, &wanted)?;
        ensure!(file.metadata()?.len() == case.0, "its size");
        return Ok(file);
    }
    seen::alike(&file, &wanted)?;
    Ok(file)
}

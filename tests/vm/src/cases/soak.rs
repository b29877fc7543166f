// SPDX-License-Identifier: GPL-2.0

//! Live update after live update: the data is right each time, and nothing grows, neither in memory nor in what is handed
//! over. `make soak N=` says how many.

use super::common::luo::{Device, Session};
use super::common::modules::{id_of, Kind, Recorder};
use super::common::{data, memfd, refused};
use crate::ctx::Ctx;
use crate::test::{Config, Test};
use anyhow::{ensure, Context, Result};
use nix::errno::Errno;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;

/// The cases.
pub const TESTS: &[Test] = &[Test::repeated("live_updates", Config::new(), &[stage])];

/// So many live updates, unless it is said otherwise.
const UPDATES: u64 = 4;

const NAME: &str = "soak";
const MIB: u64 = 1 << 20;
/// What there is of each memfd: much of one, a little of one that is large, some small ones, and one in large folios.
const MEMFDS: [Shape; 7] = [
    Shape::new(16 * MIB, 0..16 * MIB),
    Shape::new(1024 * MIB, 512 * MIB..513 * MIB),
    Shape::new(10_000, 0..10_000),
    Shape::new(10_000, 0..10_000),
    Shape::new(1, 0..1),
    Shape::new(0, 0..0),
    Shape::new(6 * MIB, 0..6 * MIB).in_folios(2048),
];
/// Token and number of the recorder's file.
const RECORDED: u64 = 50;

/// The kernel that the files are from: the one before tells what there is without any.
const FIRST: usize = 2;

/// A memfd's size, which bytes of it were written, and of how many KiB its folios are, if not of a page.
struct Shape {
    size: u64,
    written: Range<u64>,
    folio_kib: Option<u64>,
}

impl Shape {
    const fn new(size: u64, written: Range<u64>) -> Self {
        Self {
            size,
            written,
            folio_kib: None,
        }
    }

    const fn in_folios(self, kib: u64) -> Self {
        Self {
            folio_kib: Some(kib),
            ..self
        }
    }

    /// Where a kernel leaves its number: on another page in each.
    fn mark_at(&self, kernel: usize) -> Option<u64> {
        let pages = (self.written.end - self.written.start) / 4096;
        let page = (kernel as u64 * 37).checked_rem(pages)?;
        Some(self.written.start + page * 4096)
    }

    fn extent(&self) -> data::Extent {
        data::Extent {
            start: self.written.start,
            len: self.written.end - self.written.start,
        }
    }

    /// The written bytes when the file arrives in a kernel.
    fn contents(&self, token: u64, kernel: usize) -> Vec<u8> {
        let data::Extent { start, len } = self.extent();
        let mut bytes = data::bytes(token, start, len as usize);
        for before in FIRST..kernel {
            if let Some(at) = self.mark_at(before) {
                let at = (at - start) as usize;
                bytes[at..at + 8].copy_from_slice(&(before as u64).to_le_bytes());
            }
        }
        bytes
    }

    fn check(&self, file: &File, token: u64, kernel: usize) -> Result<()> {
        let size = file.metadata()?.len();
        ensure!(size == self.size, "{size} bytes instead of {}", self.size);
        let wanted = self.contents(token, kernel);
        let mut bytes = vec![0; wanted.len()];
        file.read_exact_at(&mut bytes, self.written.start)?;
        let wrong = bytes
            .iter()
            .zip(&wanted)
            .position(|(got, wanted)| got != wanted);
        ensure!(
            wrong.is_none(),
            "byte {wrong:?} of the written ones is wrong"
        );
        let blocks = std::os::unix::fs::MetadataExt::blocks(&file.metadata()?);
        let pages = self.written.end.div_ceil(4096) - self.written.start / 4096;
        ensure!(blocks == pages * 8, "{blocks} blocks for {pages} pages");
        Ok(())
    }
}

/// What must not grow.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
struct Sample {
    /// Pages that KHO had kept for this kernel, before any was taken.
    arrived: u64,
    /// How many keys and pages of it are left when all is finished.
    left: (u64, u64),
    /// MemAvailable and what each CPU has at hand, which is no part of it and comes and goes by megabytes, in KiB.
    available: u64,
    /// Slab, in KiB.
    slab: u64,
    /// What kmalloc() has given out, in KiB.
    kmalloc: u64,
}

impl Sample {
    fn take(ctx: &Ctx, arrived: u64, recorder: &Recorder) -> Result<Self> {
        let at_hand = ctx.free_kib()?.saturating_sub(ctx.meminfo_kib("MemFree")?);
        Ok(Self {
            arrived,
            left: recorder.unrestored()?,
            available: ctx.meminfo_kib("MemAvailable")? + at_hand,
            slab: ctx.meminfo_kib("Slab")?,
            kmalloc: kmalloc_kib()?,
        })
    }
}

/// What of a sample is looked at, and how much more of it the last may have than the first. Where things lie in memory
/// changes a little from kernel to kernel; what leaks does so with each.
struct Figure {
    what: &'static str,
    of: fn(&Sample) -> u64,
    /// Whether it is what there is left, and not what is used.
    falls: bool,
    tolerance: u64,
}

const FIGURES: [Figure; 4] = [
    Figure {
        what: "pages kept by KHO",
        of: |sample| sample.arrived,
        falls: false,
        tolerance: 16,
    },
    Figure {
        what: "KiB available",
        of: |sample| sample.available,
        falls: true,
        tolerance: 2048,
    },
    Figure {
        what: "KiB of slab",
        of: |sample| sample.slab,
        falls: false,
        tolerance: 1024,
    },
    Figure {
        what: "KiB from kmalloc()",
        of: |sample| sample.kmalloc,
        falls: false,
        tolerance: 256,
    },
];

impl Figure {
    /// Shows it, and fails if it grew.
    fn flat(&self, ctx: &Ctx, samples: &[Sample]) -> Result<()> {
        let all = || samples.iter().map(self.of);
        let ends = samples
            .first()
            .map(self.of)
            .zip(samples.last().map(self.of));
        let (first, last) = ends.context("no live update took place")?;
        let (least, most) = (all().min(), all().max());
        ctx.figure(&format!(
            "{}: {first} after the first live update, {last} after the last ({} to {})",
            self.what,
            least.unwrap_or(first),
            most.unwrap_or(first)
        ));
        let grown = match self.falls {
            true => first.saturating_sub(last),
            false => last.saturating_sub(first),
        };
        ensure!(
            grown <= self.tolerance,
            "{}: {first} after the first live update, {last} after {} more",
            self.what,
            samples.len() - 1
        );
        Ok(())
    }
}

/// What kmalloc() has given out, by /proc/slabinfo: "name active_objs num_objs objsize ...".
fn kmalloc_kib() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/slabinfo")?;
    let caches = text.lines().filter(|line| line.starts_with("kmalloc-"));
    let sizes = caches.map(|line| {
        let mut words = line.split_whitespace().skip(1);
        let active: u64 = words.next()?.parse().ok()?;
        let size: u64 = words.nth(1)?.parse().ok()?;
        Some(active * size)
    });
    let sum: Option<u64> = sizes.sum();
    Ok(sum.context("/proc/slabinfo")? / 1024)
}

/// What one kernel tells the next.
#[derive(Default, Deserialize, Serialize)]
struct State {
    /// How many keys and pages KHO keeps for a kernel to which nothing is handed over, when that is known.
    base: Option<(u64, u64)>,
    samples: Vec<Sample>,
}

fn stage(ctx: &mut Ctx) -> Result<()> {
    let recorder = Recorder::new(ctx)?;
    let device = Device::open()?;
    let mut state: State = match ctx.baggage()? {
        None => {
            nothing_stays(&device, &recorder)?;
            return hand_on(ctx, &State::default());
        }
        Some(bytes) => serde_json::from_slice(&bytes)?,
    };
    let arrived = recorder.unrestored()?;
    let kernel = ctx.stage();
    let files = if let Some(base) = state.base {
        let update = state.samples.len() + 1;
        let files =
            arrive(&device, &recorder, kernel).with_context(|| format!("live update {update}"))?;
        let sample = Sample::take(ctx, arrived.1, &recorder)?;
        let left = sample.left;
        ensure!(
            left == base,
            "live update {update}: KHO keeps {left:?}, keys and pages, when all is finished, instead of {base:?}"
        );
        state.samples.push(sample);
        files
    } else {
        state.base = Some(arrived);
        new_files(&recorder)?
    };
    if state.samples.len() as u64 == ctx.amount(UPDATES) {
        ctx.figure(&format!(
            "{} live updates, all data right",
            state.samples.len()
        ));
        return FIGURES
            .iter()
            .try_for_each(|figure| figure.flat(ctx, &state.samples));
    }
    let session = preserve_all(&device, &files)?;
    for (shape, (_, file)) in MEMFDS.iter().zip(&files) {
        if let Some(at) = shape.mark_at(kernel) {
            file.write_all_at(&(kernel as u64).to_le_bytes(), at)?;
        }
    }
    ctx.keep((session, files, recorder));
    hand_on(ctx, &state)
}

fn hand_on(ctx: &mut Ctx, state: &State) -> Result<()> {
    ctx.set_baggage(serde_json::to_vec(state)?);
    ctx.go_on();
    Ok(())
}

/// In the first kernel, where it can be seen: what was preserved is not any more when the session is closed.
fn nothing_stays(device: &Device, recorder: &Recorder) -> Result<()> {
    let files = new_files(recorder)?;
    drop(preserve_all(device, &files)?);
    recorder.nothing_left()
}

fn preserve_all(device: &Device, files: &[(u64, File)]) -> Result<Session> {
    let session = device.create_session(NAME)?;
    for (token, file) in files {
        session.preserve(file, *token)?;
    }
    Ok(session)
}

fn new_files(recorder: &Recorder) -> Result<Vec<(u64, File)>> {
    let mut files = Vec::new();
    for (token, shape) in (0..).zip(&MEMFDS) {
        let file = memfd::create(shape.size)?;
        if let Some(kib) = shape.folio_kib {
            memfd::fill_with_folios(&file, shape.extent(), kib)?;
        }
        data::fill(&file, token, shape.extent())?;
        files.push((token, file));
    }
    files.push((RECORDED, recorder.open(Kind::A, RECORDED)?));
    Ok(files)
}

/// Takes all that the previous kernel handed over, and checks it.
fn arrive(device: &Device, recorder: &Recorder, kernel: usize) -> Result<Vec<(u64, File)>> {
    let number = device.info()?.liveupdate_num;
    ensure!(number == kernel as u64 - 1, "this is live update {number}");
    let session = device.retrieve_session(NAME)?;
    let mut files = Vec::new();
    for (token, shape) in (0..).zip(&MEMFDS) {
        files.push((token, take(&session, token)?));
        shape
            .check(&files[token as usize].1, token, kernel)
            .with_context(|| format!("memfd {token}"))?;
    }
    let recorded = take(&session, RECORDED)?;
    ensure!(id_of(&recorded)? == RECORDED);
    files.push((RECORDED, recorded));
    session.finish()?;
    drop(session);
    refused("finished", recorder.value("incoming"), Errno::ENODATA)?;
    ensure!(device.list_sessions(0, 0)?.1 == 0, "sessions are left");
    Ok(files)
}

fn take(session: &Session, token: u64) -> Result<File> {
    session
        .retrieve(token)
        .with_context(|| format!("token {token}"))
}

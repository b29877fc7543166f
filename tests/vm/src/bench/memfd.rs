// SPDX-License-Identifier: GPL-2.0

//! One memfd: out of one kernel and into the next.

use super::meter::Meter;
use super::pieces::Pieces;
use super::ram::{self, Mapping};
use super::{fragment, memory, Kept};
use anyhow::{bail, ensure, Context, Result};
use liveupdate::Device;
use luo_vm_protocol::bench::{Figure, Layout, Memfd};
use std::fs::File;

const SESSION: &str = "memfd";
const TOKEN: u64 = 1;
const SHMEM_ENABLED: &str = "/sys/kernel/mm/transparent_hugepage/shmem_enabled";

/// The first kernel's part.
pub fn before(meter: &Meter, memfd: &Memfd) -> Result<Kept> {
    if memfd.huge {
        std::fs::write(SHMEM_ENABLED, "always").context(SHMEM_ENABLED)?;
    }
    let hog = match memfd.layout {
        Layout::Fragmented { crumb } => Some(fragment::fragment(crumb)?),
        _ => None,
    };
    let file = ram::create(memfd.size)?;
    let pages = ram::pages(memfd);
    let mapping = Mapping::new(&file)?;
    let mut pieces = Pieces::default();
    if let Some(mapping) = &mapping {
        mapping.populate(&pages);
        pieces = find(mapping, &pages)?;
    }
    meter.figure(Figure::Pages, pages.len() as i64, 1);
    meter.figure(Figure::Pieces, pieces.count, 1);
    meter.figure(Figure::LeastKeys, pieces.keys, 1);
    meter.figure(Figure::HugeBytes, memory::huge_bytes()?, 1);

    let device = Device::open()?;
    let session = device.create_session(SESSION)?;
    let (free, moved) = (memory::free_bytes()?, memory::moved_pages()?);
    meter.time(Figure::Preserve, 1, || Ok(session.preserve(&file, TOKEN)?))?;
    meter.figure(Figure::PreserveMemory, free - memory::free_bytes()?, 1);
    meter.figure(Figure::Moved, memory::moved_pages()? - moved, 1);
    meter.time(Figure::Unpreserve, 1, || {
        drop(session);
        Ok(())
    })?;
    meter.figure(Figure::UnpreserveLeft, free - memory::free_bytes()?, 1);

    let session = device.create_session(SESSION)?;
    session.preserve(&file, TOKEN)?;
    Ok(Box::new((session, file, mapping, hog)))
}

/// In how many pieces the pages lie. What the kernel splits or moves just then is not mapped until it is touched again.
fn find(mapping: &Mapping, pages: &[u32]) -> Result<Pieces> {
    const ATTEMPTS: usize = 20;
    for _ in 0..ATTEMPTS {
        ensure!(mapping.touch(pages) == 0, "a page is not what was written");
        if let Some(pieces) = Pieces::find(mapping.address(), pages)? {
            return Ok(pieces);
        }
    }
    bail!("a page is not mapped, however often it is touched")
}

/// The second kernel's part.
pub fn after(meter: &Meter, memfd: &Memfd) -> Result<()> {
    let session = Device::open()?.retrieve_session(SESSION)?;
    let file = meter.time(Figure::Retrieve, 1, || Ok(session.retrieve(TOKEN)?))?;
    let file = File::from(file);
    let finish = || meter.time(Figure::Finish, 1, || Ok(session.finish()?));
    if !memfd.early {
        finish()?;
    }
    check(meter, memfd, &file)?;
    if memfd.early {
        finish()?;
    }
    Ok(())
}

/// Accesses every page for the first time, and looks whether the file is as it was.
fn check(meter: &Meter, memfd: &Memfd, file: &File) -> Result<()> {
    let size = file.metadata()?.len();
    ensure!(size == memfd.size, "size {size} instead of {}", memfd.size);
    let mut pages = ram::pages(memfd);
    pages.sort_unstable();
    if let Some(mapping) = Mapping::new(file)? {
        let count = pages.len() as u64;
        let wrong = meter.time(Figure::Touch, count, || Ok(mapping.touch(&pages)))?;
        let wrong = wrong + mapping.check(&pages);
        ensure!(wrong == 0, "{wrong} of {count} pages have another content");
    }
    ram::check_zeros(file, &pages)
}

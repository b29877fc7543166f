// SPDX-License-Identifier: GPL-2.0

//! Fills a memory as the previous kernel does.

mod memfd;

use crate::{
    handover::{
        block::{capacity, header_mut, set_entry, Entry},
        extent::COMPATIBLE_EXTENTS,
        luo::{self, Compatible, FileSer, FlbHeaderSer, FlbSer, LuoSer, SessionSer},
        memfd::COMPATIBLE_V2,
        vmalloc::{VmallocSer, CHUNK_CAPACITY},
        PAGE_SIZE,
    },
    memory::Memory,
};
use std::mem::offset_of;
use zerocopy::{Immutable, IntoBytes};

/// A memfd to hand over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Memfd {
    /// The file position.
    pub pos: u64,
    /// The size in bytes.
    pub size: u64,
    /// The seals.
    pub seals: u32,
    /// What is in it, and how that is written.
    pub contents: Contents,
}

/// The contents of a memfd, in one of the encodings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Contents {
    /// "memfd-v2".
    Folios {
        /// Index and order of each folio.
        folios: Vec<(u64, u32)>,
        /// Order of the pages of the array of folios.
        array_order: u16,
    },
    /// "memfd-v2" with folios that have no valid data, at least one.
    MixedFolios {
        /// Index and order of each folio, and whether its data is valid.
        folios: Vec<(u64, u32, bool)>,
        /// Order of the pages of the array of folios.
        array_order: u16,
    },
    /// "memfd-extents-v2" without tables.
    Ranges(Vec<Range>),
    /// "memfd-extents-v2" with tables.
    Tables {
        /// What tables are not needed for.
        ranges: Vec<Range>,
        /// Number of pages of each placed range.
        placed: Vec<u64>,
        /// The tables, at least one.
        tables: Vec<Table>,
    },
}

impl Contents {
    /// Compatible string of the encoding.
    fn compatible(&self) -> Compatible {
        match self {
            Self::Folios { .. } | Self::MixedFolios { .. } => COMPATIBLE_V2,
            Self::Ranges(_) | Self::Tables { .. } => COMPATIBLE_EXTENTS,
        }
    }
}

/// Pages that follow one another in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    /// 0 for pages of their own, else the range is one folio of this order.
    pub order: u32,
    /// Index and number of pages of each extent.
    pub extents: Vec<(u64, u64)>,
}

/// Pages that follow one another in the file only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Where in the file the first of them is, in pages.
    pub index: u64,
    /// How each of the 512 is preserved.
    pub slots: Vec<Slot>,
}

/// How a page of a table is preserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// By itself.
    Single,
    /// In the placed range number so many, and there as the page number so many.
    Placed(usize, u64),
}

/// A file to hand over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// The user's name for it.
    pub token: u64,
    /// What it is: a memfd, or a file of a type that nobody here knows, with its data.
    pub kind: Result<Memfd, u64>,
}

/// A session to hand over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Its name, 1 to 63 bytes.
    pub name: Vec<u8>,
    /// Its files.
    pub files: Vec<File>,
}

/// Which part of a handover a preserved address is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The root.
    Root,
    /// Block number so many of the list of sessions.
    SessionBlock(usize),
    /// Anything of the session number so many.
    Session(usize),
}

/// The root of what was written, and what for each address is.
pub struct Written {
    /// Physical address of the root.
    pub root_pa: u64,
    /// Every preserved address and its use, in the order of the addresses.
    pub parts: Vec<(u64, Part)>,
}

/// Compatible string of files that nobody here knows.
const UNKNOWN: Compatible = Compatible::from_str("test-unknown");

/// Writes all of `sessions`.
pub fn handover(memory: &mut Memory, liveupdate_num: u64, sessions: &[Session]) -> Written {
    let mut parts = Vec::new();
    let mut entries = Vec::new();
    for (number, session) in sessions.iter().enumerate() {
        let before = memory.preserved();
        let files: Vec<_> = session
            .files
            .iter()
            .map(|file| file_entry(memory, file))
            .collect();
        let mut name = [0; 64];
        name[..session.name.len()].copy_from_slice(&session.name);
        entries.push(SessionSer {
            name,
            files_pa: chain(memory, &files),
            nr_files: files.len() as u64,
        });
        parts.extend(new(memory, &before, |_| Part::Session(number)));
    }
    let before = memory.preserved();
    let sessions_pa = chain(memory, &entries);
    parts.extend(new(memory, &before, Part::SessionBlock));

    let root_pa = memory.allocate(0);
    let root = LuoSer {
        compatible: luo::COMPATIBLE,
        liveupdate_num,
        sessions_pa,
        flbs_pa: 0,
    };
    memory.put(root_pa, 0, root.as_bytes());
    parts.push((root_pa, Part::Root));
    Written { root_pa, parts }
}

/// What has been preserved since `before`.
fn new<'a>(
    memory: &Memory,
    before: &'a [u64],
    part: impl Fn(usize) -> Part + 'a,
) -> impl Iterator<Item = (u64, Part)> + 'a {
    memory
        .preserved()
        .into_iter()
        .filter(|pa| before.binary_search(pa).is_err())
        .enumerate()
        .map(move |(i, pa)| (pa, part(i)))
}

/// Writes what `file` needs and returns its entry.
fn file_entry(memory: &mut Memory, file: &File) -> FileSer {
    let (compatible, data) = match &file.kind {
        Ok(it) => (it.contents.compatible(), memfd::write(memory, it)),
        Err(data) => (UNKNOWN, *data),
    };
    FileSer {
        compatible,
        data,
        token: file.token,
    }
}

/// Adds a table of FLBs to the handover at `root_pa`: the compatible string, the data and the number of files of each.
/// Returns its address.
pub fn flbs(memory: &mut Memory, root_pa: u64, flbs: &[(&str, u64, u64)]) -> u64 {
    let pa = memory.allocate(0);
    let header = FlbHeaderSer {
        nr_pages: 1,
        count: flbs.len() as u64,
    };
    memory.put(pa, 0, header.as_bytes());
    for (i, &(compatible, data, count)) in flbs.iter().enumerate() {
        let flb = FlbSer {
            compatible: Compatible::from_str(compatible),
            data,
            count,
        };
        let start = size_of::<FlbHeaderSer>() + i * size_of::<FlbSer>();
        memory.put(pa, start, flb.as_bytes());
    }
    memory.put(root_pa, offset_of!(LuoSer, flbs_pa), &pa.to_ne_bytes());
    pa
}

/// Writes a chain of `entries` and returns its address, 0 if there are none.
pub(crate) fn chain<T: Entry>(memory: &mut Memory, entries: &[T]) -> u64 {
    let mut head = 0;
    let mut last = None;
    for entries in entries.chunks(capacity::<T>()) {
        let pa = memory.allocate(0);
        match last.replace(pa) {
            None => head = pa,
            Some(last) => link(memory, last, pa),
        }
        let page = memory.page_mut(pa);
        header_mut(page).expect("a header").count = entries.len() as u64;
        for (slot, entry) in entries.iter().enumerate() {
            set_entry(page, slot, entry).expect("a slot");
        }
    }
    head
}

/// Makes `next` the page that follows `pa`, in a chain or a list of chunks.
pub(crate) fn link(memory: &mut Memory, pa: u64, next: u64) {
    memory.put(pa, 0, &next.to_ne_bytes());
}

/// Writes an array of entries over pages of order `order`.
pub(crate) fn array<T: IntoBytes + Immutable>(
    memory: &mut Memory,
    entries: &[T],
    order: u16,
) -> VmallocSer {
    let per_page = PAGE_SIZE / size_of::<T>();
    let mut pages = Vec::new();
    for entries in entries.chunks(per_page << order) {
        let first = memory.allocate(order.into());
        pages.push(first);
        for (i, entries) in entries.chunks(per_page).enumerate() {
            memory.put(first + (i * PAGE_SIZE) as u64, 0, entries.as_bytes());
        }
    }
    VmallocSer {
        order,
        ..VmallocSer::new(chunks(memory, &pages), (pages.len() << order) as u32)
    }
}

/// Writes the chunks that list `pages`, as the kernel does: a chunk that is just full is followed by an empty one.
pub(crate) fn chunks(memory: &mut Memory, pages: &[u64]) -> u64 {
    let first = memory.allocate(0);
    let mut chunk = first;
    for (i, page) in pages.iter().enumerate() {
        let slot = i % CHUNK_CAPACITY;
        memory.put(chunk, 8 + 8 * slot, &page.to_ne_bytes());
        if slot + 1 == CHUNK_CAPACITY {
            let next = memory.allocate(0);
            link(memory, chunk, next);
            chunk = next;
        }
    }
    first
}

// SPDX-License-Identifier: GPL-2.0

//! Fills a memory as the previous kernel does.

use crate::{
    handover::{
        block::{capacity, header_mut, set_entry, Entry},
        luo::{self, Compatible, FileSer, LuoSer, SessionSer},
        memfd::{FolioSer, MemfdSer, COMPATIBLE_V2},
        vmalloc::{VmallocSer, CHUNK_CAPACITY},
        PAGE_SIZE,
    },
    memory::Memory,
};
use zerocopy::{FromBytes, IntoBytes};

/// A memfd to hand over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Memfd {
    /// The file position.
    pub pos: u64,
    /// The size in bytes.
    pub size: u64,
    /// The seals.
    pub seals: u32,
    /// Index and order of each folio.
    pub folios: Vec<(u64, u32)>,
    /// Order of the pages of the array of folios.
    pub array_order: u16,
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
        .filter(|pa| !before.contains(pa))
        .enumerate()
        .map(move |(i, pa)| (pa, part(i)))
}

/// Writes what `file` needs and returns its entry.
fn file_entry(memory: &mut Memory, file: &File) -> FileSer {
    let (compatible, data) = match &file.kind {
        Ok(it) => (COMPATIBLE_V2, memfd(memory, it)),
        Err(data) => (UNKNOWN, *data),
    };
    FileSer {
        compatible,
        data,
        token: file.token,
    }
}

/// Writes a memfd and returns its address.
fn memfd(memory: &mut Memory, memfd: &Memfd) -> u64 {
    let folios: Vec<_> = memfd
        .folios
        .iter()
        .map(|&(index, order)| {
            let pa = memory.allocate(order);
            FolioSer::new(pa / PAGE_SIZE as u64, index)
        })
        .collect();
    let ser = MemfdSer {
        pos: memfd.pos,
        size: memfd.size,
        seals: memfd.seals,
        flags: 0,
        nr_entries: folios.len() as u64,
        entries: if folios.is_empty() {
            VmallocSer::new(0, 0)
        } else {
            array(memory, &folios, memfd.array_order)
        },
    };
    let pa = memory.allocate(0);
    memory.put(pa, 0, ser.as_bytes());
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
pub(crate) fn array(memory: &mut Memory, entries: &[FolioSer], order: u16) -> VmallocSer {
    let per_page = FolioSer::PER_PAGE;
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

/// The entries of the page at `pa` of an array.
pub(crate) fn folios_of(memory: &Memory, pa: u64) -> Vec<FolioSer> {
    memory
        .bytes(pa)
        .chunks_exact(size_of::<FolioSer>())
        .map(|bytes| FolioSer::read_from_bytes(bytes).expect("the size of an entry"))
        .collect()
}

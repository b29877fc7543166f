// SPDX-License-Identifier: GPL-2.0

//! Reads a whole handover as the module does, and checks what `handover` promises about each value.
//!
//! The module stops at nothing that it finds: what is malformed is refused by itself and the rest is used. Here
//! likewise; a panic means that a promise was broken, never that the input was bad.

use crate::{
    handover::{
        block::{self, Place, MAX_BLOCKS},
        luo::{FileSer, LuoSer, SessionName, SessionSer},
        memfd::{Folio, FolioCheck, FolioSer, MemfdSer, COMPATIBLE_V2, KNOWN_SEALS},
        vmalloc::{Piece, CHUNK_CAPACITY},
        Malformed, Page, Source, PAGE_SIZE,
    },
    memory::{scratch, Memory},
    write::{folios_of, File, Memfd, Session},
};
use std::{cell::RefCell, collections::BTreeSet};
use zerocopy::FromBytes;

/// All that could be used, and how much was refused.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// How many live updates there have been.
    pub liveupdate_num: u64,
    /// The sessions that can be used, in order. Of their files, those which can be retrieved.
    pub sessions: Vec<Session>,
    /// What was refused and why, for people.
    pub refused: Vec<String>,
}

/// The memory as the module sees it: what was taken over is no longer preserved.
struct Incoming<'a> {
    memory: &'a Memory,
    claimed: RefCell<BTreeSet<u64>>,
}

impl Source for Incoming<'_> {
    fn read(&self, pa: u64, into: &mut Page) -> bool {
        let preserved = self.memory.read(pa, into);
        preserved && !self.claimed.borrow().contains(&pa)
    }
}

impl Incoming<'_> {
    /// The order of what is still preserved at `pa`.
    fn order(&self, pa: u64) -> Option<u32> {
        let claimed = self.claimed.borrow().contains(&pa);
        self.memory.order(pa).filter(|_| !claimed)
    }

    /// Takes over what is preserved at `pa`, if that is of order `order`.
    fn claim(&self, pa: u64, order: u32) -> Result<(), Malformed> {
        if self.order(pa) != Some(order) {
            return Err(Malformed::NotPreserved(pa));
        }
        self.claimed.borrow_mut().insert(pa);
        Ok(())
    }
}

/// Reads all that is to be found from `root_pa`.
///
/// # Panics
///
/// If `handover` breaks a promise.
pub fn read(memory: &Memory, root_pa: u64) -> Report {
    let incoming = Incoming {
        memory,
        claimed: RefCell::default(),
    };
    let mut report = Report::default();
    let root = match root(&incoming, root_pa) {
        Ok(root) => root,
        Err(why) => {
            report.refused.push(format!("root: {why:?}"));
            return report;
        }
    };
    report.liveupdate_num = root.liveupdate_num;

    let mut found = Vec::new();
    let walked = walk(&incoming, root.sessions_pa, |_, session: &SessionSer| {
        found.push(session.clone())
    });
    if let Err(why) = walked {
        report.refused.push(format!("sessions: {why:?}"));
    }
    for session in found {
        match read_session(&incoming, &session, &mut report.refused) {
            Ok(Some(session)) => report.sessions.push(session),
            Ok(None) => {}
            Err(why) => report.refused.push(format!("session: {why:?}")),
        }
    }
    report
}

/// Reads the root.
fn root(incoming: &Incoming<'_>, pa: u64) -> Result<LuoSer, Malformed> {
    let mut page = scratch();
    if !incoming.read(pa, &mut page) {
        return Err(Malformed::NotPreserved(pa));
    }
    let (root, _) = LuoSer::read_from_prefix(&page.0).expect("a page is larger");
    root.validate()?;
    Ok(root)
}

/// Walks a chain, with an eye on what that takes and on the places.
fn walk<T: block::Entry>(
    incoming: &Incoming<'_>,
    head: u64,
    mut visit: impl FnMut(Place, &T),
) -> Result<(), Malformed> {
    incoming.memory.take_reads();
    let mut last: Option<Place> = None;
    let walked = block::walk(incoming, head, &mut scratch(), |place, entry: &T| {
        let first = last.is_none_or(|last| last.block_pa != place.block_pa);
        let expected = last.filter(|_| !first).map_or(0, |last| last.slot + 1);
        assert_eq!(place.slot, expected, "slots are visited in order");
        assert!(place.offset::<T>() + size_of::<T>() <= PAGE_SIZE);
        assert!(incoming.order(place.block_pa).is_some());
        last = Some(place);
        visit(place, entry);
        Ok(())
    });
    let reads = incoming.memory.take_reads();
    assert!(reads <= 2 * MAX_BLOCKS as u64 + 1, "{reads} reads");
    walked
}

/// Reads a session; `None` if it is gone.
fn read_session(
    incoming: &Incoming<'_>,
    session: &SessionSer,
    refused: &mut Vec<String>,
) -> Result<Option<Session>, Malformed> {
    let Some(name) = session.validate()? else {
        return Ok(None);
    };
    check_name(&name);
    let mut found = Vec::new();
    walk(incoming, session.files_pa, |_, file: &FileSer| {
        found.push(file.clone())
    })?;
    if found.len() as u64 != session.nr_files {
        return Err(Malformed::Count(session.nr_files));
    }
    let mut files = Vec::new();
    for file in found {
        let kind = if file.compatible == COMPATIBLE_V2 {
            match read_memfd(incoming, file.data) {
                Ok(memfd) => Ok(memfd),
                Err(why) => {
                    refused.push(format!("{name:?} {:#x}: {why:?}", file.token));
                    continue;
                }
            }
        } else {
            // The module asks again when it is retrieved: the handler may be loaded by then.
            Err(file.data)
        };
        files.push(File {
            token: file.token,
            kind,
        });
    }
    Ok(Some(Session {
        name: name.as_bytes().to_vec(),
        files,
    }))
}

/// Checks the invariants of a name.
pub(crate) fn check_name(name: &SessionName) {
    let (text, array) = (name.as_bytes(), name.as_array());
    assert!((1..=63).contains(&text.len()));
    assert!(!text.contains(&0));
    assert_eq!(&array[..text.len()], text);
    assert!(array[text.len()..].iter().all(|&byte| byte == 0));
    assert_eq!(SessionName::new(array), Some(*name));
    assert!(format!("{name:?}")
        .bytes()
        .all(|byte| (b' '..=b'~').contains(&byte)));
}

/// Takes over a memfd.
fn read_memfd(incoming: &Incoming<'_>, pa: u64) -> Result<Memfd, Malformed> {
    let mut page = scratch();
    if !incoming.read(pa, &mut page) {
        return Err(Malformed::NotPreserved(pa));
    }
    let (memfd, _) = MemfdSer::read_from_prefix(&page.0).expect("a page is larger");
    memfd.validate(0)?;
    if memfd.seals & !KNOWN_SEALS != 0 {
        return Err(Malformed::Field("memfd seals"));
    }
    assert!(memfd.pos <= i64::MAX as u64 && memfd.size <= i64::MAX as u64);
    assert_eq!(memfd.flags, 0);
    incoming.claim(pa, 0)?;

    let pages = if memfd.nr_entries == 0 {
        Vec::new()
    } else {
        claim_array(incoming, &memfd)?
    };
    let folios = check_folios(incoming, &memfd, &pages)?;
    for folio in &folios {
        incoming.claim(folio.pfn * PAGE_SIZE as u64, folio.order)?;
    }
    Ok(Memfd {
        pos: memfd.pos,
        size: memfd.size,
        seals: memfd.seals,
        folios: folios.iter().map(|it| (it.index, it.order)).collect(),
        array_order: if memfd.nr_entries == 0 {
            0
        } else {
            memfd.entries.order
        },
    })
}

/// Takes over the pages of the array of folios, and returns the addresses of all that have entries.
fn claim_array(incoming: &Incoming<'_>, memfd: &MemfdSer) -> Result<Vec<u64>, Malformed> {
    let array = memfd.entries;
    let mut pages = Vec::new();
    incoming.memory.take_reads();
    let walked = array.walk(incoming, &mut scratch(), |piece| match piece {
        Piece::Chunk(pa) => incoming.claim(pa, 0),
        Piece::Pages(pa) => {
            incoming.claim(pa, array.order.into())?;
            pages.extend((0..1 << array.order).map(|i| pa + i * PAGE_SIZE as u64));
            Ok::<_, Malformed>(())
        }
    });
    let reads = incoming.memory.take_reads();
    let most = (u64::from(array.nr_pages) >> array.order.min(10)) / CHUNK_CAPACITY as u64 + 2;
    assert!(reads <= most, "{reads} reads");
    assert!(pages.len() <= array.nr_pages as usize);
    walked?;
    assert_eq!(pages.len(), array.nr_pages as usize);
    assert!(memfd.nr_entries <= (pages.len() * FolioSer::PER_PAGE) as u64);
    Ok(pages)
}

/// Checks all entries of the array before any folio is touched, and the invariants of what comes out.
fn check_folios(
    incoming: &Incoming<'_>,
    memfd: &MemfdSer,
    pages: &[u64],
) -> Result<Vec<Folio>, Malformed> {
    let check = FolioCheck::new(memfd);
    let mut folios: Vec<Folio> = Vec::new();
    let mut left = memfd.nr_entries;
    for &page in pages {
        for entry in folios_of(incoming.memory, page) {
            if left == 0 {
                return Ok(folios);
            }
            left -= 1;
            if entry.pfn() == 0 {
                continue;
            }
            let pa = entry.pfn() * PAGE_SIZE as u64;
            let order = incoming.order(pa).ok_or(Malformed::NotPreserved(pa))?;
            let folio = check.check(&entry, order)?;
            check_folio(memfd, &entry, order, &folio);
            folios.push(folio);
        }
    }
    Ok(folios)
}

/// Checks the invariants of a folio.
pub(crate) fn check_folio(memfd: &MemfdSer, entry: &FolioSer, order: u32, folio: &Folio) {
    let size = 1u128 << folio.order;
    assert_eq!((folio.pfn, folio.index), (entry.pfn(), entry.index()));
    assert_eq!(folio.order, order);
    assert_eq!(u128::from(folio.index) % size, 0);
    assert!(u128::from(folio.index) * (PAGE_SIZE as u128) < u128::from(memfd.size));
}

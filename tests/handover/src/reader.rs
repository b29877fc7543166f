// SPDX-License-Identifier: GPL-2.0

//! Reads a whole handover as the module does, and checks what `handover` promises about each value.
//!
//! The module stops at nothing that it finds: what is malformed is refused by itself and the rest is used. Here
//! likewise; a panic means that a promise was broken, never that the input was bad.

mod memfd;
mod range;
mod table;

#[cfg(test)]
pub(crate) use memfd::check_folio;
pub use memfd::Frames;

use crate::{
    handover::{
        block::{self, Place, MAX_BLOCKS},
        extent::COMPATIBLE_EXTENTS,
        luo::{FileSer, FlbHeaderSer, LuoSer, SessionName, SessionSer, MAX_FLBS},
        memfd::COMPATIBLE_V2,
        Malformed, Page, Source, PAGE_SIZE,
    },
    memory::{scratch, Memory},
    write::{File, Session},
};
use memfd::Format;
use rustc_hash::FxHashSet;
use std::cell::{Cell, RefCell};
use zerocopy::FromBytes;

/// All that could be used, and how much was refused.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// How many live updates there have been.
    pub liveupdate_num: u64,
    /// Data and number of files of each FLB.
    pub flbs: Vec<(u64, u64)>,
    /// The sessions that can be used, in order. Of their files, those which can be retrieved.
    pub sessions: Vec<Session>,
    /// Where the data of the memfds among them is: the session's number in that list, and the token.
    pub data: Vec<(usize, u64, Frames)>,
    /// What was refused and why, for people.
    pub refused: Vec<String>,
}

/// The memory as the module sees it: what was taken over is no longer preserved.
struct Incoming<'a> {
    memory: &'a Memory,
    claimed: RefCell<FxHashSet<u64>>,
    /// How often KHO was asked.
    asked: Cell<u64>,
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
        self.asked.set(self.asked.get() + 1);
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
        asked: Cell::default(),
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
    if root.flbs_pa != 0 {
        match read_flbs(&incoming, root.flbs_pa) {
            Ok(flbs) => report.flbs = flbs,
            Err(why) => report.refused.push(format!("FLBs: {why:?}")),
        }
    }

    let mut found = Vec::new();
    let walked = walk(&incoming, root.sessions_pa, |_, session: &SessionSer| {
        found.push(session.clone())
    });
    if let Err(why) = walked {
        report.refused.push(format!("sessions: {why:?}"));
    }
    for session in found {
        if let Err(why) = read_session(&incoming, &session, &mut report) {
            report.refused.push(format!("session: {why:?}"));
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

/// Reads the table of FLBs. The module frees its page where no file depends on any of them.
fn read_flbs(incoming: &Incoming<'_>, pa: u64) -> Result<Vec<(u64, u64)>, Malformed> {
    let mut page = scratch();
    if !incoming.read(pa, &mut page) {
        return Err(Malformed::NotPreserved(pa));
    }
    let entries = FlbHeaderSer::entries(&page)?;
    assert!(entries.len() <= MAX_FLBS);
    if entries.iter().all(|entry| entry.count == 0) {
        // Of a larger order it stays.
        let _ = incoming.claim(pa, 0);
    }
    Ok(entries
        .iter()
        .map(|entry| (entry.data, entry.count))
        .collect())
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

/// Reads a session, unless it is gone.
fn read_session(
    incoming: &Incoming<'_>,
    session: &SessionSer,
    report: &mut Report,
) -> Result<(), Malformed> {
    let Some(name) = session.validate()? else {
        return Ok(());
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
        let format = [
            (COMPATIBLE_V2, Format::V2),
            (COMPATIBLE_EXTENTS, Format::Extents),
        ]
        .into_iter()
        .find(|(compatible, _)| *compatible == file.compatible.normalized());
        let kind = match format {
            Some((_, format)) => match memfd::read(incoming, format, file.data) {
                Ok((memfd, frames)) => {
                    let place = |frames| (report.sessions.len(), file.token, frames);
                    report.data.extend(frames.into_iter().map(place));
                    Ok(memfd)
                }
                Err(why) => {
                    let why = format!("{name:?} {:#x}: {why:?}", file.token);
                    report.refused.push(why);
                    continue;
                }
            },
            // The module asks again when it is retrieved: the handler may be loaded by then.
            None => Err(file.data),
        };
        files.push(File {
            token: file.token,
            kind,
        });
    }
    report.sessions.push(Session {
        name: name.as_bytes().to_vec(),
        files,
    });
    Ok(())
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

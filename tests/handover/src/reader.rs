// SPDX-License-Identifier: GPL-2.0

//! Reads a whole handover as the module does, and checks what `handover` promises about each value.
//!
//! The module stops at nothing that it finds: what is malformed is refused by itself and the rest is used. Here
//! likewise; a panic means that a promise was broken, never that the input was bad.

mod account;
mod blocks;
mod memfd;
mod owners;
mod range;
mod table;

#[cfg(test)]
pub(crate) use memfd::check_folio;
pub use memfd::Frames;
#[cfg(test)]
pub(crate) use table::check_singles;

use crate::{
    handover::{
        extent::{COMPATIBLE_EXTENTS, COMPATIBLE_EXTENTS_V1},
        luo::SessionName,
        memfd::COMPATIBLE_V2,
        Malformed, Page, Source,
    },
    memory::Memory,
    write::{File, Session},
};
use account::{Account, FoundSession};
use memfd::Format;
use rustc_hash::FxHashSet;
use std::cell::{Cell, RefCell};

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
    /// The pages that describe these memfds: session and token as for the data, and the address.
    pub descriptions: Vec<(usize, u64, u64)>,
    /// The pages of the account, which is needed until all is finished.
    pub account: Vec<u64>,
    /// What was refused and why, for people.
    pub refused: Vec<String>,
}

/// The memory as the module sees it.
struct Incoming<'a> {
    memory: &'a Memory,
    /// What was taken over or set aside, and so is no longer preserved.
    taken: RefCell<FxHashSet<u64>>,
    /// How often KHO was asked.
    asked: Cell<u64>,
}

impl Source for Incoming<'_> {
    fn read(&self, pa: u64, into: &mut Page) -> bool {
        let preserved = self.memory.read(pa, into);
        preserved && !self.taken.borrow().contains(&pa)
    }
}

impl Incoming<'_> {
    /// The order of what is still preserved at `pa`.
    fn order(&self, pa: u64) -> Option<u32> {
        self.asked.set(self.asked.get() + 1);
        let taken = self.taken.borrow().contains(&pa);
        self.memory.order(pa).filter(|_| !taken)
    }

    /// Takes over what is preserved at `pa`, if that is of order `order`.
    fn claim(&self, pa: u64, order: u32) -> Result<(), Malformed> {
        if self.order(pa) != Some(order) {
            return Err(Malformed::NotPreserved(pa));
        }
        self.taken.borrow_mut().insert(pa);
        Ok(())
    }

    /// Keeps what is preserved at these addresses for the account.
    fn set_aside(&self, pages: &[u64]) {
        self.taken.borrow_mut().extend(pages);
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
        taken: RefCell::default(),
        asked: Cell::default(),
    };
    let mut report = Report::default();
    let account = match Account::read(&incoming, root_pa, &mut report.refused) {
        Ok(account) => account,
        Err(why) => {
            report.refused.push(format!("root: {why:?}"));
            return report;
        }
    };
    incoming.set_aside(&account.pages);
    report.liveupdate_num = account.liveupdate_num;
    report.flbs = account.flbs;
    report.account = account.pages;
    for session in account.sessions {
        retrieve(&incoming, session, &mut report);
    }
    owners::check(memory, &report);
    report
}

/// Takes over the files of a session.
fn retrieve(incoming: &Incoming<'_>, session: FoundSession, report: &mut Report) {
    let FoundSession { name, files: found } = session;
    let mut files = Vec::new();
    for file in found {
        let format = [
            (COMPATIBLE_V2, Format::V2),
            (COMPATIBLE_EXTENTS, Format::Extents),
            (COMPATIBLE_EXTENTS_V1, Format::Extents),
        ]
        .into_iter()
        .find(|(compatible, _)| *compatible == file.compatible.normalized());
        let kind = match format {
            Some((_, format)) => match memfd::read(incoming, format, file.data) {
                Ok(retrieved) => {
                    let (session, token) = (report.sessions.len(), file.token);
                    let data = retrieved.data.into_iter();
                    report.data.extend(data.map(|it| (session, token, it)));
                    let pages = retrieved.description.into_iter();
                    report
                        .descriptions
                        .extend(pages.map(|it| (session, token, it)));
                    Ok(retrieved.memfd)
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
    let word = name.word();
    let end = word.iter().position(|&byte| byte == 0);
    assert!(end.is_some_and(|end| word[..end].iter().all(u8::is_ascii_graphic)));
}

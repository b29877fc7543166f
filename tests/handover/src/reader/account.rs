// SPDX-License-Identifier: GPL-2.0

//! Reads the account of what was handed over, in the steps of the module's `incoming.rs`; what it has twice is refused
//! as by `session/registry.rs`.

use super::{
    blocks::{Blocks, Chain, Map},
    check_name, Incoming,
};
use crate::{
    handover::{
        block::{self, Place, MAX_BLOCKS},
        luo::{FileSer, FlbHeaderSer, LuoSer, SessionName, SessionSer, MAX_FLBS},
        Malformed, Source, PAGE_SIZE,
    },
    memory::scratch,
};
use rustc_hash::FxHashSet;
use zerocopy::FromBytes;

/// The account, as far as it is good.
pub(super) struct Account {
    pub(super) liveupdate_num: u64,
    /// Data and number of files of each FLB.
    pub(super) flbs: Vec<(u64, u64)>,
    pub(super) sessions: Vec<FoundSession>,
    /// The pages that all this was read from.
    pub(super) pages: Vec<u64>,
}

/// A session as it was found.
pub(super) struct FoundSession {
    pub(super) name: SessionName,
    pub(super) files: Vec<FileSer>,
}

impl Account {
    /// Reads the account with its root at `root_pa`. Fails if that is not a root; what else is refused is noted.
    pub(super) fn read(
        incoming: &Incoming<'_>,
        root_pa: u64,
        refused: &mut Vec<String>,
    ) -> Result<Self, Malformed> {
        let root = root(incoming, root_pa)?;
        let mut account = Self {
            liveupdate_num: root.liveupdate_num,
            flbs: Vec::new(),
            sessions: Vec::new(),
            pages: vec![root_pa],
        };
        if root.flbs_pa != 0 {
            if let Err(why) = account.read_flbs(incoming, root.flbs_pa) {
                refused.push(format!("FLBs: {why:?}"));
            }
        }
        let blocks = Blocks::new(incoming, Map::default());
        let rest = blocks.begin();
        assert!(account.pages.iter().all(|&pa| rest.take(pa)));
        let mut found = Vec::new();
        let chain = blocks.begin();
        let walked = walk(
            incoming,
            &chain,
            root.sessions_pa,
            |place, session: &SessionSer| {
                note_block(&mut account.pages, place);
                found.push(session.clone());
            },
        );
        if let Err(why) = walked {
            refused.push(format!("sessions: {why:?}"));
        }
        for session in found {
            if let Err(why) = account.read_session(incoming, &blocks, &session) {
                refused.push(format!("session: {why:?}"));
            }
        }
        account.refuse_twins(refused);
        Ok(account)
    }

    /// Reads the table of FLBs. The module frees its page where no file depends on any of them.
    fn read_flbs(&mut self, incoming: &Incoming<'_>, pa: u64) -> Result<(), Malformed> {
        let mut page = scratch();
        if !incoming.read(pa, &mut page) {
            return Err(Malformed::NotPreserved(pa));
        }
        let entries = FlbHeaderSer::entries(&page)?;
        assert!(entries.len() <= MAX_FLBS);
        if entries.iter().all(|entry| entry.count == 0) {
            // Of a larger order it stays.
            let _ = incoming.claim(pa, 0);
        } else {
            self.pages.push(pa);
        }
        self.flbs = entries
            .iter()
            .map(|entry| (entry.data, entry.count))
            .collect();
        Ok(())
    }

    /// Reads a session with the list of its files, unless it is gone.
    fn read_session(
        &mut self,
        incoming: &Incoming<'_>,
        blocks: &Blocks<'_>,
        session: &SessionSer,
    ) -> Result<(), Malformed> {
        let Some(name) = session.validate()? else {
            return Ok(());
        };
        check_name(&name);
        let (mut files, mut pages) = (Vec::new(), Vec::new());
        let chain = blocks.begin();
        walk(
            incoming,
            &chain,
            session.files_pa,
            |place, file: &FileSer| {
                note_block(&mut pages, place);
                files.push(file.clone());
            },
        )?;
        if files.len() as u64 != session.nr_files {
            return Err(Malformed::Count(session.nr_files));
        }
        self.pages.append(&mut pages);
        self.sessions.push(FoundSession { name, files });
        Ok(())
    }

    /// Leaves of the sessions of one name, and of the files of one token, the first only. The pages of the others stay
    /// those of the account.
    fn refuse_twins(&mut self, refused: &mut Vec<String>) {
        let mut names = FxHashSet::default();
        self.sessions.retain_mut(|session| {
            let mut tokens = FxHashSet::default();
            session.files.retain(|file| {
                let is_first = tokens.insert(file.token);
                if !is_first {
                    refused.push(format!("{:?} {:#x}: twice", session.name, file.token));
                }
                is_first
            });
            let is_first = names.insert(*session.name.as_array());
            if !is_first {
                refused.push(format!("{:?}: twice", session.name));
            }
            is_first
        });
    }
}

/// Notes the page of an entry, once.
fn note_block(blocks: &mut Vec<u64>, place: Place) {
    if place.slot == 0 {
        blocks.push(place.block_pa);
    }
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
    chain: &Chain<'_>,
    head: u64,
    mut visit: impl FnMut(Place, &T),
) -> Result<(), Malformed> {
    incoming.memory.take_reads();
    let mut last: Option<Place> = None;
    let walked = block::walk(chain, head, &mut scratch(), |place, entry: &T| {
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
    walked.map_err(|why| chain.explain(why))
}

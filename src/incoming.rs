// SPDX-License-Identifier: GPL-2.0

//! What the previous kernel left, found once at load.
//!
//! The previous kernel's account, the "luo-v5" structures, stays where it is until a session is
//! finished: so this module can be unloaded and a newer one take over what nobody has retrieved.

mod blocks;

use crate::{
    flb::IncomingTable,
    handover::{
        block::{self, Place},
        luo::{FileSer, LuoSer, SessionName, SessionSer, KHO_ENTRY},
        Malformed, Page, Source,
    },
    kho::{self, IncomingAccount, Stop},
    log::err_limited,
};
use blocks::{explain, Blocks};
use core::mem::{offset_of, size_of};
use kernel::prelude::*;

/// Where the previous kernel's account of a session is.
pub(crate) struct Record {
    /// The session's entry.
    pub(crate) place: Place,
    /// The pages that list its files.
    pub(crate) file_blocks: KVVec<u64>,
}

/// A session as it was found.
pub(crate) struct FoundSession {
    pub(crate) name: SessionName,
    pub(crate) record: Record,
    pub(crate) files: KVVec<FileSer>,
}

/// Where the previous kernel's list of sessions is.
pub(crate) struct Account {
    root_pa: u64,
    blocks: KVVec<u64>,
    /// Whether all of it was understood.
    whole: bool,
}

/// All that was found.
pub(crate) struct Found {
    /// FLBs, if there are any.
    pub(crate) flbs: Option<IncomingTable>,
    /// How many live updates there have been; 0 after a cold boot.
    pub(crate) liveupdate_num: u64,
    /// Sessions in the order in which they were made.
    pub(crate) sessions: KVVec<FoundSession>,
    /// Where all this was; `None` if there is nothing.
    pub(crate) account: Option<Account>,
}

impl Found {
    /// Looks for the previous kernel's account.
    ///
    /// What cannot be understood is left alone and said in the log; what is good is found all the
    /// same. Fails with `ENOMEM` only: then nothing is gone that anybody needs.
    pub(crate) fn look() -> Result<Self> {
        let mut found = Self {
            flbs: None,
            liveupdate_num: 0,
            sessions: KVVec::new(),
            account: None,
        };
        let mut scratch = KBox::new(Page::ZERO, GFP_KERNEL)?;
        let (root_pa, root) = match find_root(&mut scratch) {
            Ok(Some(root)) => root,
            Ok(None) => return Ok(found),
            Err(why) => {
                pr_err!(
                    "the previous kernel's state is refused: {:?}; its memory is kept until the next kexec\n",
                    why
                );
                return Ok(found);
            }
        };
        found.liveupdate_num = root.liveupdate_num;
        if root.flbs_pa != 0 {
            match IncomingTable::read(root_pa, root.flbs_pa, &mut scratch) {
                Ok(table) => found.flbs = Some(table),
                Err(Stop::NoMemory) => return Err(ENOMEM),
                Err(Stop::Malformed(why)) => {
                    pr_err!("the previous kernel's FLBs are refused: {:?}\n", why)
                }
            }
        }
        let mut account = Account {
            root_pa,
            blocks: KVVec::new(),
            whole: true,
        };
        match found.read_sessions(&root, &mut account, &mut scratch) {
            Ok(()) => {}
            Err(Stop::NoMemory) => return Err(ENOMEM),
            Err(Stop::Malformed(why)) => {
                account.whole = false;
                pr_err!(
                    "the previous kernel's list of sessions is damaged: {:?}; {} before the damage are usable\n",
                    why,
                    found.sessions.len()
                );
            }
        }
        account.set_aside(&found.sessions);
        found.account = Some(account);
        Ok(found)
    }

    /// Reads all sessions that the root leads to.
    fn read_sessions(
        &mut self,
        root: &LuoSer,
        account: &mut Account,
        scratch: &mut Page,
    ) -> Result<(), Stop> {
        let mut file_scratch = KBox::new(Page::ZERO, GFP_KERNEL)?;
        let blocks = blocks::new();
        // What else there is of the account is in no chain; a list of FLBs that was refused is anything.
        let rest = blocks.begin();
        let flbs_pa = self.flbs.as_ref().map(|_| root.flbs_pa);
        let mut others = Iterator::chain([account.root_pa].into_iter(), flbs_pa);
        if !others.all(|pa| rest.take(pa)) {
            return Err(Stop::NoMemory);
        }
        let chain = blocks.begin();
        let walked = block::walk(
            &chain,
            root.sessions_pa,
            scratch,
            |place, session: &SessionSer| {
                if place.slot == 0 {
                    account.blocks.push(place.block_pa, GFP_KERNEL)?;
                }
                let name = match session.validate() {
                    Ok(Some(name)) => name,
                    Ok(None) => return Ok(()),
                    Err(why) => {
                        account.whole = false;
                        err_limited!("a session of the previous kernel is refused: {:?}\n", why);
                        return Ok(());
                    }
                };
                match read_files(&blocks, session, &mut file_scratch) {
                    Ok((files, file_blocks)) => self.sessions.push(
                        FoundSession {
                            name,
                            record: Record { place, file_blocks },
                            files,
                        },
                        GFP_KERNEL,
                    )?,
                    Err(Stop::NoMemory) => return Err(Stop::NoMemory),
                    Err(Stop::Malformed(why)) => {
                        account.whole = false;
                        err_limited!(
                            "session {:?} of the previous kernel is refused: {:?}; its memory is kept until the next kexec\n",
                            name,
                            why
                        );
                    }
                }
                Ok(())
            },
        );
        walked.map_err(|stop| explain(&chain, stop))
    }
}

/// Finds the root and reads it; `None` after a cold boot, or where there was no orchestrator.
fn find_root(scratch: &mut Page) -> Result<Option<(u64, LuoSer)>, Malformed> {
    let (pa, size) = match kho::find_subtree(KHO_ENTRY) {
        Ok(found) => found,
        Err(ENOENT) => return Ok(None),
        Err(_) => return Err(Malformed::Field("KHO's entry")),
    };
    if size < size_of::<LuoSer>() {
        return Err(Malformed::Count(size as u64));
    }
    if !IncomingAccount.read(pa, scratch) {
        return Err(Malformed::NotPreserved(pa));
    }
    let (root, _) =
        LuoSer::read_from_prefix(&scratch.0).map_err(|_| Malformed::NotPreserved(pa))?;
    root.validate()?;
    Ok(Some((pa, root)))
}

/// Reads all files of a session, and the addresses of the pages that list them.
fn read_files(
    blocks: &Blocks,
    session: &SessionSer,
    scratch: &mut Page,
) -> Result<(KVVec<FileSer>, KVVec<u64>), Stop> {
    let mut files = KVVec::new();
    let mut pages = KVVec::new();
    let chain = blocks.begin();
    let walked = block::walk(
        &chain,
        session.files_pa,
        scratch,
        |place, file: &FileSer| {
            if place.slot == 0 {
                pages.push(place.block_pa, GFP_KERNEL)?;
            }
            files.push(file.clone(), GFP_KERNEL)?;
            Ok::<_, Stop>(())
        },
    );
    walked.map_err(|stop| explain(&chain, stop))?;
    if files.len() as u64 != session.nr_files {
        return Err(Malformed::Count(session.nr_files).into());
    }
    Ok((files, pages))
}

impl Record {
    /// Frees the previous kernel's account of the session: nobody will find the session again.
    pub(crate) fn forget(&self) {
        kho::write_account(
            self.place.block_pa,
            self.place.offset::<SessionSer>(),
            SessionSer::GONE.as_bytes(),
        );
        for &pa in self.file_blocks.iter() {
            kho::free_account(pa);
        }
    }
}

impl Account {
    /// Keeps all pages that were read, and found to be what they are to be, for the account.
    fn set_aside(&self, sessions: &[FoundSession]) {
        kho::set_aside(self.root_pa);
        let files = sessions
            .iter()
            .flat_map(|found| found.record.file_blocks.iter());
        for &pa in Iterator::chain(self.blocks.iter(), files) {
            kho::set_aside(pa);
        }
    }

    /// A session of the list is not among those that were found: the list stays.
    pub(crate) fn has_refused(&mut self) {
        self.whole = false;
    }

    /// Frees the list of sessions, when the last of them is gone. The root stays, for its count of
    /// live updates.
    pub(crate) fn forget(&self) {
        if !self.whole {
            return;
        }
        kho::write_account(
            self.root_pa,
            offset_of!(LuoSer, sessions_pa),
            0u64.as_bytes(),
        );
        for &pa in self.blocks.iter() {
            kho::free_account(pa);
        }
    }
}

// SPDX-License-Identifier: GPL-2.0

//! All sessions: those that will be handed over, and those that were.

use super::{
    incoming::{IncomingHandle, IncomingSession},
    outgoing::OutgoingSession,
};
use crate::{
    file::Restored,
    flb,
    handover::luo::{LuoSer, SessionName, SessionSer, COMPATIBLE, KHO_ENTRY},
    incoming::{Account, Found, FoundSession},
    kho::{BlockChain, PreservedPage, Subtree},
    log::{err_limited, warn_limited},
    ordered_map::{OrderedMap, Slot},
    uapi::{Place, SessionEntry, Window},
};
use core::mem::{replace, size_of};
use kernel::{
    new_condvar, new_mutex,
    prelude::*,
    sync::{lock::mutex::MutexGuard, Arc, CondVar, Mutex},
    time::{Instant, Monotonic},
};

/// What the outgoing registry's lock protects.
struct Outgoing {
    /// What the next kernel finds everything by.
    root: Subtree,
    sessions: OrderedMap<SessionName, Arc<OutgoingSession>>,
    /// Always has room for all of `sessions`, but while these are being frozen.
    blocks: BlockChain<SessionSer>,
    /// While the kexec is under way, no session comes or goes: then this has those that are frozen, in
    /// order, when they are not worked at.
    frozen: Option<KVVec<Arc<OutgoingSession>>>,
}

/// The sessions that the kexec will hand over.
#[pin_data]
pub(crate) struct OutgoingRegistry {
    #[pin]
    inner: Mutex<Outgoing>,
    /// The FLBs, for the next kernel. Of use to a kexec alone, which waits for their drivers with it.
    #[pin]
    flbs: Mutex<PreservedPage>,
    /// Notified when `frozen` becomes `None`.
    #[pin]
    thawed: CondVar,
}

impl OutgoingRegistry {
    /// Announces to the next kernel that live update number `liveupdate_num` brought it about.
    pub(crate) fn new(liveupdate_num: u64) -> Result<Arc<Self>> {
        let mut page = PreservedPage::new()?;
        let mut flbs = PreservedPage::new()?;
        flb::Table::serialize(&mut flbs)?;
        let root = LuoSer {
            compatible: COMPATIBLE,
            liveupdate_num,
            sessions_pa: 0,
            flbs_pa: flbs.phys(),
        };
        root.write_to_prefix(&mut page.0).map_err(|_| EINVAL)?;
        let root = Subtree::add(KHO_ENTRY, page, size_of::<LuoSer>())?;
        Arc::pin_init(
            try_pin_init!(Self {
                inner <- new_mutex!(Outgoing {
                    root,
                    sessions: OrderedMap::new(),
                    blocks: BlockChain::new(),
                    frozen: None,
                }),
                flbs <- new_mutex!(flbs),
                thawed <- new_condvar!(),
            }),
            GFP_KERNEL,
        )
    }

    /// Locks the registry, when no kexec is under way.
    fn lock(&self) -> MutexGuard<'_, Outgoing> {
        let mut inner = self.inner.lock();
        while inner.frozen.is_some() {
            self.thawed.wait(&mut inner);
        }
        inner
    }

    /// Makes a session. Fails with `EEXIST` if the name is taken.
    pub(crate) fn create(self: &Arc<Self>, name: SessionName) -> Result<Arc<OutgoingSession>> {
        let session = OutgoingSession::new(name, self.clone())?;
        let slot = Slot::new()?;
        let mut inner = self.lock();
        let count = inner.sessions.len();
        inner.blocks.reserve(count + 1)?;
        match inner.sessions.push(slot, name, session.clone()) {
            Ok(()) => Ok(session),
            Err(_) => {
                inner.blocks.shrink(count);
                Err(EEXIST)
            }
        }
    }

    /// Offers all sessions to LIST_SESSIONS, as its first part.
    pub(crate) fn list(&self, window: &mut Window<SessionEntry>) -> Result {
        let inner = self.inner.lock();
        window.begin(inner.sessions.next_place());
        for (place, _, session) in inner.sessions.places() {
            window.offer(Place(0, place), || session.entry())?;
        }
        Ok(())
    }

    /// Takes a session out, so that its name is free.
    pub(super) fn remove(&self, name: &SessionName) {
        let mut inner = self.lock();
        let session = inner.sessions.remove(name);
        let count = inner.sessions.len();
        inner.blocks.shrink(count);
        drop(inner);
        drop(session);
    }

    /// Freezes all sessions in order and hands them over. On failure all is as before. It fails with
    /// `EOPNOTSUPP` if there are sessions, and the next kernel is one that nothing is handed over to.
    ///
    /// Of those who do not want to change anything, nobody waits for this, whatever it waits for itself.
    pub(crate) fn freeze(&self, hands_over: bool) -> Result {
        let start = Instant::<Monotonic>::now();
        let (sessions, mut blocks) = self.begin_freeze(hands_over)?;
        let mut nr_sessions = 0;
        let mut nr_files = 0;
        let frozen = sessions
            .iter()
            .filter_map(|session| session.freeze().transpose())
            .inspect(|ser| {
                nr_sessions += 1;
                nr_files += ser.as_ref().map_or(0, |ser| ser.nr_files);
            });
        let written = blocks
            .write(frozen)
            .and_then(|sessions_pa| self.describe_flbs().map(|()| sessions_pa));
        let mut inner = self.inner.lock();
        inner.blocks = blocks;
        inner.frozen = Some(sessions);
        let written = written.and_then(|sessions_pa| set_sessions(&mut inner.root, sessions_pa));
        drop(inner);
        if let Err(err) = written {
            self.unfreeze();
            return Err(err);
        }
        pr_info!(
            "froze {} sessions with {} files in {} us\n",
            nr_sessions,
            nr_files,
            start.elapsed().as_micros_ceil()
        );
        Ok(())
    }

    /// Closes the registry for changes. Takes out what is needed while it is not locked: the sessions in
    /// order, and their blocks.
    fn begin_freeze(
        &self,
        hands_over: bool,
    ) -> Result<(KVVec<Arc<OutgoingSession>>, BlockChain<SessionSer>)> {
        let mut inner = self.inner.lock();
        let count = inner.sessions.len();
        if !hands_over && count != 0 {
            warn_limited!(
                "the kexec is refused: {} sessions would be lost: load the next kernel by kexec_file_load(2), as luoctl load does\n",
                count
            );
            return Err(EOPNOTSUPP);
        }
        let sessions = inner.all().inspect_err(|err| {
            warn_limited!("the kexec is refused: no list of the sessions: {:?}\n", err);
        })?;
        inner.frozen = Some(KVVec::new());
        Ok((sessions, replace(&mut inner.blocks, BlockChain::new())))
    }

    /// Describes the FLBs to the next kernel. Waits for what their drivers do with their states.
    fn describe_flbs(&self) -> Result {
        flb::Table::serialize(&mut self.flbs.lock()).inspect_err(|err| {
            pr_warn!(
                "the kexec is refused: FLBs cannot be described: {:?}\n",
                err
            );
        })
    }

    /// Undoes [`Self::freeze`], or what it has come to. Nobody waits for it who would not for that.
    pub(crate) fn unfreeze(&self) {
        let mut inner = self.inner.lock();
        // Writing zero to a page of our own cannot fail.
        let _ = set_sessions(&mut inner.root, 0);
        let sessions = inner.frozen.replace(KVVec::new());
        drop(inner);
        for session in sessions.iter().flat_map(|all| all.iter().rev()) {
            session.unfreeze();
        }
        self.inner.lock().frozen = None;
        self.thawed.notify_all();
    }
}

impl Outgoing {
    /// All sessions, in order.
    fn all(&self) -> Result<KVVec<Arc<OutgoingSession>>> {
        let mut sessions = KVVec::with_capacity(self.sessions.len(), GFP_KERNEL)?;
        for (_, session) in self.sessions.iter() {
            sessions.push(session.clone(), GFP_KERNEL)?;
        }
        Ok(sessions)
    }
}

/// Tells the next kernel where the sessions are.
fn set_sessions(root: &mut Subtree, pa: u64) -> Result {
    let (root, _) = LuoSer::mut_from_prefix(&mut root.page_mut().0).map_err(|_| EINVAL)?;
    root.sessions_pa = pa;
    Ok(())
}

/// What the incoming registry's lock protects.
struct Incoming {
    sessions: OrderedMap<SessionName, Arc<IncomingSession>>,
    account: Option<Account>,
}

/// The sessions that the previous kernel handed over.
#[pin_data]
pub(crate) struct IncomingRegistry {
    #[pin]
    inner: Mutex<Incoming>,
}

impl IncomingRegistry {
    /// The sessions that were found.
    pub(crate) fn new(found: Found) -> Result<Arc<Self>> {
        let registry = Arc::pin_init(
            try_pin_init!(Self {
                inner <- new_mutex!(Incoming {
                    sessions: OrderedMap::new(),
                    account: found.account,
                }),
            }),
            GFP_KERNEL,
        )?;
        for session in found.sessions {
            registry.add(session).inspect_err(|_| registry.clear())?;
        }
        Ok(registry)
    }

    /// Adds a session that was found.
    fn add(self: &Arc<Self>, found: FoundSession) -> Result {
        let FoundSession {
            name,
            record,
            files: found,
        } = found;
        let mut files = OrderedMap::new();
        for file in found.iter() {
            let added = files.push(Slot::new()?, file.token, Restored::new(file));
            if added.is_err() {
                err_limited!(
                    "session {:?} of the previous kernel has token {:#x} twice: the second is refused\n",
                    name,
                    file.token
                );
            }
        }
        let session = IncomingSession::new(name, record, files, self.clone())?;
        let slot = Slot::new()?;
        if self
            .inner
            .lock()
            .sessions
            .push(slot, name, session)
            .is_err()
        {
            if let Some(account) = &mut self.inner.lock().account {
                account.has_refused();
            }
            err_limited!(
                "the previous kernel has two sessions {:?}: the second is refused; its memory is kept until the next kexec\n",
                name
            );
        }
        Ok(())
    }

    /// Takes a session for user space: `ENOENT` if there is none of that name, `EINVAL` if somebody
    /// has it.
    pub(crate) fn retrieve(&self, name: &SessionName) -> Result<Arc<IncomingHandle>> {
        let inner = self.inner.lock();
        inner.sessions.get(name).ok_or(ENOENT)?.reserve()
    }

    /// Number of sessions.
    pub(crate) fn len(&self) -> usize {
        self.inner.lock().sessions.len()
    }

    /// Offers all sessions to LIST_SESSIONS, as its second part.
    pub(crate) fn list(&self, window: &mut Window<SessionEntry>) -> Result {
        for (place, _, session) in self.inner.lock().sessions.places() {
            window.offer(Place(1, place), || session.entry())?;
        }
        Ok(())
    }

    /// Takes a finished session out.
    pub(super) fn remove(&self, name: &SessionName) {
        let mut inner = self.inner.lock();
        let session = inner.sessions.remove(name);
        if inner.sessions.len() == 0 {
            if let Some(account) = inner.account.take() {
                account.forget();
            }
        }
        drop(inner);
        drop(session);
    }

    /// Lets go of all sessions, which stay where the previous kernel left them.
    pub(crate) fn clear(&self) {
        loop {
            let session = self.inner.lock().sessions.pop();
            if session.is_none() {
                return;
            }
        }
    }

    /// Names sessions in the log that nobody has finished: the kexec will lose them. Not all of
    /// them where they are many: this is in the blackout.
    pub(crate) fn warn_of_loss(&self) {
        const NAMED: usize = 10;
        let inner = self.inner.lock();
        let lost = || inner.sessions.iter().filter(|(_, it)| !it.is_finished());
        for (name, _) in lost().take(NAMED) {
            pr_warn!(
                "session {:?} of the previous kernel is lost: it was not finished before this kexec\n",
                name
            );
        }
        let others = lost().skip(NAMED).count();
        if others != 0 {
            pr_warn!("so are {} others\n", others);
        }
    }
}

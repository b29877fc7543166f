// SPDX-License-Identifier: GPL-2.0

//! A session of the old kernel: files are put into it until the kexec.

use super::{gate::Gate, FileName, Locked, OutgoingRegistry, Summarize, Summary};
use crate::{
    anon_file::{self, AnonFile},
    file::Preserved,
    handover::luo::{FileSer, SessionName, SessionSer},
    kho::BlockChain,
    log::warn_limited,
    ordered_map::{OrderedMap, Slot},
    task,
    trace::{self, Step},
    uapi::{
        self, FdEntry, GetState, Listings, Place, Request, SessionEntry, Token, TokenFd, Window,
    },
};
use kernel::{
    fs::File,
    new_condvar, new_mutex, new_spinlock,
    prelude::*,
    seq_file::SeqFile,
    sync::{aref::ARef, Arc, CondVar, Mutex, SpinLock},
    time::{delay::fsleep, Delta},
};

/// What may happen to a session.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Files come and go.
    Normal,
    /// PREPARE found every file ready: no file comes or goes.
    Prepared,
    /// The kexec is under way: whoever wants something waits for it, or for its failure. Then the
    /// session is prepared again, if it was.
    Frozen { prepared: bool },
    /// The descriptor is closed, and the files are unpreserved.
    Closed,
}

/// What the session's lock protects.
struct Inner {
    state: State,
    /// Whether only the last file may be taken out.
    ordered: bool,
    files: OrderedMap<u64, Preserved>,
    /// Always has room for all of `files`.
    blocks: BlockChain<FileSer>,
}

/// A session that can be handed over.
#[pin_data]
pub(crate) struct OutgoingSession {
    name: SessionName,
    registry: Arc<OutgoingRegistry>,
    #[pin]
    inner: Mutex<Inner>,
    #[pin]
    summary: SpinLock<Summary>,
    /// Before `inner`.
    #[pin]
    gate: Gate,
    /// Notified when `state` ceases to be [`State::Frozen`].
    #[pin]
    thawed: CondVar,
    #[pin]
    listings: Listings,
}

impl OutgoingSession {
    /// A session without files.
    pub(super) fn new(name: SessionName, registry: Arc<OutgoingRegistry>) -> Result<Arc<Self>> {
        let inner = Inner {
            state: State::Normal,
            ordered: false,
            files: OrderedMap::new(),
            blocks: BlockChain::new(),
        };
        Arc::pin_init(
            try_pin_init!(Self {
                name,
                registry,
                summary <- new_spinlock!(inner.summary()),
                inner <- new_mutex!(inner),
                gate <- Gate::new(),
                thawed <- new_condvar!(),
                listings <- Listings::new(),
            }),
            GFP_KERNEL_ACCOUNT,
        )
    }

    /// Makes the session's file.
    pub(crate) fn file(self: &Arc<Self>) -> Result<ARef<File>> {
        anon_file::new(FileName::new(&self.name).as_c_str()?, self.clone())
            // Without a file, nobody else would.
            .inspect_err(|_| self.release())
    }

    /// Locks the session, whatever its state is.
    fn lock_any(&self) -> Locked<'_, Inner> {
        self.gate.pass();
        Locked::new(self.inner.lock(), &self.summary)
    }

    /// The same, if nobody has it locked.
    fn try_lock_any(&self) -> Option<Locked<'_, Inner>> {
        Some(Locked::new(self.inner.try_lock()?, &self.summary))
    }

    /// Locks the session for the kexec, before all who come later. A command of it may be under way,
    /// and take for ever: then the log names it, and `EINTR` ends the wait when the task was killed.
    fn lock_for_kexec(&self) -> Result<Locked<'_, Inner>> {
        const PAUSE_US: i64 = 100;
        const UNNAMED_US: i64 = 1_000_000;
        if let Some(inner) = self.try_lock_any() {
            return Ok(inner);
        }
        let _closed = self.gate.close();
        let mut pauses: i64 = 0;
        loop {
            if let Some(inner) = self.try_lock_any() {
                return Ok(inner);
            }
            if pauses == UNNAMED_US / PAUSE_US {
                warn_limited!(
                    "session {:?}: reboot() waits for a command of it that is under way; to kill who gave it may help\n",
                    self.name
                );
            }
            task::yield_cpu()?;
            fsleep(Delta::from_micros(PAUSE_US));
            pauses = pauses.saturating_add(1);
        }
    }

    /// Locks the session, when no kexec is under way.
    fn lock(&self) -> Locked<'_, Inner> {
        let mut inner = self.lock_any();
        while let State::Frozen { .. } = inner.state {
            inner.wait(&self.thawed);
        }
        inner
    }

    /// Locks the session to put a file into it or take one out: `EBUSY` if it is prepared.
    fn lock_for_change(&self) -> Result<Locked<'_, Inner>> {
        let inner = self.lock();
        if inner.state == State::Prepared {
            return Err(EBUSY);
        }
        Ok(inner)
    }

    /// PRESERVE_FD
    fn preserve_fd(&self, request: &Request) -> Result {
        let arg: TokenFd = request.read()?;
        // The answer says nothing new. So it is given first: where it cannot be written, nothing
        // was preserved.
        request.respond(&arg)?;
        self.preserve(arg.fd, arg.token).inspect_err(|err| {
            warn_limited!(
                "session {:?}: cannot preserve fd {} as token {:#x}: {:?}\n",
                self.name,
                arg.fd,
                arg.token,
                err
            );
        })
    }

    /// Preserves the file behind `fd`.
    fn preserve(&self, fd: i32, token: u64) -> Result {
        let mut inner = self.lock_for_change()?;
        if inner.files.contains(&token) {
            return Err(EEXIST);
        }
        let count = inner.files.len();
        let slot = Slot::new()?;
        inner.blocks.reserve(count + 1)?;
        match trace::step(Step::Preserve, &self.name, token, || Preserved::new(fd)) {
            Ok(file) => inner.files.push(slot, token, file).map_err(|_| EEXIST),
            Err(err) => {
                inner.blocks.shrink(count);
                Err(err)
            }
        }
    }

    /// UNPRESERVE_FD
    fn unpreserve_fd(&self, request: &Request) -> Result {
        let arg: Token = request.read()?;
        if arg.reserved != 0 {
            return Err(EINVAL);
        }
        let mut inner = self.lock_for_change()?;
        if !inner.files.contains(&arg.token) {
            return Err(ENOENT);
        }
        if inner.ordered && inner.files.last_key() != Some(arg.token) {
            return Err(EBUSY);
        }
        // The file goes before the room that it had.
        let file = inner.files.remove(&arg.token);
        trace::sure_step(Step::Unpreserve, &self.name, arg.token, || drop(file));
        let count = inner.files.len();
        inner.blocks.shrink(count);
        Ok(())
    }

    /// PREPARE
    fn prepare(&self, request: &Request) -> Result {
        let mut arg: Token = request.read()?;
        if arg.reserved != 0 {
            return Err(EINVAL);
        }
        // The good answer is given first: where none can be written, nothing was prepared.
        arg.token = 0;
        request.respond(&arg)?;
        let Err((token, err)) = self.prepare_files() else {
            return Ok(());
        };
        warn_limited!(
            "session {:?}: token {:#x} is not ready for a kexec: {:?}\n",
            self.name,
            token,
            err
        );
        arg.token = token;
        request.respond(&arg)?;
        Err(err)
    }

    /// Checks all files, and closes the session for changes if every one of them is ready. Or names
    /// the one that is not.
    fn prepare_files(&self) -> Result<(), (u64, Error)> {
        let mut inner = self.lock();
        for (token, file) in inner.files.iter() {
            trace::step(Step::Prepare, &self.name, token, || file.prepare())
                .map_err(|err| (token, err))?;
        }
        inner.state = State::Prepared;
        Ok(())
    }

    /// CANCEL
    fn cancel(&self, request: &Request) -> Result {
        super::read_plain(request)?;
        self.lock().state = State::Normal;
        Ok(())
    }

    /// GET_STATE
    fn get_state(&self, request: &Request) -> Result {
        let mut arg: GetState = request.read()?;
        let inner = self.lock_any();
        arg.state = inner.state.to_user();
        arg.nr_files = inner.files.len() as u64;
        arg.nr_retrieved = 0;
        drop(inner);
        request.respond(&arg)
    }

    /// LIST_FDS
    fn list_fds(&self, request: &Request) -> Result {
        let list = |window: &mut Window<FdEntry>| {
            let inner = self.lock_any();
            window.begin(inner.files.next_place());
            for (place, token, file) in inner.files.places() {
                window.offer(Place(0, place), || FdEntry {
                    token,
                    compatible: *file.compatible().as_array(),
                    state: inner.state.to_user(),
                    reserved: 0,
                })?;
            }
            Ok(())
        };
        self.listings.respond(request, list)
    }

    /// SET_FLAGS
    fn set_flags(&self, request: &Request) -> Result {
        let ordered = super::read_flags(request)?;
        self.lock().ordered = ordered;
        Ok(())
    }

    /// The session as LIST_SESSIONS shows it.
    pub(super) fn entry(&self) -> SessionEntry {
        self.summary.lock().entry(&self.name)
    }

    /// Freezes the files in order and describes the session to the next kernel; `None` if it is
    /// closed. On failure the session is as before: `EINTR` if the task was killed while a command was
    /// under way.
    pub(super) fn freeze(&self) -> Result<Option<SessionSer>> {
        let mut inner = self.lock_for_kexec()?;
        if inner.state == State::Closed {
            return Ok(None);
        }
        let prepared = inner.state == State::Prepared;
        let Inner { files, blocks, .. } = &mut *inner;
        let mut frozen = 0;
        let files_pa = blocks.write(files.iter().map(|(token, file)| {
            let ser = trace::step(Step::Freeze, &self.name, token, || {
                if !prepared {
                    file.prepare()?;
                }
                file.freeze(token)
            });
            let ser = ser.inspect_err(|err| {
                warn_limited!(
                    "session {:?}: token {:#x} refuses the kexec: {:?}\n",
                    self.name,
                    token,
                    err
                );
            })?;
            frozen += 1;
            Ok(ser)
        }));
        match files_pa {
            Ok(files_pa) => {
                inner.state = State::Frozen { prepared };
                Ok(Some(SessionSer {
                    name: *self.name.as_array(),
                    files_pa,
                    nr_files: frozen as u64,
                }))
            }
            Err(err) => {
                inner.unfreeze_first(&self.name, frozen);
                Err(err)
            }
        }
    }

    /// Undoes [`Self::freeze`], if it was successful.
    pub(super) fn unfreeze(&self) {
        // One that is not frozen may be locked for long, by a command that is under way.
        if self.summary.lock().state != uapi::STATE_FROZEN {
            return;
        }
        let mut inner = self.lock_any();
        if let State::Frozen { prepared } = inner.state {
            let count = inner.files.len();
            inner.unfreeze_first(&self.name, count);
            inner.state = if prepared {
                State::Prepared
            } else {
                State::Normal
            };
            self.thawed.notify_all();
        }
    }
}

impl State {
    /// As the user ABI has it.
    fn to_user(self) -> u32 {
        match self {
            State::Normal | State::Closed => uapi::STATE_NORMAL,
            State::Prepared => uapi::STATE_PREPARED,
            State::Frozen { .. } => uapi::STATE_FROZEN,
        }
    }
}

impl Summarize for Inner {
    fn summary(&self) -> Summary {
        Summary {
            state: self.state.to_user(),
            ordered: self.ordered,
            nr_files: self.files.len() as u64,
        }
    }
}

impl Inner {
    /// Unfreezes the first `count` files, in reverse order.
    fn unfreeze_first(&mut self, session: &SessionName, count: usize) {
        self.files.for_each_rev(|before, token, file| {
            if before < count {
                trace::sure_step(Step::Unfreeze, session, token, || file.unfreeze());
            }
        });
    }
}

impl AnonFile for OutgoingSession {
    fn ioctl(&self, cmd: u32, arg: usize) -> Result {
        let request = Request::new(cmd, arg, super::COMMANDS, super::EXTENSIONS)?;
        match request.cmd {
            uapi::SESSION_PRESERVE_FD => self.preserve_fd(&request),
            uapi::SESSION_GET_NAME => super::get_name(&self.name, &request),
            uapi::SESSION_UNPRESERVE_FD => self.unpreserve_fd(&request),
            uapi::SESSION_PREPARE => self.prepare(&request),
            uapi::SESSION_CANCEL => self.cancel(&request),
            uapi::SESSION_GET_STATE => self.get_state(&request),
            uapi::SESSION_LIST_FDS => self.list_fds(&request),
            uapi::SESSION_SET_FLAGS => self.set_flags(&request),
            uapi::SESSION_RETRIEVE_FD | uapi::SESSION_FINISH => Err(EINVAL),
            _ => Err(ENOTTY),
        }
    }

    fn show(&self, out: &SeqFile) {
        super::show(&self.entry(), out);
    }

    fn release(&self) {
        let mut inner = self.lock();
        inner.state = State::Closed;
        while let Some((token, file)) = inner.files.pop() {
            trace::sure_step(Step::Unpreserve, &self.name, token, || drop(file));
        }
        inner.blocks.shrink(0);
        drop(inner);
        self.registry.remove(&self.name);
    }
}

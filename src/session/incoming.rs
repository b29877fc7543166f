// SPDX-License-Identifier: GPL-2.0

//! A session of the previous kernel: files are taken out of it.

use super::{FileName, IncomingRegistry, Locked, Summarize, Summary};
use crate::{
    anon_file::{self, AnonFile},
    file::Restored,
    handover::luo::SessionName,
    incoming::Record,
    log::{err_limited, warn_limited},
    ordered_map::OrderedMap,
    trace::{self, Step},
    uapi::{self, FdEntry, GetState, Listings, Place, Request, SessionEntry, TokenFd, Window},
};
use kernel::{
    fs::{
        file::{flags::O_CLOEXEC, FileDescriptorReservation},
        File,
    },
    new_mutex, new_spinlock,
    prelude::*,
    seq_file::SeqFile,
    sync::{
        aref::ARef,
        atomic::{Atomic, Full, Relaxed, Release},
        Arc, Mutex, SpinLock,
    },
};

/// What the session's lock protects.
struct Inner {
    /// Whether files may be retrieved in order only.
    ordered: bool,
    files: OrderedMap<u64, Restored>,
    /// The previous kernel's account of the session, which holds until the session is finished.
    record: Option<Record>,
}

/// A session that the previous kernel handed over.
#[pin_data]
pub(crate) struct IncomingSession {
    name: SessionName,
    registry: Arc<IncomingRegistry>,
    /// Whether somebody has the session.
    taken: Atomic<bool>,
    /// Whether nothing of it is left to be taken out.
    finished: Atomic<bool>,
    /// Held by FINISH, so that a second one is not done before the first. Taken before `inner`.
    #[pin]
    finishing: Mutex<()>,
    #[pin]
    inner: Mutex<Inner>,
    #[pin]
    summary: SpinLock<Summary>,
    #[pin]
    listings: Listings,
}

impl IncomingSession {
    /// A session as it was found.
    pub(super) fn new(
        name: SessionName,
        record: Record,
        files: OrderedMap<u64, Restored>,
        registry: Arc<IncomingRegistry>,
    ) -> Result<Arc<Self>> {
        let inner = Inner {
            ordered: false,
            files,
            record: Some(record),
        };
        Arc::pin_init(
            try_pin_init!(Self {
                name,
                registry,
                taken: Atomic::new(false),
                finished: Atomic::new(false),
                finishing <- new_mutex!(()),
                summary <- new_spinlock!(inner.summary()),
                inner <- new_mutex!(inner),
                listings <- Listings::new(),
            }),
            GFP_KERNEL,
        )
    }

    /// Locks the session.
    fn lock(&self) -> Locked<'_, Inner> {
        Locked::new(self.inner.lock(), &self.summary)
    }

    /// Takes the session for user space: `EINVAL` if somebody has it.
    pub(super) fn reserve(self: &Arc<Self>) -> Result<Arc<IncomingHandle>> {
        let handle = Arc::new(
            IncomingHandle {
                session: self.clone(),
                known: Atomic::new(false),
            },
            GFP_KERNEL_ACCOUNT,
        )?;
        match self.taken.cmpxchg(false, true, Full) {
            Ok(_) => Ok(handle),
            Err(_) => Err(EINVAL),
        }
    }

    /// Whether the session is finished: it is there until its descriptor is closed.
    pub(super) fn is_finished(&self) -> bool {
        self.finished.load(Relaxed)
    }

    /// RETRIEVE_FD
    fn retrieve_fd(&self, request: &Request) -> Result {
        let asked: TokenFd = request.read()?;
        let fd = FileDescriptorReservation::get_unused_fd_flags(O_CLOEXEC)?;
        // The answer is given first: where it cannot be written, nothing was retrieved.
        request.respond(&TokenFd {
            fd: fd.reserved_fd() as i32,
            ..asked
        })?;
        let file = self.retrieve(asked.token).inspect_err(|_| {
            // The number will be somebody else's. What could be written just now is mostly still there.
            let _ = request.respond(&asked);
        })?;
        fd.fd_install(file);
        Ok(())
    }

    /// The file called `token`.
    fn retrieve(&self, token: u64) -> Result<ARef<File>> {
        let mut inner = self.lock();
        let file = inner.files.get(&token).ok_or(ENOENT)?;
        let is_new = file.is_pending();
        if inner.ordered && is_new && inner.next_token() != Some(token) {
            return Err(EBUSY);
        }
        let file = inner.files.get_mut(&token).ok_or(ENOENT)?;
        let retrieved = trace::step(Step::Retrieve, &self.name, token, || file.retrieve());
        retrieved.inspect_err(|err| {
            // One that is remembered was told when it was new.
            if is_new {
                self.explain(token, file, *err);
            }
        })
    }

    /// Says in the log what the error with which a file was not retrieved means.
    fn explain(&self, token: u64, file: &Restored, err: Error) {
        let compatible = file.compatible();
        if !file.is_pending() {
            err_limited!(
                "session {:?}: token {:#x} of type {:?} is lost: {:?}; there is no second try in this kernel, and its memory is kept until the next kexec\n",
                self.name,
                token,
                compatible,
                err
            );
            return;
        }
        let advice = if err != ENOENT {
            "nothing was touched: it can be tried again"
        } else if compatible.is_valid() {
            "load the module that handles it and try again"
        } else {
            "no handler can have that type, and its memory is kept until the next kexec"
        };
        warn_limited!(
            "session {:?}: cannot retrieve token {:#x} of type {:?}: {:?}; {}\n",
            self.name,
            token,
            compatible,
            err,
            advice
        );
    }

    /// FINISH
    fn finish_ioctl(&self, request: &Request) -> Result {
        let arg = super::read_plain(request)?;
        // The answer says nothing new. So it is given first: where it cannot be written, nothing
        // was finished.
        request.respond(&arg)?;
        self.finish()
    }

    /// Ends the lives of all files, in reverse order, if every one of them agrees.
    fn finish(&self) -> Result {
        let _finishing = self.finishing.lock();
        let mut inner = self.lock();
        let ready = inner.files.iter_mut().try_for_each(|(token, file)| {
            let ready = trace::step(Step::CanFinish, &self.name, token, || file.can_finish());
            ready.inspect_err(|err| {
                warn_limited!(
                    "session {:?}: token {:#x} of type {:?} is not ready to be finished: {:?}\n",
                    self.name,
                    token,
                    file.compatible(),
                    err
                );
            })
        });
        if ready.is_err() {
            inner.files.iter_mut().for_each(|(_, file)| file.let_go());
            return ready;
        }
        self.finished.store(true, Relaxed);
        if let Some(record) = inner.record.take() {
            record.forget();
        }
        // They are nobody's any more. To finish them may take long: neither a list of sessions nor
        // a kexec shall wait for it.
        let mut files = core::mem::replace(&mut inner.files, OrderedMap::new());
        drop(inner);
        while let Some((token, file)) = files.pop() {
            trace::sure_step(Step::Finish, &self.name, token, || file.finish());
        }
        Ok(())
    }

    /// GET_STATE
    fn get_state(&self, request: &Request) -> Result {
        let mut arg: GetState = request.read()?;
        let inner = self.lock();
        arg.state = uapi::STATE_UPDATED;
        arg.nr_files = inner.files.len() as u64;
        let retrieved = inner.files.iter().filter(|(_, file)| file.is_retrieved());
        arg.nr_retrieved = retrieved.count() as u64;
        drop(inner);
        request.respond(&arg)
    }

    /// LIST_FDS
    fn list_fds(&self, request: &Request) -> Result {
        let list = |window: &mut Window<FdEntry>| {
            let inner = self.lock();
            window.begin(inner.files.next_place());
            for (place, token, file) in inner.files.places() {
                window.offer(Place(0, place), || FdEntry {
                    token,
                    compatible: file.compatible().with_zero(),
                    state: if file.is_retrieved() {
                        uapi::STATE_NORMAL
                    } else {
                        uapi::STATE_UPDATED
                    },
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

    /// The descriptor was closed: finishes the session, or makes it available again.
    fn close(&self) {
        if self.finish().is_ok() {
            self.registry.remove(&self.name);
            return;
        }
        warn_limited!(
            "session {:?} was closed, cannot be finished yet, and can be retrieved again\n",
            self.name
        );
        // Who retrieves it next has not asked for an order.
        self.lock().ordered = false;
        self.taken.store(false, Release);
    }
}

impl Summarize for Inner {
    fn summary(&self) -> Summary {
        Summary {
            state: uapi::STATE_UPDATED,
            ordered: self.ordered,
            nr_files: self.files.len() as u64,
        }
    }
}

impl Inner {
    /// The file whose turn it is.
    fn next_token(&self) -> Option<u64> {
        self.files
            .iter()
            .find(|(_, file)| file.is_pending())
            .map(|(token, _)| token)
    }
}

/// What is behind the file descriptor of an incoming session.
pub(crate) struct IncomingHandle {
    session: Arc<IncomingSession>,
    /// Whether user space knows of the file: only then does closing it mean anything.
    known: Atomic<bool>,
}

impl IncomingHandle {
    /// Makes the file.
    pub(crate) fn file(self: &Arc<Self>) -> Result<ARef<File>> {
        anon_file::new(FileName::new(&self.session.name).as_c_str()?, self.clone())
            // Without a file, nobody else would.
            .inspect_err(|_| self.release())
    }

    /// User space is told of the file.
    pub(crate) fn set_known(&self) {
        self.known.store(true, Relaxed);
    }
}

impl AnonFile for IncomingHandle {
    fn ioctl(&self, cmd: u32, arg: usize) -> Result {
        let request = Request::new(cmd, arg, super::COMMANDS, super::EXTENSIONS)?;
        match request.cmd {
            uapi::SESSION_RETRIEVE_FD => self.session.retrieve_fd(&request),
            uapi::SESSION_FINISH => self.session.finish_ioctl(&request),
            uapi::SESSION_GET_NAME => super::get_name(&self.session.name, &request),
            uapi::SESSION_GET_STATE => self.session.get_state(&request),
            uapi::SESSION_LIST_FDS => self.session.list_fds(&request),
            uapi::SESSION_SET_FLAGS => self.session.set_flags(&request),
            uapi::SESSION_PRESERVE_FD
            | uapi::SESSION_UNPRESERVE_FD
            | uapi::SESSION_PREPARE
            | uapi::SESSION_CANCEL => Err(EINVAL),
            _ => Err(ENOTTY),
        }
    }

    fn show(&self, out: &SeqFile) {
        super::show(&self.session.entry(), out);
    }

    fn release(&self) {
        if self.known.load(Relaxed) {
            self.session.close();
        } else {
            self.session.taken.store(false, Release);
        }
    }
}

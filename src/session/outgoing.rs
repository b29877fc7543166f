// SPDX-License-Identifier: GPL-2.0

//! A session of the old kernel: files are put into it until the kexec.

use super::{FileName, OutgoingRegistry};
use crate::{
    anon_file::{self, AnonFile},
    file::Preserved,
    handover::luo::{FileSer, SessionName, SessionSer},
    kho::BlockChain,
    log::warn_limited,
    ordered_map::{OrderedMap, Slot},
    uapi::{self, Request, TokenFd},
};
use kernel::{
    fs::File,
    new_condvar, new_mutex,
    prelude::*,
    sync::{aref::ARef, lock::mutex::MutexGuard, Arc, CondVar, Mutex},
};

/// What may happen to a session.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Files come and go.
    Normal,
    /// The kexec is under way: whoever wants something waits for it, or for its failure.
    Frozen,
    /// The descriptor is closed, and the files are unpreserved.
    Closed,
}

/// What the session's lock protects.
struct Inner {
    state: State,
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
    /// Notified when `state` ceases to be [`State::Frozen`].
    #[pin]
    thawed: CondVar,
}

impl OutgoingSession {
    /// A session without files.
    pub(super) fn new(name: SessionName, registry: Arc<OutgoingRegistry>) -> Result<Arc<Self>> {
        Arc::pin_init(
            try_pin_init!(Self {
                name,
                registry,
                inner <- new_mutex!(Inner {
                    state: State::Normal,
                    files: OrderedMap::new(),
                    blocks: BlockChain::new(),
                }),
                thawed <- new_condvar!(),
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

    /// Locks the session, when no kexec is under way.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        let mut inner = self.inner.lock();
        while inner.state == State::Frozen {
            self.thawed.wait(&mut inner);
        }
        inner
    }

    /// PRESERVE_FD
    fn preserve_fd(&self, request: &Request) -> Result {
        let arg: TokenFd = request.read()?;
        self.preserve(arg.fd, arg.token, || request.respond(&arg))
            .inspect_err(|err| {
                warn_limited!(
                    "session {:?}: cannot preserve fd {} as token {:#x}: {:?}\n",
                    self.name,
                    arg.fd,
                    arg.token,
                    err
                );
            })
    }

    /// Preserves the file behind `fd`, if `respond` agrees in the end.
    fn preserve(&self, fd: i32, token: u64, respond: impl FnOnce() -> Result) -> Result {
        let mut inner = self.lock();
        if inner.files.contains(&token) {
            return Err(EEXIST);
        }
        let count = inner.files.len();
        let slot = Slot::new()?;
        inner.blocks.reserve(count + 1)?;
        let file = Preserved::new(fd).and_then(|file| {
            respond()?;
            Ok(file)
        });
        match file {
            Ok(file) => inner.files.push(slot, token, file).map_err(|_| EEXIST),
            Err(err) => {
                inner.blocks.shrink(count);
                Err(err)
            }
        }
    }

    /// Freezes the files in order and describes the session to the next kernel; `None` if it is
    /// closed. On failure the session is as before.
    pub(super) fn freeze(&self) -> Result<Option<SessionSer>> {
        let mut inner = self.inner.lock();
        if inner.state == State::Closed {
            return Ok(None);
        }
        let Inner { files, blocks, .. } = &mut *inner;
        let mut frozen = 0;
        let files_pa = blocks.write(files.iter().map(|(token, file)| {
            let ser = file.freeze(token).inspect_err(|err| {
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
                inner.state = State::Frozen;
                Ok(Some(SessionSer {
                    name: *self.name.as_array(),
                    files_pa,
                    nr_files: frozen as u64,
                }))
            }
            Err(err) => {
                inner.unfreeze_first(frozen);
                Err(err)
            }
        }
    }

    /// Undoes [`Self::freeze`], if it was successful.
    pub(super) fn unfreeze(&self) {
        let mut inner = self.inner.lock();
        if inner.state == State::Frozen {
            let count = inner.files.len();
            inner.unfreeze_first(count);
            inner.state = State::Normal;
            self.thawed.notify_all();
        }
    }
}

impl Inner {
    /// Unfreezes the first `count` files, in reverse order.
    fn unfreeze_first(&mut self, count: usize) {
        self.files.for_each_rev(|before, file| {
            if before < count {
                file.unfreeze();
            }
        });
    }
}

impl AnonFile for OutgoingSession {
    fn ioctl(&self, cmd: u32, arg: usize) -> Result {
        let request = Request::new(cmd, arg, super::COMMANDS)?;
        match request.cmd {
            uapi::SESSION_PRESERVE_FD => self.preserve_fd(&request),
            uapi::SESSION_GET_NAME => super::get_name(&self.name, &request),
            uapi::SESSION_RETRIEVE_FD | uapi::SESSION_FINISH => Err(EINVAL),
            _ => Err(ENOTTY),
        }
    }

    fn release(&self) {
        let mut inner = self.lock();
        inner.state = State::Closed;
        while let Some((_, file)) = inner.files.pop() {
            drop(file);
        }
        inner.blocks.shrink(0);
        drop(inner);
        self.registry.remove(&self.name);
    }
}

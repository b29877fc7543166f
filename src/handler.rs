// SPDX-License-Identifier: GPL-2.0

//! Handlers: what a file type does to be preserved, and who does it.
//!
//! A handler is called in this order, for the files of a session in the order in which they were
//! preserved, or in reverse ("rev"):
//!
//! | callback | when | order |
//! | --- | --- | --- |
//! | [`FileHandler::can_preserve`], [`FileHandler::preserve`] | PRESERVE_FD | |
//! | [`PreservedFile::prepare`] | PREPARE | in order |
//! | [`PreservedFile::freeze`] | reboot(KEXEC) | in order |
//! | [`PreservedFile::unfreeze`] | reboot(KEXEC) fails | rev |
//! | Drop of the [`PreservedFile`] (unpreserve) | close, UNPRESERVE_FD | rev |
//! | [`FileHandler::retrieve`] | RETRIEVE_FD, in the next kernel | as asked |
//! | [`FileHandler::can_finish`] | FINISH, close | all, before any is finished |
//! | [`FileHandler::finish`] | FINISH, close | rev |

use crate::{
    fault,
    flb::{self, AsFlb},
    handover::luo::Compatible,
    module_ref::{ModuleRef, Owner},
    static_list::release_if_empty,
};
use kernel::{
    fs::File,
    new_mutex,
    prelude::*,
    sync::{
        aref::ARef,
        atomic::{Atomic, Relaxed},
        global_lock, Arc, Mutex,
    },
};

/// How a file type is preserved.
///
/// Callbacks may sleep, and are called with the session locked, but for [`Self::finish`]: they must
/// not call back into a session. They may be called for several sessions at once.
pub trait FileHandler: Send + Sync {
    /// The compatible string by which the next kernel finds the handler. It stands for the layout
    /// of what [`PreservedFile::freeze`] hands over, too.
    fn compatible(&self) -> Compatible;

    /// Whether this handler is for `file`. Cheap, and without side effects.
    fn can_preserve(&self, file: &File) -> bool;

    /// What makes two files the same: no two with one identity are preserved at a time.
    fn identity(&self, file: &File) -> usize {
        file.as_ptr() as usize
    }

    /// Preserves `file`: the heavy work, done while the workload runs.
    ///
    /// May take long, and then must give up with `EINTR` when the task was killed. On failure
    /// nothing is left behind.
    fn preserve(&self, file: &ARef<File>) -> Result<KBox<dyn PreservedFile>>;

    /// Makes a file of `data`, which the previous kernel's [`PreservedFile::freeze`] returned. It is
    /// input: it may be anything.
    ///
    /// Not called again, unless nothing was touched: an error is [`NotRetrieved::Lost`] if not said
    /// otherwise.
    fn retrieve(&self, data: u64) -> Result<ARef<File>, NotRetrieved>;

    /// Whether all is done that must be done before [`Self::finish`].
    fn can_finish(&self, _data: u64, _outcome: &Outcome) -> bool {
        true
    }

    /// Ends the life of the preserved file: its data is the user's now, or nobody wanted it.
    fn finish(&self, data: u64, outcome: &Outcome);
}

/// A file that is preserved. To drop it is to unpreserve it, which cannot fail.
pub trait PreservedFile: Send + Sync {
    /// A light check, before the workload is paused, that [`Self::freeze`] will work.
    fn prepare(&self) -> Result {
        Ok(())
    }

    /// The last step before the kexec, with the workload paused: light. Returns what the next
    /// kernel finds the file's data by.
    fn freeze(&self) -> Result<u64>;

    /// Undoes [`Self::freeze`]: the kexec does not take place.
    fn unfreeze(&self) {}
}

/// Why [`FileHandler::retrieve`] made no file.
pub enum NotRetrieved {
    /// All is as it was: the next try may do better.
    Untouched(Error),
    /// What the previous kernel left is of no use, or was used up: the error is remembered.
    Lost(Error),
}

impl From<Error> for NotRetrieved {
    fn from(err: Error) -> Self {
        Self::Lost(err)
    }
}

/// What became of a file in the new kernel.
pub enum Outcome {
    /// Nobody was given it, and nothing was touched.
    Pending,
    /// It was retrieved, as this file.
    Retrieved(ARef<File>),
    /// [`FileHandler::retrieve`] failed with this error.
    Failed(Error),
}

/// A handler, the module that it lives in, and the FLBs that its files depend on.
#[pin_data]
struct Entry {
    handler: KBox<dyn FileHandler>,
    owner: Owner,
    /// Number of [`Handler`]s.
    files: Atomic<u64>,
    #[pin]
    flbs: Mutex<KVec<Arc<dyn AsFlb>>>,
}

global_lock! {
    // SAFETY: Initialized in the module's init, before anything else.
    unsafe(uninit) static HANDLERS: Mutex<KVec<Arc<Entry>>> = KVec::new();
}

/// Makes the registry ready for use.
///
/// # Safety
///
/// To be called once, before anything else of this file.
pub(crate) unsafe fn init() {
    // SAFETY: By the contract of this function.
    unsafe { HANDLERS.init() };
}

/// A handler that is registered until this is dropped.
#[must_use = "the handler is unregistered when this is dropped"]
pub struct Registration(Arc<Entry>);

impl Registration {
    /// Registers a handler that lives in `module`.
    ///
    /// Fails with `EEXIST` if its compatible string is taken.
    ///
    /// Context: may sleep.
    pub fn new(handler: KBox<dyn FileHandler>, module: &'static ThisModule) -> Result<Self> {
        Self::with_owner(handler, module.into())
    }

    /// As [`Self::new`].
    pub(crate) fn with_owner(handler: KBox<dyn FileHandler>, owner: Owner) -> Result<Self> {
        let entry = Arc::pin_init(
            try_pin_init!(Entry {
                handler,
                owner,
                files: Atomic::new(0),
                flbs <- new_mutex!(KVec::new()),
            }),
            GFP_KERNEL,
        )?;
        let compatible = entry.handler.compatible();
        let mut handlers = HANDLERS.lock();
        if handlers
            .iter()
            .any(|other| other.handler.compatible() == compatible)
        {
            return Err(EEXIST);
        }
        handlers.push(entry.clone(), GFP_KERNEL)?;
        Ok(Self(entry))
    }

    /// Makes the handler's files depend on `flb`. Fails with `EEXIST` if they do already.
    pub(crate) fn link(&self, flb: Arc<dyn AsFlb>) -> Result {
        let compatible = flb.as_flb().compatible();
        let mut flbs = self.0.flbs.lock();
        if flbs
            .iter()
            .any(|other| other.as_flb().compatible() == compatible)
        {
            return Err(EEXIST);
        }
        flbs.push(flb, GFP_KERNEL)?;
        Ok(())
    }

    /// Makes the handler's files depend on the FLB called `compatible` no more. Files that are
    /// preserved do until they are not.
    pub(crate) fn unlink(&self, compatible: &Compatible) {
        self.0.unlink(compatible);
    }
}

impl Entry {
    fn unlink(&self, compatible: &Compatible) {
        self.flbs
            .lock()
            .retain(|other| other.as_flb().compatible() != *compatible);
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut handlers = HANDLERS.lock();
        handlers.retain(|entry| !Arc::ptr_eq(entry, &self.0));
        release_if_empty(&mut handlers);
        drop(handlers);
        // Files may keep the entry for longer, and nobody would find it any more to unlink an FLB
        // that goes.
        self.0.flbs.lock().clear();
    }
}

/// Makes no handler's files depend on `flb` any more.
pub(crate) fn unlink_all(compatible: &Compatible) {
    for entry in HANDLERS.lock().iter() {
        entry.unlink(compatible);
    }
}

/// All registered handlers: their compatible strings, and how many files they have.
pub(crate) fn registered() -> Result<KVec<(Compatible, u64)>> {
    let handlers = HANDLERS.lock();
    let mut all = KVec::with_capacity(handlers.len(), GFP_KERNEL)?;
    for entry in handlers.iter() {
        let files = entry.files.load(Relaxed);
        all.push((entry.handler.compatible(), files), GFP_KERNEL)?;
    }
    Ok(all)
}

/// The handler of one file, whose module stays loaded while this lives.
pub(crate) struct Handler {
    entry: Arc<Entry>,
    _module: ModuleRef,
}

impl Handler {
    /// The first handler that is for `file`.
    pub(crate) fn for_file(file: &File) -> Option<Self> {
        Self::find(|handler| handler.can_preserve(file))
    }

    /// Whether both are of one registration.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.entry, &other.entry)
    }

    /// The handler with this compatible string.
    pub(crate) fn for_compatible(compatible: &Compatible) -> Option<Self> {
        Self::find(|handler| handler.compatible() == *compatible)
    }

    fn find(matches: impl Fn(&dyn FileHandler) -> bool) -> Option<Self> {
        let handlers = HANDLERS.lock();
        let (entry, module) = handlers.iter().find_map(|entry| {
            // Before it is asked: what it needs for an answer may not be there yet.
            let module = ModuleRef::get_live(entry.owner)?;
            matches(&*entry.handler).then_some((entry, module))
        })?;
        fault::point().ok()?;
        entry.files.fetch_add(1, Relaxed);
        Some(Self {
            entry: entry.clone(),
            _module: module,
        })
    }
}

impl Handler {
    /// The FLBs of the handler. Fails with `ENODEV` if the module of one of them is being loaded or unloaded.
    ///
    /// They are called with the list unlocked: what they do may lead to it.
    fn flbs(&self) -> Result<KVec<flb::Pinned>> {
        let flbs = self.entry.flbs.lock();
        let mut pinned = KVec::with_capacity(flbs.len(), GFP_KERNEL_ACCOUNT)?;
        for flb in flbs.iter() {
            fault::point()?;
            let flb = flb::Pinned::new(flb).ok_or(ENODEV)?;
            pinned.push(flb, GFP_KERNEL_ACCOUNT)?;
        }
        Ok(pinned)
    }

    /// Tells every FLB of the handler that a file is preserved that depends on it. If one of them
    /// fails, none has been told.
    pub(crate) fn preserve_flbs(&self) -> Result<FlbUse> {
        let flbs = self.flbs()?;
        let mut told = FlbUse(KVec::with_capacity(flbs.len(), GFP_KERNEL_ACCOUNT)?);
        for flb in flbs {
            flb.file_preserved()?;
            told.0.push(flb, GFP_KERNEL_ACCOUNT)?;
        }
        Ok(told)
    }

    /// Gets ready to tell every FLB of the handler that a file is finished that depends on it.
    pub(crate) fn finish_flbs(&self) -> Result<FlbFinish> {
        Ok(FlbFinish(self.flbs()?))
    }
}

impl Drop for Handler {
    fn drop(&mut self) {
        self.entry.files.fetch_sub(1, Relaxed);
    }
}

/// The FLBs that a preserved file depends on. To drop it is to tell them that it does no more.
pub(crate) struct FlbUse(KVec<flb::Pinned>);

impl Drop for FlbUse {
    fn drop(&mut self) {
        while let Some(flb) = self.0.pop() {
            flb.file_unpreserved();
        }
    }
}

/// The FLBs that a file depends on which is about to be finished.
pub(crate) struct FlbFinish(KVec<flb::Pinned>);

impl FlbFinish {
    /// Adds those of `others` that are not among these.
    pub(crate) fn add(&mut self, others: Self) -> Result {
        for flb in others.0 {
            let compatible = flb.compatible();
            if self.0.iter().all(|known| known.compatible() != compatible) {
                self.0.push(flb, GFP_KERNEL_ACCOUNT)?;
            }
        }
        Ok(())
    }

    /// Tells them, in reverse order, that the file is finished.
    pub(crate) fn tell(self) {
        for flb in self.0.iter().rev() {
            flb.file_finished();
        }
    }
}

impl core::ops::Deref for Handler {
    type Target = dyn FileHandler;

    fn deref(&self) -> &Self::Target {
        &*self.entry.handler
    }
}

// SPDX-License-Identifier: GPL-2.0

//! An FLB in the old kernel.

use super::{Flb, Object};
use crate::{fault, handover::luo::FlbSer, module_ref::ModuleRef};
use kernel::{prelude::*, sync::Arc};

/// What there is of an FLB while files are preserved.
pub(super) struct Outgoing<T: Flb> {
    /// Files that depend on it.
    files: u64,
    /// [`OutgoingRef`]s.
    holders: u64,
    /// There is one exactly while there are files or holders.
    live: Option<Live<T>>,
}

/// The state itself, unmade before its module may go.
struct Live<T: Flb> {
    state: T::Outgoing,
    _module: ModuleRef,
}

impl<T: Flb> Outgoing<T> {
    /// Nothing.
    pub(super) const fn new() -> Self {
        Self {
            files: 0,
            holders: 0,
            live: None,
        }
    }

    /// Unmakes the state if nobody needs it any more.
    fn settle(&mut self) {
        if self.files == 0 && self.holders == 0 {
            self.live = None;
        }
    }
}

/// A file is preserved: makes the state if it is the first.
pub(super) fn add_file<T: Flb>(object: &Object<T>) -> Result {
    let mut outgoing = object.outgoing.lock();
    if outgoing.live.is_none() {
        let module = ModuleRef::get(object.owner).ok_or(ENODEV)?;
        fault::point()?;
        outgoing.live = Some(Live {
            state: object.flb.preserve()?,
            _module: module,
        });
    }
    outgoing.files += 1;
    Ok(())
}

/// A file is unpreserved: unmakes the state if it was the last.
pub(super) fn remove_file<T: Flb>(object: &Object<T>) {
    let mut outgoing = object.outgoing.lock();
    outgoing.files = outgoing.files.saturating_sub(1);
    outgoing.settle();
}

/// Describes the FLB to the next kernel, if files depend on it.
pub(super) fn serialize<T: Flb>(object: &Object<T>) -> Option<FlbSer> {
    let outgoing = object.outgoing.lock();
    if outgoing.files == 0 {
        return None;
    }
    let live = outgoing.live.as_ref()?;
    Some(FlbSer {
        compatible: object.flb.compatible(),
        data: object.flb.data(&live.state),
        count: outgoing.files,
    })
}

/// Number of files that depend on the FLB.
pub(super) fn count<T: Flb>(object: &Object<T>) -> u64 {
    object.outgoing.lock().files
}

/// Keeps the state of an FLB in the old kernel: it is not unmade while this lives.
///
/// # Invariants
///
/// This is one of the holders of `object`'s outgoing state.
pub struct OutgoingRef<T: Flb>(Arc<Object<T>>);

/// Takes a reference: `ENOENT` if there is no state.
pub(super) fn get<T: Flb>(object: &Arc<Object<T>>) -> Result<OutgoingRef<T>> {
    hold(object, |_| Ok(()))?;
    // INVARIANT: It was counted.
    Ok(OutgoingRef(object.clone()))
}

/// Calls `look` with the state, and counts a holder if that is successful. `ENOENT` if there is none.
pub(crate) fn hold<T: Flb, R>(
    object: &Object<T>,
    look: impl FnOnce(&T::Outgoing) -> Result<R>,
) -> Result<R> {
    let mut outgoing = object.outgoing.lock();
    let seen = look(&outgoing.live.as_ref().ok_or(ENOENT)?.state)?;
    outgoing.holders += 1;
    Ok(seen)
}

/// Undoes [`hold`].
pub(crate) fn release<T: Flb>(object: &Object<T>) {
    let mut outgoing = object.outgoing.lock();
    outgoing.holders = outgoing.holders.saturating_sub(1);
    outgoing.settle();
}

impl<T: Flb> OutgoingRef<T> {
    /// Calls `look` with the state, which is locked meanwhile.
    pub fn with<R>(&self, look: impl FnOnce(&T::Outgoing) -> R) -> Result<R> {
        let outgoing = self.0.outgoing.lock();
        // By the type invariant there is one.
        Ok(look(&outgoing.live.as_ref().ok_or(ENOENT)?.state))
    }
}

impl<T: Flb> Drop for OutgoingRef<T> {
    fn drop(&mut self) {
        release(&self.0);
    }
}

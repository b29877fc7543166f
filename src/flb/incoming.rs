// SPDX-License-Identifier: GPL-2.0

//! An FLB in the new kernel.

use super::{table::Table, Flb, Object};
use crate::{fault, module_ref::ModuleRef};
use kernel::{prelude::*, sync::Arc};

/// What there is of an FLB that may have been handed over.
pub(super) struct Incoming<T: Flb> {
    /// [`IncomingRef`]s.
    holders: u64,
    stage: Stage<T>,
}

/// How far an FLB has come.
enum Stage<T: Flb> {
    /// Nobody has asked for it.
    Unasked,
    /// It was made of its data.
    Live {
        state: T::Incoming,
        _module: ModuleRef,
    },
    /// It could not be made.
    Failed(Error),
    /// The last file is finished.
    Finished,
}

impl<T: Flb> Incoming<T> {
    /// Nothing is known yet.
    pub(super) const fn new() -> Self {
        Self {
            holders: 0,
            stage: Stage::Unasked,
        }
    }

    /// The state, if there is one.
    fn live(&self) -> Result<&T::Incoming> {
        match &self.stage {
            Stage::Live { state, .. } => Ok(state),
            _ => Err(ENODATA),
        }
    }
}

/// Makes the state, unless there is one.
fn make<T: Flb>(object: &Object<T>, incoming: &mut Incoming<T>) -> Result {
    match &incoming.stage {
        Stage::Live { .. } => return Ok(()),
        Stage::Failed(err) => return Err(*err),
        Stage::Finished => return Err(ENODATA),
        Stage::Unasked => {}
    }
    let data = Table::incoming_data(&object.flb.compatible())?;
    let module = ModuleRef::get(object.owner).ok_or(ENODEV)?;
    match fault::point().and_then(|()| object.flb.retrieve(data)) {
        Ok(state) => {
            incoming.stage = Stage::Live {
                state,
                _module: module,
            };
            Ok(())
        }
        Err(err) => {
            incoming.stage = Stage::Failed(err);
            Err(err)
        }
    }
}

/// Finishes the state if nobody needs it any more.
fn settle<T: Flb>(object: &Object<T>, incoming: &mut Incoming<T>) {
    if incoming.holders != 0 || Table::incoming_files(&object.flb.compatible()) != 0 {
        return;
    }
    // One that nobody asked for is made just to be finished: only it knows how to free its data.
    if matches!(incoming.stage, Stage::Unasked) {
        if let Err(err) = make(object, incoming) {
            pr_warn!(
                "FLB {:?} cannot be finished: {:?}; its memory is kept until the next kexec\n",
                object.flb.compatible(),
                err
            );
            return;
        }
    }
    if let Stage::Live { .. } = incoming.stage {
        let stage = core::mem::replace(&mut incoming.stage, Stage::Finished);
        if let Stage::Live { state, _module } = stage {
            object.flb.finish(state);
        }
    }
}

/// A file that depends on the FLB is finished.
pub(super) fn remove_file<T: Flb>(object: &Object<T>) {
    let mut incoming = object.incoming.lock();
    if Table::finish_file(&object.flb.compatible()) {
        settle(object, &mut incoming);
    }
}

/// Number of files that depend on the FLB and are not finished.
pub(super) fn count<T: Flb>(object: &Object<T>) -> u64 {
    Table::incoming_files(&object.flb.compatible())
}

/// Keeps the state of an FLB in the new kernel: it is not finished while this lives.
///
/// # Invariants
///
/// This is one of the holders of `object`'s incoming state.
pub struct IncomingRef<T: Flb>(Arc<Object<T>>);

/// Takes a reference, and makes the state if nobody has yet.
pub(super) fn get<T: Flb>(object: &Arc<Object<T>>) -> Result<IncomingRef<T>> {
    hold(object, |_| ())?;
    // INVARIANT: It was counted.
    Ok(IncomingRef(object.clone()))
}

/// Counts a holder, and calls `look` with the state, which is made if nobody has yet.
pub(crate) fn hold<T: Flb, R>(
    object: &Object<T>,
    look: impl FnOnce(&T::Incoming) -> R,
) -> Result<R> {
    let mut incoming = object.incoming.lock();
    make(object, &mut incoming)?;
    let seen = look(incoming.live()?);
    incoming.holders += 1;
    Ok(seen)
}

/// Undoes [`hold`].
pub(crate) fn release<T: Flb>(object: &Object<T>) {
    let mut incoming = object.incoming.lock();
    incoming.holders = incoming.holders.saturating_sub(1);
    settle(object, &mut incoming);
}

impl<T: Flb> IncomingRef<T> {
    /// Calls `look` with the state, which is locked meanwhile.
    pub fn with<R>(&self, look: impl FnOnce(&T::Incoming) -> R) -> Result<R> {
        let incoming = self.0.incoming.lock();
        // By the type invariant there is one.
        Ok(look(incoming.live()?))
    }
}

impl<T: Flb> Drop for IncomingRef<T> {
    fn drop(&mut self) {
        release(&self.0);
    }
}

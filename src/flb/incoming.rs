// SPDX-License-Identifier: GPL-2.0

//! An FLB in the new kernel.

use super::{
    table::{Fate, Table},
    Flb, Object,
};
use crate::{fault, module_ref::ModuleRef};
use kernel::{prelude::*, sync::Arc};

/// What there is of an FLB that may have been handed over. What became of it outlives this: see
/// [`Fate`].
pub(super) struct Incoming<T: Flb> {
    /// [`IncomingRef`]s.
    holders: u64,
    /// From when somebody asks for it until it is finished.
    live: Option<Live<T>>,
}

/// The state itself, finished before its module may go.
struct Live<T: Flb> {
    state: T::Incoming,
    _module: ModuleRef,
}

impl<T: Flb> Incoming<T> {
    /// Nothing.
    pub(super) const fn new() -> Self {
        Self {
            holders: 0,
            live: None,
        }
    }

    /// The state, if there is one.
    fn state(&self) -> Result<&T::Incoming> {
        Ok(&self.live.as_ref().ok_or(ENODATA)?.state)
    }
}

/// Makes the state, unless there is one.
fn make<T: Flb>(object: &Object<T>, incoming: &mut Incoming<T>) -> Result {
    if incoming.live.is_some() {
        return Ok(());
    }
    let compatible = object.flb.compatible();
    let data = Table::incoming_data(&compatible)?;
    let module = ModuleRef::get(object.owner).ok_or(ENODEV)?;
    // Before anything is touched: then it can be asked for again.
    fault::point()?;
    let state = object
        .flb
        .retrieve(data)
        .inspect_err(|&err| Table::set_fate(&compatible, Fate::Failed(err)))?;
    Table::set_fate(&compatible, Fate::Made);
    incoming.live = Some(Live {
        state,
        _module: module,
    });
    Ok(())
}

/// Finishes the state if nobody needs it any more.
fn settle<T: Flb>(object: &Object<T>, incoming: &mut Incoming<T>) {
    let compatible = object.flb.compatible();
    if incoming.holders != 0 || Table::incoming_files(&compatible) != 0 {
        return;
    }
    if let Some(Live { state, _module }) = incoming.live.take() {
        object.flb.finish(state);
        Table::set_fate(&compatible, Fate::Finished);
    }
}

/// A file that depends on the FLB is finished.
pub(super) fn remove_file<T: Flb>(object: &Object<T>) {
    let mut incoming = object.incoming.lock();
    let compatible = object.flb.compatible();
    if Table::finish_file(&compatible) != Some(0) {
        return;
    }
    // One that nobody asked for is made just to be finished: only it knows how to free its data.
    if let Err(err) = make(object, &mut incoming) {
        pr_warn!(
            "FLB {:?} cannot be finished: {:?}; its memory is kept until the next kexec\n",
            compatible,
            err
        );
    }
    settle(object, &mut incoming);
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
    let seen = look(incoming.state()?);
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
        Ok(look(incoming.state()?))
    }
}

impl<T: Flb> Drop for IncomingRef<T> {
    fn drop(&mut self) {
        release(&self.0);
    }
}

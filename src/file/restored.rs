// SPDX-License-Identifier: GPL-2.0

//! A file that the previous kernel preserved.

use super::identity::{Identity, Room};
use crate::{
    fault,
    handler::{FlbFinish, Handler, NotRetrieved, Outcome},
    handover::luo::{Compatible, FileSer},
};
use kernel::{fs::File, prelude::*, sync::aref::ARef};

/// A file of the previous kernel, on its way to a descriptor of this one.
// The fields are dropped in this order: the identity before the file that it stands for.
pub(crate) struct Restored {
    compatible: Compatible,
    data: u64,
    /// Of a file that was retrieved: keeps it from being preserved until it is finished.
    identity: Option<Identity>,
    outcome: Outcome,
    /// Of a file that a handler has touched, or that can be finished: those who are to be told when it
    /// is finished. An FLB that is unregistered meanwhile is still of those.
    flbs: Option<FlbFinish>,
    /// Of a file that a handler has touched: the same handler must finish it. Nothing in what was
    /// handed over says that it was: so its module, and luo.ko with it, must stay until then.
    handler: Option<Handler>,
}

impl Restored {
    /// A file as the previous kernel describes it.
    pub(crate) fn new(file: &FileSer) -> Self {
        Self {
            compatible: file.compatible.normalized(),
            data: file.data,
            identity: None,
            outcome: Outcome::Pending,
            flbs: None,
            handler: None,
        }
    }

    /// The compatible string, as the previous kernel wrote it.
    pub(crate) fn compatible(&self) -> &Compatible {
        &self.compatible
    }

    /// Whether the file was retrieved.
    pub(crate) fn is_retrieved(&self) -> bool {
        matches!(self.outcome, Outcome::Retrieved(_))
    }

    /// Whether the file is as the previous kernel left it.
    pub(crate) fn is_pending(&self) -> bool {
        matches!(self.outcome, Outcome::Pending)
    }

    /// Makes the file, or returns the one that was made before.
    ///
    /// Fails with `ENOENT` as long as there is no handler for it, or not all that belongs to it. An error of the handler is final,
    /// and returned again, unless it says that nothing was touched: then this is still pending.
    pub(crate) fn retrieve(&mut self) -> Result<ARef<File>> {
        match &self.outcome {
            Outcome::Retrieved(file) => return Ok(file.clone()),
            Outcome::Failed(err) => return Err(*err),
            Outcome::Pending => {}
        }
        let handler = Handler::for_compatible(&self.compatible).ok_or(ENOENT)?;
        // Made ahead: want of memory must not cost a file that was made.
        let room = Room::new()?;
        self.flbs = Some(flbs_of(&handler, ENOENT)?);
        let handler = self.handler.insert(handler);
        let retrieved = fault::point()
            .map_err(NotRetrieved::Untouched)
            .and_then(|()| handler.retrieve(self.data));
        match retrieved {
            Ok(file) => {
                // Taken already, by a handler's idea of what is the same? Then the other one keeps both
                // from being preserved: no reason to lose this.
                self.identity = room.take(handler.identity(&file)).ok();
                self.outcome = Outcome::Retrieved(file.clone());
                Ok(file)
            }
            Err(NotRetrieved::Untouched(err)) => {
                self.let_go();
                Err(err)
            }
            Err(NotRetrieved::Lost(err)) => {
                self.outcome = Outcome::Failed(err);
                Err(err)
            }
        }
    }

    /// Checks that [`Self::finish`] may be called, and gets ready for it. `EBUSY` if the handler
    /// says no, or is not loaded, or the module of an FLB is going.
    pub(crate) fn can_finish(&mut self) -> Result {
        // The handler may have been registered anew since it retrieved the file, and FLBs with it.
        let mut now = Handler::for_compatible(&self.compatible);
        if self.handler.is_none() {
            self.handler = now.take();
        }
        let handler = self.handler.as_ref().ok_or(EBUSY)?;
        fault::point()?;
        if !handler.can_finish(self.data, &self.outcome) {
            return Err(EBUSY);
        }
        let mut flbs = flbs_of(handler, EBUSY)?;
        if let Some(now) = now.filter(|now| !now.is(handler)) {
            flbs.add(flbs_of(&now, EBUSY)?)?;
        }
        match &mut self.flbs {
            // Of those that were registered since, the file is counted by the previous kernel, too.
            Some(known) => known.add(flbs)?,
            None => self.flbs = Some(flbs),
        }
        Ok(())
    }

    /// Undoes [`Self::can_finish`], whatever it said, or a [`Self::retrieve`] that touched nothing: a
    /// handler that has nothing of the file may go.
    pub(crate) fn let_go(&mut self) {
        if self.is_pending() {
            self.flbs = None;
            self.handler = None;
        }
    }

    /// Ends the file's life as a preserved one.
    pub(crate) fn finish(self) {
        if let Some(handler) = &self.handler {
            handler.finish(self.data, &self.outcome);
        }
        if let Some(flbs) = self.flbs {
            flbs.tell();
        }
    }
}

/// Those who are to be told when a file of the handler is finished. Fails with `going` if the module of
/// one of them is being loaded or unloaded.
fn flbs_of(handler: &Handler, going: Error) -> Result<FlbFinish> {
    let flbs = handler.finish_flbs();
    flbs.map_err(|err| if err == ENODEV { going } else { err })
}

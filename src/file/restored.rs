// SPDX-License-Identifier: GPL-2.0

//! A file that the previous kernel preserved.

use super::identity::Identity;
use crate::{
    handler::{Handler, Outcome},
    handover::luo::{Compatible, FileSer},
};
use kernel::{fs::File, prelude::*, sync::aref::ARef};

/// A file of the previous kernel, on its way to a descriptor of this one.
pub(crate) struct Restored {
    compatible: Compatible,
    data: u64,
    outcome: Outcome,
    /// Of a file that was retrieved: keeps it from being preserved until it is finished.
    identity: Option<Identity>,
    /// Of a file that a handler has touched: the same handler must finish it.
    handler: Option<Handler>,
}

impl Restored {
    /// A file as the previous kernel describes it.
    pub(crate) fn new(file: &FileSer) -> Self {
        Self {
            compatible: file.compatible.normalized(),
            data: file.data,
            outcome: Outcome::Pending,
            identity: None,
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

    /// Whether nobody has tried to retrieve the file.
    pub(crate) fn is_pending(&self) -> bool {
        matches!(self.outcome, Outcome::Pending)
    }

    /// Whether a handler has touched the file, so that what was handed over is not whole any more.
    pub(crate) fn is_touched(&self) -> bool {
        self.handler.is_some()
    }

    /// Makes the file, or returns the one that was made before.
    ///
    /// Fails with `ENOENT` as long as there is no handler for it; any other error is final, and
    /// returned again.
    pub(crate) fn retrieve(&mut self) -> Result<ARef<File>> {
        match &self.outcome {
            Outcome::Retrieved(file) => return Ok(file.clone()),
            Outcome::Failed(err) => return Err(*err),
            Outcome::Pending => {}
        }
        let handler = Handler::for_compatible(&self.compatible).ok_or(ENOENT)?;
        let handler = self.handler.insert(handler);
        let made = handler.retrieve(self.data).and_then(|file| {
            let identity = Identity::take(handler.identity(&file))?;
            Ok((file, identity))
        });
        match made {
            Ok((file, identity)) => {
                self.identity = Some(identity);
                self.outcome = Outcome::Retrieved(file.clone());
                Ok(file)
            }
            Err(err) => {
                self.outcome = Outcome::Failed(err);
                Err(err)
            }
        }
    }

    /// Checks that [`Self::finish`] may be called, and gets ready for it. `EBUSY` if the handler
    /// says no, or is not loaded.
    pub(crate) fn can_finish(&mut self) -> Result {
        if self.handler.is_none() {
            self.handler = Handler::for_compatible(&self.compatible);
        }
        let handler = self.handler.as_ref().ok_or(EBUSY)?;
        if !handler.can_finish(self.data, &self.outcome) {
            return Err(EBUSY);
        }
        Ok(())
    }

    /// Ends the file's life as a preserved one.
    pub(crate) fn finish(self) {
        if let Some(handler) = &self.handler {
            handler.finish(self.data, &self.outcome);
            handler.finish_flbs();
        }
    }
}

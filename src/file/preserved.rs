// SPDX-License-Identifier: GPL-2.0

//! A file that is preserved, in the old kernel.

use super::identity::Identity;
use crate::{
    anon_file, fault,
    handler::{FlbUse, Handler, PreservedFile},
    handover::luo::{Compatible, FileSer},
};
use kernel::{fs::File, prelude::*, sync::aref::ARef};

/// A preserved file. To drop it is to unpreserve it.
// The fields are dropped in this order: the handler's state before what it relies on.
pub(crate) struct Preserved {
    state: KBox<dyn PreservedFile>,
    _flbs: FlbUse,
    _identity: Identity,
    _file: ARef<File>,
    handler: Handler,
}

impl Preserved {
    /// Preserves the file behind the caller's descriptor `fd`.
    ///
    /// Errors: `EBADF` for a descriptor that is not open, `ENOENT` for a file that no handler
    /// takes, `EBUSY` for one that is preserved already, and those of the handler.
    ///
    /// Context: an ioctl; may sleep, and may take long.
    pub(crate) fn new(fd: i32) -> Result<Self> {
        let file = anon_file::get(fd)?;
        let handler = Handler::for_file(&file).ok_or(ENOENT)?;
        let identity = Identity::take(handler.identity(&file))?;
        let flbs = handler.preserve_flbs()?;
        fault::point()?;
        Ok(Self {
            state: handler.preserve(&file)?,
            _flbs: flbs,
            _identity: identity,
            _file: file,
            handler,
        })
    }

    /// The compatible string of the file's handler.
    pub(crate) fn compatible(&self) -> Compatible {
        self.handler.compatible()
    }

    /// Checks that [`Self::freeze`] will work.
    pub(crate) fn prepare(&self) -> Result {
        fault::point()?;
        self.state.prepare()
    }

    /// Freezes the file, and describes it to the next kernel.
    pub(crate) fn freeze(&self, token: u64) -> Result<FileSer> {
        fault::point()?;
        Ok(FileSer {
            compatible: self.handler.compatible(),
            data: self.state.freeze()?,
            token,
        })
    }

    /// Undoes [`Self::freeze`].
    pub(crate) fn unfreeze(&self) {
        self.state.unfreeze();
    }
}

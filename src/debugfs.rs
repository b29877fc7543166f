// SPDX-License-Identifier: GPL-2.0

//! `/sys/kernel/debug/luo`: which handlers and FLBs there are, and how many files use them.

use crate::{flb, handler};
use kernel::{
    debugfs::{Dir, File},
    fmt,
    prelude::*,
};

/// The folder, until it is dropped.
// The files are dropped before the folder.
#[pin_data]
pub(crate) struct DebugFs {
    #[pin]
    handlers: File<()>,
    #[pin]
    flbs: File<()>,
    dir: Dir,
}

impl DebugFs {
    /// Makes the folder. That there is no debugfs is no error.
    pub(crate) fn new() -> impl PinInit<Self> {
        let dir = Dir::new(c"luo");
        pin_init!(Self {
            handlers <- dir.read_callback_file(c"handlers", (), &show_handlers),
            flbs <- dir.read_callback_file(c"flbs", (), &show_flbs),
            dir: dir.clone(),
        })
    }
}

/// A line for each handler: compatible string, number of files.
fn show_handlers(_: &(), f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let handlers = handler::registered().map_err(|_| fmt::Error)?;
    for (compatible, files) in handlers.iter() {
        writeln!(f, "{compatible:?} files {files}")?;
    }
    Ok(())
}

/// A line for each FLB: compatible string, number of files to be handed over, and handed over.
fn show_flbs(_: &(), f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let flbs = flb::Table::pinned().map_err(|_| fmt::Error)?;
    for flb in flbs.iter() {
        let (outgoing, incoming) = flb.counts();
        let compatible = flb.compatible();
        writeln!(f, "{compatible:?} outgoing {outgoing} incoming {incoming}")?;
    }
    Ok(())
}

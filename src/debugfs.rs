// SPDX-License-Identifier: GPL-2.0

//! `/sys/kernel/debug/luo`: which handlers and FLBs there are, and how many files use them.
//!
//! The files are made by `luo_debugfs.c`. The module stays loaded while one is open.

use crate::{flb, handler};
use kernel::{
    bindings,
    prelude::*,
    seq_file::{seq_print, SeqFile},
};

extern "C" {
    fn luo_debugfs_create();
    fn luo_debugfs_remove();
}

/// The folder, until it is dropped: the module has one.
pub(crate) struct DebugFs(());

impl DebugFs {
    /// Makes the folder. That there is no debugfs is no error.
    ///
    /// Context: may sleep.
    pub(crate) fn new() -> Self {
        // SAFETY: The functions that fill its files may be called from now on.
        unsafe { luo_debugfs_create() };
        Self(())
    }
}

impl Drop for DebugFs {
    fn drop(&mut self) {
        // SAFETY: It was made by `new`.
        unsafe { luo_debugfs_remove() };
    }
}

/// Fills the file `handlers`.
///
/// # Safety
///
/// `out` is a file that is being written to.
#[no_mangle]
unsafe extern "C" fn luo_show_handlers(out: *mut bindings::seq_file) -> c_int {
    // SAFETY: By the function's contract.
    shown(show_handlers(unsafe { SeqFile::from_raw(out) }))
}

/// Fills the file `flbs`.
///
/// # Safety
///
/// `out` is a file that is being written to.
#[no_mangle]
unsafe extern "C" fn luo_show_flbs(out: *mut bindings::seq_file) -> c_int {
    // SAFETY: By the function's contract.
    shown(show_flbs(unsafe { SeqFile::from_raw(out) }))
}

/// A result as C has it.
fn shown(result: Result) -> c_int {
    result.map_or_else(|err| err.to_errno(), |()| 0)
}

/// A line for each handler: compatible string, number of files.
fn show_handlers(out: &SeqFile) -> Result {
    for (compatible, files) in handler::registered()?.iter() {
        seq_print!(out, "{compatible:?} files {files}\n");
    }
    Ok(())
}

/// A line for each FLB: compatible string, number of files to be handed over, and handed over.
fn show_flbs(out: &SeqFile) -> Result {
    for flb in flb::Table::pinned()?.iter() {
        let (outgoing, incoming) = flb.counts();
        let compatible = flb.compatible();
        seq_print!(
            out,
            "{compatible:?} outgoing {outgoing} incoming {incoming}\n"
        );
    }
    Ok(())
}

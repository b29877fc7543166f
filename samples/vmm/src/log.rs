// SPDX-License-Identifier: GPL-2.0

//! What the VMM says about itself, on standard error.

use crate::tsc;
use std::fmt::Arguments;
use std::io::Write;

/// Prints a line, which begins with the host's time stamp counter: the one clock that two kernels in a row share.
macro_rules! log {
    ($($text:tt)*) => {
        $crate::log::print(format_args!($($text)*))
    };
}
pub(crate) use log;

/// See [`log`]. A guest is not to end because nobody listens to its VMM any more.
pub fn print(text: Arguments) {
    let _ = writeln!(std::io::stderr(), "vmm: [{}] {text}", tsc::now());
}

// SPDX-License-Identifier: GPL-2.0

//! The record, which `luo_recorder` keeps.

use kernel::{error::to_result, fmt, prelude::*, str::CString};

extern "C" {
    fn rec_log(format: *const c_char, ...);
    fn rec_fails(callback: *const c_char) -> c_int;
}

/// Adds a line to the record.
pub(crate) fn note(line: fmt::Arguments<'_>) {
    if let Ok(line) = CString::try_from_fmt(line) {
        // SAFETY: Both are strings that end with a zero, and the format has one string in it.
        unsafe { rec_log(c"%s\n".as_char_ptr(), line.as_char_ptr()) };
    }
}

/// The error that a callback is to fail with, if it is.
pub(crate) fn fails(callback: &CStr) -> Result {
    // SAFETY: A string that ends with a zero.
    to_result(unsafe { rec_fails(callback.as_char_ptr()) })
}

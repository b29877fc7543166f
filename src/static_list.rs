// SPDX-License-Identifier: GPL-2.0

//! Lists in statics, which are not dropped when the module goes.

use kernel::prelude::*;

/// Gives the memory of a list back if nothing is in it: to be called after each removal from a list
/// that is static.
pub(crate) fn release_if_empty<T>(list: &mut KVec<T>) {
    if list.is_empty() {
        *list = KVec::new();
    }
}

// SPDX-License-Identifier: GPL-2.0

//! Keeping a module loaded.

use kernel::{bindings, prelude::*};

/// A reference to a module: it is not unloaded while this lives.
///
/// # Invariants
///
/// This owns one reference to `0`.
pub(crate) struct ModuleRef(&'static ThisModule);

impl ModuleRef {
    /// Takes a reference; `None` if the module is being unloaded.
    pub(crate) fn get(module: &'static ThisModule) -> Option<Self> {
        // SAFETY: The registration that leads here ends before the module goes.
        let got = unsafe { bindings::try_module_get(module.as_ptr()) };
        // INVARIANT: The reference was taken.
        got.then_some(Self(module))
    }
}

impl Drop for ModuleRef {
    fn drop(&mut self) {
        // SAFETY: By the type invariant.
        unsafe { bindings::module_put(self.0.as_ptr()) };
    }
}

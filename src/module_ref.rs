// SPDX-License-Identifier: GPL-2.0

//! Keeping a module loaded.

use crate::LuoModule;
use kernel::{bindings, module::this_module, prelude::*};

/// The module that something lives in; null for the kernel itself.
#[derive(Clone, Copy)]
pub(crate) struct Owner(*mut bindings::module);

// SAFETY: The pointer is only handed to functions that may be called from anywhere.
unsafe impl Send for Owner {}
// SAFETY: The pointer is only handed to functions that may be called from anywhere.
unsafe impl Sync for Owner {}

impl From<&'static ThisModule> for Owner {
    fn from(module: &'static ThisModule) -> Self {
        Self(module.as_ptr())
    }
}

impl Owner {
    /// The module that C calls `owner`.
    ///
    /// # Safety
    ///
    /// `module` is null, or a module that is loaded as long as this value is used.
    pub(crate) unsafe fn from_raw(module: *mut bindings::module) -> Self {
        Self(module)
    }
}

/// A reference to a module: it is not unloaded while this lives.
///
/// # Invariants
///
/// This owns one reference to the module.
pub(crate) struct ModuleRef(Owner);

impl ModuleRef {
    /// Takes a reference; `None` if the module is being unloaded.
    pub(crate) fn get(owner: Owner) -> Option<Self> {
        // SAFETY: What names the owner is gone before the module is.
        let got = unsafe { bindings::try_module_get(owner.0) };
        // INVARIANT: The reference was taken.
        got.then_some(Self(owner))
    }

    /// The same for who was not called by the module: `None` also as long as its init is not done. That
    /// may still fail, and then the module goes without a look at its references.
    ///
    /// Of this module: what user space can reach is there when nothing of its init can fail any more.
    pub(crate) fn get_live(owner: Owner) -> Option<Self> {
        let module = Self::get(owner)?;
        let is_live = owner.0.is_null() || owner.0 == this_module::<LuoModule>().as_ptr() || {
            // SAFETY: What names the owner is gone before the module is; its state changes at any time.
            let state = unsafe { (&raw const (*owner.0).state).read_volatile() };
            state == bindings::module_state_MODULE_STATE_LIVE
        };
        is_live.then_some(module)
    }
}

impl Drop for ModuleRef {
    fn drop(&mut self) {
        // SAFETY: By the type invariant.
        unsafe { bindings::module_put(self.0 .0) };
    }
}

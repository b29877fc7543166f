// SPDX-License-Identifier: GPL-2.0

//! The FLB "z".

use crate::record::{fails, note};
use kernel::prelude::*;
use luo::{flb::Flb, Compatible};

/// What is handed over.
const VALUE: u64 = 0x7a7a_0001;

pub(crate) struct Shared;

/// The state in the old kernel: to drop it is to unpreserve it.
pub(crate) struct Preserved(u64);

impl Drop for Preserved {
    fn drop(&mut self) {
        note(fmt!("z.unpreserve"));
    }
}

/// The state in the new kernel.
pub(crate) struct Retrieved;

impl Flb for Shared {
    type Outgoing = Preserved;
    type Incoming = Retrieved;

    fn compatible(&self) -> Compatible {
        const { Compatible::from_str("luo-recorder-z-v1") }
    }

    fn preserve(&self) -> Result<Preserved> {
        note(fmt!("z.preserve"));
        fails(c"z.preserve")?;
        Ok(Preserved(VALUE))
    }

    fn data(&self, state: &Preserved) -> u64 {
        state.0
    }

    fn retrieve(&self, data: u64) -> Result<Retrieved> {
        note(fmt!("z.retrieve"));
        fails(c"z.retrieve")?;
        if data != VALUE {
            return Err(EBADMSG);
        }
        Ok(Retrieved)
    }

    fn finish(&self, _state: Retrieved) {
        note(fmt!("z.finish"));
    }
}

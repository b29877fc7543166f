// SPDX-License-Identifier: GPL-2.0

//! Fuzzes all that is read of a handover, with coverage as a guide: `make fuzz`.

#![no_main]

use libfuzzer_sys::fuzz_target;
use luo_handover::damage::Victim;
use std::cell::RefCell;

thread_local! {
    static VICTIM: RefCell<Victim> = RefCell::default();
}

fuzz_target!(|bytes: &[u8]| {
    VICTIM.with_borrow_mut(|victim| victim.run(bytes));
});

// SPDX-License-Identifier: GPL-2.0

//! Tracepoints `luo:luo_preserve` and so on: a line for each step in the life of a preserved file,
//! with its session, token and duration. A name cannot look like more than one word of one line.

use crate::handover::luo::SessionName;
use kernel::{
    prelude::*,
    time::{Instant, Monotonic},
};

/// The steps, as `luo_trace.c` numbers them.
#[repr(u32)]
#[derive(Clone, Copy)]
pub(crate) enum Step {
    Preserve = 0,
    Unpreserve = 1,
    Prepare = 2,
    Freeze = 3,
    Unfreeze = 4,
    Retrieve = 5,
    CanFinish = 6,
    Finish = 7,
}

extern "C" {
    fn luo_trace_enabled(step: u32) -> bool;
    fn luo_trace_step(
        step: u32,
        session: *const c_char,
        token: u64,
        duration_ns: u64,
        error: c_int,
    );
}

/// Takes a step, which may fail, and traces it.
pub(crate) fn step<T>(
    step: Step,
    session: &SessionName,
    token: u64,
    take: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let start = Instant::<Monotonic>::now();
    let result = take();
    let duration_ns = u64::try_from(start.elapsed().as_nanos()).unwrap_or(0);
    let error = result.as_ref().err().map_or(0, |err| err.to_errno());
    // SAFETY: The name ends with a zero: there is one byte more than its bytes can become.
    unsafe {
        if luo_trace_enabled(step as u32) {
            let name = session.word();
            luo_trace_step(step as u32, name.as_ptr().cast(), token, duration_ns, error);
        }
    }
    result
}

/// Takes a step that cannot fail, and traces it.
pub(crate) fn sure_step(step: Step, session: &SessionName, token: u64, take: impl FnOnce()) {
    // The step cannot fail.
    let _ = self::step(step, session, token, || {
        take();
        Ok(())
    });
}

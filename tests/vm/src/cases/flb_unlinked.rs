// SPDX-License-Identifier: GPL-2.0

//! File-Lifecycle-Bound objects that no handler has.

use super::common::debugfs::has;
use super::common::luo::Device;
use super::common::modules::{Kind, Recorder};
use crate::ctx::Ctx;
use crate::process::Child;
use crate::test::{Config, Test};
use anyhow::Result;
use std::time::Duration;

/// The cases.
pub const TESTS: &[Test] = &[Test::new(
    "asked_in_can_preserve",
    Config::new(),
    &[asked_in_can_preserve],
)];

const X: &str = "luo-recorder-x-v1";

/// How long anything takes that does not wait for ever.
const SOON: Duration = Duration::from_secs(20);

/// A handler may ask for an FLB when it is asked itself, whatever is locked then.
fn asked_in_can_preserve(ctx: &mut Ctx) -> Result<()> {
    let recorder = Recorder::new(ctx)?;
    recorder.link(false)?;
    recorder.ask("can_preserve", "x")?;
    Child::run(SOON, || {
        let session = Device::open()?.create_session("asks")?;
        Ok(session.preserve(&recorder.open(Kind::B, 1)?, 1)?)
    })?;
    recorder.expect(
        "a cold boot",
        "can_preserve asks x -61, preserve b1, unpreserve b1",
    )?;
    has("flbs", X, None)?;
    recorder.remove()
}

// SPDX-License-Identifier: GPL-2.0

//! Nothing is preserved; and the command that does nothing.

use super::meter::Meter;
use super::Kept;
use anyhow::Result;
use liveupdate::Device;
use luo_vm_protocol::bench::Figure;

/// How often the command is given.
const CALLS: u64 = 10_000;

/// The first kernel's part.
pub fn before(meter: &Meter) -> Result<Kept> {
    let session = Device::open()?.create_session("idle")?;
    meter.time(Figure::GetName, CALLS, || {
        for _ in 0..CALLS {
            session.name()?;
        }
        Ok(())
    })?;
    drop(session);
    Ok(Box::new(()))
}

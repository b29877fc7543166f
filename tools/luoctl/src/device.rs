// SPDX-License-Identifier: GPL-2.0

//! Opening the device, of which there is one at a time.

use crate::failure::{Failure, Result};
use crate::proc::Proc;
use liveupdate::{Device, Error};
use std::path::Path;
use std::time::{Duration, Instant};

/// How long it is tried: the agents' ways of using the device take milliseconds.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long between two tries. There is no event to wait for.
const PAUSE: Duration = Duration::from_millis(20);

/// Opens the device; if another process keeps it, says which.
pub fn open() -> Result<Device> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match Device::open() {
            Err(Error::DeviceBusy) if Instant::now() < deadline => std::thread::sleep(PAUSE),
            Err(Error::DeviceBusy) => return Err(busy()),
            Err(error) => return Err(Failure::from(error).about(Device::PATH)),
            Ok(device) => return Ok(device),
        }
    }
}

fn busy() -> Failure {
    let mut failure = Failure::from(Error::DeviceBusy);
    let holders = Proc::default().holders(Path::new(Device::PATH));
    if let Some(holder) = holders.first() {
        failure.cause = format!("{} is in use by {holder}", Device::PATH);
        failure.next = format!("try again when PID {} is done with it", holder.pid);
    }
    failure
}

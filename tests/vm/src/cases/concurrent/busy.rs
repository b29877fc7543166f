// SPDX-License-Identifier: GPL-2.0

//! Kexecs that fail, since a file refuses each of them.

use crate::cases::common::luo::{Device, Session};
use crate::cases::common::modules::Inserted;
use crate::kexec;
use anyhow::{ensure, Result};
use nix::errno::Errno;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// The name of the session that the file is in.
pub const BUSY: &str = "busy";

/// A session of its own with a file that refuses every kexec.
pub struct Busy {
    _session: Session,
    _file: File,
    _module: Inserted,
}

impl Busy {
    /// Behind the sessions there are, which are therefore frozen before it.
    pub fn new(device: &Device) -> Result<Self> {
        let module = Inserted::again("luo_sample_rust")?;
        let path = "/dev/luo-sample-rust";
        let mut file = OpenOptions::new().read(true).write(true).open(path)?;
        file.write_all(b"busy")?;
        let session = device.create_session(BUSY)?;
        session.preserve(&file, 1)?;
        Ok(Self {
            _session: session,
            _file: file,
            _module: module,
        })
    }
}

/// Tries to leave this kernel until it is told to stop. Returns how often.
pub fn refuse_kexec(done: &AtomicBool) -> Result<u64> {
    let mut tries = 0;
    while !done.load(Relaxed) {
        let errno = kexec::execute();
        ensure!(errno == Errno::EBUSY, "reboot() says {errno:?}");
        tries += 1;
    }
    Ok(tries)
}

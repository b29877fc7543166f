// SPDX-License-Identifier: GPL-2.0

//! What a failed call must leave as it was, put into one text.

use super::faults::Faults;
use super::luo::{Device, Session};
use super::memfd;
use super::modules::Recorder;
use super::owned::Owned;
use super::pages::PAGE;
use super::seen::Outline;
use crate::ctx::Ctx;
use crate::procfs::{self, number_in};
use anyhow::{ensure, Context, Result};
use std::fs::File;

/// The whole of the orchestrator, seen from outside.
pub struct Scene {
    /// The device.
    pub device: Device,
    /// The recorder, which knows what KHO preserves.
    pub recorder: Recorder,
    /// The fault injection.
    pub faults: Faults,
    owned: Owned,
}

impl Scene {
    /// Looks at what there is now: this is to be left.
    pub fn new(ctx: &Ctx) -> Result<Self> {
        let faults = Faults::new()?;
        faults.need_own()?;
        let recorder = Recorder::new(ctx)?;
        let device = Device::open()?;
        // What is made when it is first asked for, and stays.
        let session = device.create_session("first of all")?;
        device.list_sessions(0, 64)?;
        drop(session);
        Ok(Self {
            device,
            recorder,
            faults,
            owned: Owned::of_inserted()?,
        })
    }

    /// All sessions with their states and numbers of files, what KHO preserves, pages that are pinned, who uses luo.ko,
    /// open descriptors.
    pub fn state(&self) -> Result<String> {
        let (sessions, total) = self.device.list_sessions(0, 512)?;
        ensure!(sessions.len() as u64 == total, "{total} sessions");
        let sessions: Vec<_> = sessions
            .iter()
            .map(|entry| (entry.name(), entry.state, entry.flags, entry.nr_files))
            .collect();
        Ok(format!(
            "sessions {sessions:?}, KHO {:?}, pins {}, references {}, descriptors {}",
            self.recorder.kept()?,
            pins()?,
            references()?,
            super::open_fds()?
        ))
    }

    /// The same, with what a session tells.
    pub fn state_with(&self, session: &Session) -> Result<String> {
        let (state, tokens) = (session.state()?, session.tokens()?);
        Ok(format!("{}, {state:?}, tokens {tokens:?}", self.state()?))
    }

    /// Fails if luo.ko holds more than in the beginning.
    pub fn expect_no_more(&self, ctx: &Ctx) -> Result<()> {
        self.owned.expect_no_more(ctx, "at the end")
    }

    /// The same, and nothing is left to be handed over.
    pub fn close(self, ctx: &Ctx) -> Result<()> {
        self.expect_no_more(ctx)?;
        drop(self.device);
        self.recorder.nothing_left()?;
        self.recorder.remove()
    }
}

/// How many pages are pinned, each as often as it is.
pub fn pins() -> Result<i64> {
    procfs::refresh_vmstat()?;
    let released = number_in("/proc/vmstat", "nr_foll_pin_released")?;
    Ok(pinned()? - released)
}

/// How many pages have been pinned so far, but for the last few: each CPU counts some for itself.
pub fn pinned() -> Result<i64> {
    number_in("/proc/vmstat", "nr_foll_pin_acquired")
}

/// How many there are that keep luo.ko loaded.
pub fn references() -> Result<i64> {
    let text = std::fs::read_to_string("/sys/module/luo/refcnt").context("refcnt")?;
    Ok(text.trim().parse()?)
}

/// A memfd as it is while nothing has hold of it: that it can be changed, too.
pub fn free(file: &File) -> Result<String> {
    let size = file.metadata()?.len();
    memfd::truncate(file, size + PAGE as u64).context("growing it")?;
    memfd::truncate(file, size).context("shrinking it")?;
    let seals = memfd::seals(file)?;
    let position = memfd::position(file)?;
    Ok(format!(
        "{:?}, seals {seals:#x}, position {position}",
        Outline::of(file)?
    ))
}

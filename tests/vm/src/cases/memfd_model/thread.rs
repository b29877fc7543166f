// SPDX-License-Identifier: GPL-2.0

//! What a thread does to the memfd.

use super::{Phase, Shared, FAILED, OWN, PAGES, PHASES, SHARED, TAIL, THREADS};
use crate::cases::common::journal::{Random, BLOCK, PER_PAGE};
use crate::cases::common::memfd;
use crate::cases::common::pages::PAGE;
use anyhow::{ensure, Context, Result};
use nix::errno::Errno;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering;

/// One thread.
pub struct Thread<'a> {
    pub shared: &'a Shared,
    pub number: usize,
    pub random: Random,
}

impl Thread<'_> {
    /// Does what it likes, until all is over.
    pub fn run(mut self) -> Result<()> {
        let shared = self.shared;
        let done = loop {
            let number = shared.phase.load(Ordering::SeqCst);
            shared.seen[self.number].store(number, Ordering::SeqCst);
            if PHASES[number] == Phase::Over {
                break Ok(());
            }
            if let Err(err) = self.step(PHASES[number]) {
                break Err(err);
            }
            shared.done[self.number].fetch_add(1, Ordering::SeqCst);
        };
        if done.is_err() {
            shared.seen[self.number].store(FAILED, Ordering::SeqCst);
        }
        done
    }

    fn step(&mut self, phase: Phase) -> Result<()> {
        let model = &self.shared.model;
        let mapped = self.random.below(2) == 0;
        match self.random.below(16) {
            0..=4 if phase != Phase::Paused => {
                model.write(self.own_blocks(), mapped).context("writing")
            }
            0..=7 => {
                let block = self.shared_block();
                model
                    .write(block..block + 1, mapped)
                    .context("writing to a shared page")
            }
            8..=10 => {
                let blocks = self.own_blocks();
                model.check(blocks.start, mapped)?;
                model.check(blocks.end - 1, !mapped)
            }
            11 => {
                let block = self.shared_block();
                model.check(block, mapped).context("a shared page")
            }
            12 | 13 => self.punch(phase),
            14 => {
                let first = self.random.below(PAGES - 64);
                // It may be beyond the end just now.
                let _ = model.advise(first..first + 64, libc::MADV_PAGEOUT);
                Ok(())
            }
            _ if self.number == 0 => self.resize(phase),
            _ => {
                // Somebody else's, to be there at the same time.
                let mut byte = [0];
                let page = self.random.below(SHARED.end);
                model.file.read_exact_at(&mut byte, (page * PAGE) as u64)?;
                Ok(())
            }
        }
    }

    /// Blocks that follow each other, in pages of this thread: within a page or over a border.
    fn own_blocks(&mut self) -> Range<usize> {
        // Pages are owned by groups of 8.
        let groups = OWN.end / 8 / THREADS;
        let group = self.random.below(groups) * THREADS + self.number;
        let first = self.random.below(8 * PER_PAGE);
        let len = 1 + self.random.below((8 * PER_PAGE - first).min(20));
        let start = group * 8 * PER_PAGE + first;
        start..start + len
    }

    /// A block of this thread in a page in which others have some.
    fn shared_block(&mut self) -> usize {
        let page = SHARED.start + self.random.below(SHARED.len());
        page * PER_PAGE + self.random.below(PER_PAGE / THREADS) * THREADS + self.number
    }

    /// Punches a hole, at any blocks.
    fn punch(&mut self, phase: Phase) -> Result<()> {
        let model = &self.shared.model;
        let blocks = self.own_blocks();
        let (start, len) = (blocks.start * BLOCK, blocks.len() * BLOCK);
        // The phase may end right now: only one that has not begun yet cannot be mistaken.
        let done = model.change(
            blocks,
            |_| 0,
            || match memfd::punch(&model.file, start as u64, len as u64) {
                Ok(()) => Ok(true),
                Err(Errno::EPERM) => Ok(false),
                Err(errno) => Err(errno).context("punching"),
            },
        )?;
        ensure!(
            !done || phase == Phase::Free,
            "a preserved file was punched"
        );
        Ok(())
    }

    /// Changes the size, at any byte, and writes something to the end.
    fn resize(&mut self, phase: Phase) -> Result<()> {
        let model = &self.shared.model;
        let _resized = self.shared.resized.lock().expect("nobody panics");
        let from = TAIL.start * PER_PAGE + self.random.below(TAIL.len() * PER_PAGE);
        let all = TAIL.end * PER_PAGE;
        let done = model.change(
            from..all,
            |_| 0,
            || {
                match memfd::truncate(&model.file, (from * BLOCK) as u64) {
                    Ok(()) => {}
                    Err(Errno::EPERM) => return Ok(false),
                    Err(errno) => return Err(errno).context("truncating"),
                }
                memfd::truncate(&model.file, (all * BLOCK) as u64).context("growing")?;
                Ok(true)
            },
        )?;
        ensure!(
            !done || phase == Phase::Free,
            "a preserved file was truncated"
        );
        if phase == Phase::Paused {
            return Ok(());
        }
        let first = TAIL.start * PER_PAGE + self.random.below(TAIL.len() * PER_PAGE - 40);
        model.write(first..first + 40, self.random.below(2) == 0)
    }
}

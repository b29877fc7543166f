// SPDX-License-Identifier: GPL-2.0

//! Memory pressure: a process takes memory until the kernel reclaims some, and stays at that border.
//!
//! It is a program of its own (this one again, with the word `pressure`) which the OOM killer takes before any other: a
//! test that took the memory itself would be killed where swapping is slow, in an emulated machine on a busy host.

use crate::procfs::number_in;
use anyhow::{bail, ensure, Context, Result};
use nix::errno::Errno;
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
use nix::sys::signal::Signal;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// What is in the line that the kernel logs when it has killed such a process: for `Config::allow_log`.
pub const KILLED: &str = "(pressure) total-vm";

const PAGE: usize = 4096;
/// How much is taken or given back at once.
const SLICE: usize = 2 << 20;
/// How much of the memory that is available is left at first.
const LEFT: usize = 16 << 20;
/// How much of it the process takes. More than that is taken once, by who is not killed for it: a kernel that looks for
/// faults wants gigabytes, and minutes to give them out.
const SHARE: usize = 256 << 20;
/// From so many reclaimed pages in one step on, something is given back: one that is always reclaiming does nothing else.
const MANY: u64 = 512;
/// A step that takes longer is stuck in reclaim, and so may be everybody else: it is ended, with all that was taken.
const PATIENCE_MS: u16 = 20_000;

/// Memory pressure, as long as this lives.
#[derive(Debug)]
pub struct Pressure {
    process: Process,
    /// What is never given back. It is freed behind the process.
    _locked: Vec<u8>,
    /// How much the kernel had reclaimed before all this, and up to the last step.
    before: u64,
    last: u64,
    kills: usize,
}

impl Pressure {
    /// Takes most of the memory.
    pub fn new() -> Result<Self> {
        let before = reclaimed()?;
        let locked = locked(available()?.saturating_sub(LEFT + SHARE))?;
        Ok(Self {
            process: Process::start()?,
            _locked: locked,
            before,
            last: before,
            kills: 0,
        })
    }

    /// Takes some more, gives some back, or writes some of it again, by what the kernel has reclaimed since the last step.
    /// If the process was killed, all begins anew.
    pub fn step(&mut self) -> Result<()> {
        let reclaimed = reclaimed()?;
        let order = match reclaimed.saturating_sub(self.last) {
            0 => order::TAKE,
            MANY.. => order::GIVE,
            _ => order::WRITE,
        };
        self.last = reclaimed;
        self.order(order)
    }

    /// Gives some back, whatever was reclaimed: for when nothing else goes on.
    pub fn relieve(&mut self) -> Result<()> {
        self.order(order::GIVE)
    }

    fn order(&mut self, order: u8) -> Result<()> {
        if !self.process.obeys(order)? {
            self.process.ensure_killed()?;
            self.kills += 1;
            self.process = Process::start()?;
        }
        Ok(())
    }

    /// How many pages the kernel has reclaimed since this began.
    pub fn reclaimed(&self) -> Result<u64> {
        Ok(reclaimed()?.saturating_sub(self.before))
    }

    /// How often the process was killed, by the OOM killer or because it was stuck.
    pub fn kills(&self) -> usize {
        self.kills
    }
}

/// Pages that the kernel has reclaimed because memory was short: not what somebody wanted to have swapped out.
fn reclaimed() -> Result<u64> {
    let count = |word| number_in("/proc/vmstat", word);
    Ok((count("pgsteal_kswapd")? + count("pgsteal_direct")?).try_into()?)
}

fn available() -> Result<usize> {
    let kib: usize = number_in("/proc/meminfo", "MemAvailable:")?.try_into()?;
    Ok(kib << 10)
}

/// So much memory of this process, none of which can be reclaimed.
fn locked(len: usize) -> Result<Vec<u8>> {
    let memory = vec![0; len];
    // SAFETY: memory of ours, whose contents stay as they are.
    let done = unsafe { libc::mlock(memory.as_ptr().cast(), len) };
    Errno::result(done).context("locking memory")?;
    Ok(memory)
}

/// What the process is told to do, by a byte. It answers by the same when it has.
mod order {
    /// Take another slice.
    pub const TAKE: u8 = b't';
    /// Write to a sixteenth of the slices, the next time to the ones behind.
    pub const WRITE: u8 = b'w';
    /// Give a slice back.
    pub const GIVE: u8 = b'g';
}

#[derive(Debug)]
struct Process {
    child: Child,
    orders: ChildStdin,
    answers: ChildStdout,
}

impl Process {
    /// Starts one and lets it take most of what is available.
    fn start() -> Result<Self> {
        let mut child = Command::new("/init")
            .arg("pressure")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting the process that takes memory")?;
        let pipes = child.stdin.take().zip(child.stdout.take());
        let (orders, answers) = pipes.context("no pipes")?;
        let mut process = Self {
            child,
            orders,
            answers,
        };
        for _ in 0..available()?.saturating_sub(LEFT) / SLICE {
            if !process.obeys(order::TAKE)? {
                // The next step finds out why.
                break;
            }
        }
        Ok(process)
    }

    /// Returns when the order is carried out; false if the process has been killed meanwhile.
    fn obeys(&mut self, order: u8) -> Result<bool> {
        if self.orders.write_all(&[order]).is_err() {
            return Ok(false);
        }
        let mut fds = [PollFd::new(self.answers.as_fd(), PollFlags::POLLIN)];
        if poll(&mut fds, PollTimeout::from(PATIENCE_MS))? == 0 {
            self.child.kill()?;
        }
        Ok(self.answers.read_exact(&mut [0]).is_ok())
    }

    fn ensure_killed(&mut self) -> Result<()> {
        let end = self.child.wait()?;
        ensure!(
            end.signal() == Some(Signal::SIGKILL as i32),
            "the process that takes memory ended: {end}"
        );
        Ok(())
    }
}

impl Drop for Process {
    /// When this returns, its memory is free.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The program.
pub fn run() -> Result<()> {
    // Before there is anything to kill it for.
    std::fs::write("/proc/self/oom_score_adj", "1000")?;
    // By which it is known in the log.
    std::fs::write("/proc/self/comm", "pressure")?;
    let mut memory: Vec<Vec<u8>> = Vec::new();
    let mut next = 0;
    let (orders, mut answers) = (std::io::stdin().lock(), std::io::stdout());
    for order in orders.bytes() {
        let order = order?;
        match order {
            order::TAKE => {
                let mut slice = vec![0; SLICE];
                write(&mut slice);
                memory.push(slice);
            }
            order::WRITE => {
                for _ in 0..memory.len().div_ceil(16) {
                    next = (next + 1) % memory.len();
                    write(&mut memory[next]);
                }
            }
            order::GIVE => drop(memory.pop()),
            _ => bail!("what is {order}?"),
        }
        answers.write_all(&[order])?;
        answers.flush()?;
    }
    Ok(())
}

/// Writes to each page, but little, which takes little room in compressed memory.
fn write(slice: &mut [u8]) {
    for page in slice.chunks_mut(PAGE) {
        let byte = &mut std::hint::black_box(page)[0];
        *byte = byte.wrapping_add(1).max(1);
    }
}

// SPDX-License-Identifier: GPL-2.0

//! What a test case has at hand.

use crate::cmdline::Words;
use crate::init::{leaks, orchestrator};
use crate::kmsg::Log;
use crate::procfs::number_in;
use crate::test::Ended;
use crate::{kexec, kmsg, report};
use anyhow::{bail, Context, Result};
use liveupdate::Device;
use luo_vm_protocol::{Event, Orchestrator, Outcome, Plan, MARK_END};
use std::any::Any;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What a test case has at hand: its stage, the kernel's log since it began, and ways to look around.
pub struct Ctx {
    test: String,
    timeout_s: u32,
    words: Words,
    plan: Plan,
    log: Log,
    kept: Vec<Box<dyn Any>>,
    baggage: Vec<u8>,
    goes_on: bool,
}

impl Ctx {
    pub(crate) fn new(test: &str, timeout_s: u32, words: Words, plan: Plan) -> Result<Self> {
        Ok(Self {
            test: test.into(),
            timeout_s,
            words,
            plan,
            log: Log::from_now()?,
            kept: Vec::new(),
            baggage: Vec::new(),
            goes_on: false,
        })
    }

    /// Which kernel this is, from 1.
    pub fn stage(&self) -> usize {
        self.words.stage
    }

    /// The orchestrator of this kernel.
    pub fn orchestrator(&self) -> Orchestrator {
        let stage = self.plan.stage(self.words.stage);
        stage.map_or(Orchestrator::None, |stage| stage.orchestrator)
    }

    /// Where what is random begins: the same seed, the same choices. Name it in the error.
    pub fn seed(&self) -> u64 {
        self.plan.seed
    }

    /// How much is to be done, of what can be done more or less of; so much if nobody has said it.
    pub fn amount(&self, default: u64) -> u64 {
        self.plan.amount.unwrap_or(default)
    }

    /// What is to be done, and nothing else: what the test told when it had failed, for this.
    pub fn steps(&self) -> Option<&str> {
        self.plan.steps.as_deref()
    }

    /// Says that another kernel is to follow, in which this stage runs again: for [`Test::repeated`].
    ///
    /// [`Test::repeated`]: crate::test::Test::repeated
    pub fn go_on(&mut self) {
        self.goes_on = true;
    }

    pub(crate) fn goes_on(&self) -> bool {
        self.goes_on
    }

    /// Opens `/dev/liveupdate`. Only one may have it open: drop it soon.
    pub fn device(&self) -> Result<Device> {
        Ok(Device::open()?)
    }

    /// Holds a value until this kernel ends: a session that shall go through the kexec after this stage.
    pub fn keep<T: 'static>(&mut self, value: T) {
        self.kept.push(Box::new(value));
    }

    /// Stores a small string for the later stages. It travels on the kernel command line: keep it under 200 bytes.
    pub fn set(&mut self, key: &str, value: impl ToString) {
        self.words.carry.insert(key.into(), value.to_string());
    }

    /// A string that an earlier stage stored.
    pub fn get(&self, key: &str) -> Result<&str> {
        let value = self.words.carry.get(key);
        Ok(value.with_context(|| format!("no earlier stage stored {key:?}"))?)
    }

    /// Gives bytes to the next kernel, as many as there are: they travel as a file of its initramfs, and so arrive
    /// whatever becomes of what is tested.
    pub fn set_baggage(&mut self, bytes: Vec<u8>) {
        self.baggage = bytes;
    }

    /// What the previous stage gave to this one; `None` if that was nothing.
    pub fn baggage(&self) -> Result<Option<Vec<u8>>> {
        kexec::baggage()
    }

    /// The kernel log since the stage began.
    pub fn log(&mut self) -> &mut Log {
        &mut self.log
    }

    /// Ends the test as skipped: `return ctx.skip("needs a TPM");`
    pub fn skip(&self, why: &str) -> Result<()> {
        Err(Ended(Outcome::Skipped(why.into())).into())
    }

    /// Inserts `luo.ko`. Needs `Orchestrator::None`: else it is in already.
    pub fn insmod(&self, params: &str) -> Result<()> {
        orchestrator::insert(params)
    }

    /// Removes `luo.ko`.
    pub fn rmmod(&self) -> Result<()> {
        orchestrator::remove()
    }

    /// Loads the next kernel and jumps: for a test that has something to do right at the jump, or expects it to fail.
    /// Returns only when it failed. (At the end of a stage the framework does this by itself.)
    pub fn kexec(&mut self) -> Result<Infallible> {
        self.kexec_load()?;
        self.jump(|| Err(anyhow::Error::from(kexec::execute())))
            .context("reboot(LINUX_REBOOT_CMD_KEXEC)")
    }

    /// The same, with somebody else who calls reboot(): `jump` makes them, and returns why they did not.
    pub fn kexec_by(&mut self, jump: impl FnOnce() -> anyhow::Error) -> Result<Infallible> {
        self.kexec_load()?;
        self.jump(|| Err(jump()))
    }

    /// Lets `execute` start the loaded kernel. Returns only when that failed.
    pub fn jump<T>(&mut self, execute: impl FnOnce() -> Result<T>) -> Result<T> {
        report::send(&Event::Jump {
            stage: self.words.stage + 1,
        });
        let result = execute();
        // The harness waits for a kernel now, and not for long.
        report::send(&Event::Start {
            test: self.test.clone(),
            timeout_s: self.timeout_s,
        });
        result
    }

    /// Loads the next kernel, without jumping.
    pub fn kexec_load(&self) -> Result<()> {
        kexec::load(&self.next_cmdline()?, &self.baggage)
    }

    /// What the next kernel is to be started with.
    pub fn next_cmdline(&self) -> Result<String> {
        let next = Words {
            stage: self.words.stage + 1,
            carry: self.words.carry.clone(),
        };
        // A test of one stage may load a kernel too; it is never started.
        let stage = self.plan.stage(next.stage);
        let stage = stage.context("a plan without a stage")?;
        Ok(format!("{} {}", stage.cmdline, next.to_cmdline()))
    }

    /// Looks for leaks in this kernel, as is done by itself at the end of the last one. Its `Config` has to say so, too.
    pub fn look_for_leaks(&self) -> Result<()> {
        leaks::report()
    }

    /// Reports a case inside this test, counted by its own name.
    pub fn report_case(&self, name: &str, outcome: Outcome, took: Duration) {
        let ms = took.as_millis() as u64;
        // The harness waits for this mark before it believes that the console holds all of the case.
        kmsg::write(&format!("{MARK_END}{name}"));
        report::send(&Event::Result {
            test: name.into(),
            outcome,
            ms,
        });
    }

    /// Has the harness end this VM, and the test fail: for what is found out once this kernel goes anyway.
    pub fn give_up(&self, why: &str) {
        report::send(&Event::Note { text: why.into() });
    }

    /// Shows a figure that this test found.
    pub fn figure(&self, text: &str) {
        report::send(&Event::Figure { text: text.into() });
    }

    /// KHO's folder in debugfs.
    pub fn kho_debugfs(&self) -> PathBuf {
        Path::new("/sys/kernel/debug/kho").into()
    }

    /// A line of `/proc/meminfo`, in KiB: `meminfo_kib("Shmem")`.
    pub fn meminfo_kib(&self, key: &str) -> Result<u64> {
        let kib = number_in("/proc/meminfo", &format!("{key}:"))?;
        Ok(kib.try_into()?)
    }

    /// Free memory in KiB, with the pages that each CPU has at hand: MemFree knows nothing of these, and they come and
    /// go by megabytes.
    pub fn free_kib(&self) -> Result<u64> {
        let zones = std::fs::read_to_string("/proc/zoneinfo")?;
        let counts = zones
            .lines()
            .filter_map(|line| line.trim().strip_prefix("count:"));
        let at_hand: u64 = counts.filter_map(|n| n.trim().parse::<u64>().ok()).sum();
        Ok(self.meminfo_kib("MemFree")? + at_hand * 4)
    }

    /// Waits until `done` says so; an error when that takes longer than `timeout`.
    pub fn wait_for(
        &self,
        what: &str,
        timeout: Duration,
        mut done: impl FnMut() -> bool,
    ) -> Result<()> {
        let deadline = Instant::now() + timeout;
        while !done() {
            if Instant::now() > deadline {
                bail!(
                    "{}: not within {} ms: {what}",
                    self.test,
                    timeout.as_millis()
                );
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }
}

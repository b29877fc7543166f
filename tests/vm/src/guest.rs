// SPDX-License-Identifier: GPL-2.0

//! A virtual machine in the VM, run by samples/vmm, and what it says on its console.
//!
//! The console is a memfd, which is preserved like the guest: a kernel later it goes on at the byte where it was.

use crate::kexec;
use crate::test::Ended;
use anyhow::{anyhow, bail, ensure, Context, Result};
use liveupdate::{Device, OutgoingSession};
use luo_vm_protocol::{Outcome, DISK_KERNEL, NESTED_FOLDER};
use nix::kmod::{finit_module, ModuleInitFlags};
use nix::sys::memfd::{memfd_create, MFdFlags};
use std::fs::File;
use std::io::Seek;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Name of the guest's session.
pub const SESSION: &str = "guest";
/// Under which the VMM preserves the guest's memory.
pub const RAM_TOKEN: u64 = 1;
/// Under which it preserves the rest.
pub const STATE_TOKEN: u64 = 2;

const KVM: &str = "/dev/kvm";
const SOCKET: &str = "/run/guest.sock";
const LOG: &str = "/run/guest.log";
/// Emulated within an emulation, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(300);
/// Its memory. The kernel of `make check-debug` takes 80 MiB of it before its first line, and an eighth of all for KASAN.
const MEMORY_MIB: &str = "256";
/// The console's name in its session, and its size: some thousand lines.
const CONSOLE: &str = "console";
const CONSOLE_SIZE: u64 = 1 << 20;

/// The guest's command line: no devices to look for, and not a word that is not needed, for each goes through two
/// emulators. `noxsave`: QEMU 7.2's emulated processor sets XCR0 without asking the hypervisor, which then believes the
/// wrong thing about it.
const CMDLINE: &str =
    "console=ttyS0 quiet reboot=t panic=-1 pci=off no_timer_check tsc=nowatchdog noxsave";

/// Whether the processor of this VM can run virtual machines.
pub fn is_possible() -> Result<bool> {
    let cpu = std::fs::read_to_string("/proc/cpuinfo")?;
    Ok(cpu.contains(" svm") || cpu.contains(" vmx"))
}

/// Loads KVM, unless it is there.
pub fn insert_kvm() -> Result<()> {
    if Path::new(KVM).exists() {
        return Ok(());
    }
    let cpu = std::fs::read_to_string("/proc/cpuinfo")?;
    let kvm = if cpu.contains(" svm") {
        "kvm-amd"
    } else {
        "kvm-intel"
    };
    for name in ["irqbypass", "kvm", kvm] {
        let path = Path::new(NESTED_FOLDER).join(name).with_extension("ko");
        if !path.exists() {
            // Then it is built in.
            continue;
        }
        let file = File::open(&path).with_context(|| path.display().to_string())?;
        finit_module(&file, c"", ModuleInitFlags::empty())
            .with_context(|| format!("insmod {name}"))?;
    }
    ensure!(Path::new(KVM).exists(), "there is no {KVM}");
    Ok(())
}

/// A line that the guest says ten times a second.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Tick {
    /// Its number, from 1.
    pub count: u64,
    /// How many processors it has.
    pub processors: u64,
    /// How often a thread has gone through its memory.
    pub passes: u64,
    /// Words of memory that were wrong.
    pub wrong: u64,
    /// Milliseconds since the tick before, by the guest's clock.
    pub since_ms: u64,
}

impl Tick {
    fn parse(line: &str) -> Option<Self> {
        let rest = line.strip_prefix("guest: count ")?;
        let mut numbers = rest
            .split(|c: char| !c.is_ascii_digit())
            .filter_map(|n| n.parse().ok());
        let mut next = || numbers.next();
        Some(Self {
            count: next()?,
            processors: next()?,
            passes: next()?,
            wrong: next()?,
            since_ms: next()?,
        })
    }
}

/// What the guest says.
#[derive(Debug)]
pub struct Console(File);

impl Console {
    /// An empty one.
    pub fn new() -> Result<Self> {
        let file = File::from(memfd_create(CONSOLE, MFdFlags::MFD_CLOEXEC)?);
        // As large as it may become: it cannot grow while it is preserved.
        file.set_len(CONSOLE_SIZE)?;
        Ok(Self(file))
    }

    /// The one that the previous kernel handed on.
    pub fn retrieve() -> Result<Self> {
        let session = Device::open()?.retrieve_session(CONSOLE)?;
        let file = File::from(session.retrieve(0)?);
        session.finish()?;
        Ok(Self(file))
    }

    /// Hands it on.
    pub fn preserve(&self) -> Result<OutgoingSession> {
        let session = Device::open()?.create_session(CONSOLE)?;
        session.preserve(&self.0, 0)?;
        Ok(session)
    }

    /// All that was said.
    pub fn text(&self) -> Result<String> {
        // The VMM writes at the position that it shares with this descriptor.
        let len = (&self.0).stream_position()?;
        let mut bytes = vec![0; usize::try_from(len)?];
        self.0.read_exact_at(&mut bytes, 0)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Every tick so far. Fails unless each comes once, in order, and finds its memory right; or if the guest booted
    /// twice.
    pub fn ticks(&self) -> Result<Vec<Tick>> {
        let text = self.text()?;
        // What follows the last line's end is not complete.
        let complete = text.rsplit_once('\n').map_or("", |(complete, _)| complete);
        let lines = complete.lines().map(str::trim_end);
        let ticks: Vec<_> = lines.clone().filter_map(Tick::parse).collect();
        let boots = lines.filter(|line| *line == "guest: up").count();
        ensure!(boots <= 1, "the guest has booted {boots} times: {text}");
        for (tick, count) in ticks.iter().zip(1..) {
            ensure!(
                tick.count == count,
                "tick {} instead of {count}: {text}",
                tick.count
            );
            ensure!(tick.wrong == 0, "the guest's memory is wrong: {tick:?}");
        }
        Ok(ticks)
    }
}

/// The VMM's process, and the guest in it. Dropping it kills both.
#[derive(Debug)]
pub struct Guest {
    vmm: Child,
    /// What it says.
    pub console: Console,
}

impl Guest {
    /// Boots one with so many processors, and waits until it counts.
    pub fn boot(cpus: u64) -> Result<Self> {
        let mut guest = Self::start(Console::new()?, cpus)?;
        let first = guest.next_tick()?;
        ensure!(
            first.processors == cpus,
            "a guest of {cpus} processors has {}",
            first.processors
        );
        Ok(guest)
    }

    /// Starts one, without waiting for anything but the VMM to take commands.
    pub fn start(console: Console, cpus: u64) -> Result<Self> {
        let mut command = vmm("run");
        command
            .args(["--session", SESSION, "--append", CMDLINE])
            .args(["--cpus", &cpus.to_string(), "--memory", MEMORY_MIB])
            .arg("--kernel")
            .arg(kexec::disk(DISK_KERNEL)?)
            .arg("--initramfs")
            .arg(Path::new(NESTED_FOLDER).join("initramfs"));
        Self::spawn(command, console)
    }

    /// Goes on with the guest that the previous kernel handed on, in the session of that name.
    pub fn resume(console: Console) -> Result<Self> {
        let mut command = vmm("resume");
        command.args(["--session", SESSION]);
        Self::spawn(command, console)
    }

    /// The same, by a session that this process keeps.
    pub fn resume_in(console: Console, session: BorrowedFd) -> Result<Self> {
        let mut command = vmm("resume");
        // A copy without the flag that would close it in the VMM.
        let inherited = nix::unistd::dup(session)?;
        command.args(["--session-fd", &inherited.as_raw_fd().to_string()]);
        Self::spawn(command, console)
    }

    fn spawn(mut command: Command, console: Console) -> Result<Self> {
        command
            .stdin(Stdio::null())
            // The same open file, for its position goes on, too.
            .stdout(console.0.try_clone()?)
            .stderr(File::create(LOG)?);
        let vmm = command.spawn().context("starting the VMM")?;
        Ok(Self { vmm, console })
    }

    /// Waits until it has counted on.
    pub fn next_tick(&mut self) -> Result<Tick> {
        let seen = self.console.ticks()?.len();
        self.wait_for_tick(seen as u64 + 1)
    }

    /// Waits until it has counted so far.
    pub fn wait_for_tick(&mut self, count: u64) -> Result<Tick> {
        self.until(&format!("tick {count} of the guest"), |guest| {
            let ticks = guest.console.ticks()?;
            Ok(ticks.get(count as usize - 1).copied())
        })
    }

    /// Waits until the VMM has said this. The host's time stamp counter when it did.
    pub fn wait_for_log(&mut self, text: &str) -> Result<u64> {
        self.until(&format!("{text:?} of the VMM"), |guest| guest.logged(text))
    }

    /// When the VMM has said this, if it has.
    pub fn logged(&self, text: &str) -> Result<Option<u64>> {
        let log = std::fs::read_to_string(LOG)?;
        // "vmm: [TSC] text"
        let line = log.lines().rfind(|line| line.contains(text));
        let tsc = line.and_then(|line| line.split_once('[')?.1.split_once(']')?.0.parse().ok());
        Ok(tsc)
    }

    /// Waits until the VMM takes commands.
    pub fn wait_for_socket(&mut self) -> Result<()> {
        self.until("the VMM's socket", |guest| Ok(guest.send("status").ok()))
            .map(drop)
    }

    /// Waits until `look` finds something, in vain if the VMM ends.
    fn until<T>(
        &mut self,
        what: &str,
        mut look: impl FnMut(&Self) -> Result<Option<T>>,
    ) -> Result<T> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let ended = self.vmm.try_wait()?.is_some();
            if let Some(found) = look(self)? {
                return Ok(found);
            }
            if ended {
                return Err(self.over(&format!("the VMM has ended before {what}"), false));
            }
            if Instant::now() >= deadline {
                return Err(self.over(&format!("waited in vain for {what}"), true));
            }
            // Not more often: to look takes the processor from the guest.
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Why there is nothing to wait for any more.
    ///
    /// In doubt is a guest that stops, or that a triple fault resets, without a word: those of QEMU's emulated
    /// processors were seen to, at any time after they were started. A kernel that finds its memory wrong panics.
    fn over(&self, why: &str, hangs: bool) -> anyhow::Error {
        let why = format!("{why}: {}", self.story());
        match self.console.text() {
            Ok(text) if (hangs || self.has_reset()) && !text.contains("Kernel panic") => {
                Ended(Outcome::Doubtful(why)).into()
            }
            _ => anyhow!(why),
        }
    }

    fn has_reset(&self) -> bool {
        matches!(self.logged("the guest has reset itself"), Ok(Some(_)))
    }

    /// Gives the VMM a command. Its answer, or the error that it names.
    pub fn send(&self, command: &str) -> Result<String> {
        let Output {
            status,
            stdout,
            stderr,
        } = vmm("send").arg(command).output()?;
        match status.success() {
            true => Ok(String::from_utf8(stdout)?.trim().into()),
            // Nobody was there to answer.
            false if self.has_reset() => Err(self.over(&format!("sending {command:?}"), false)),
            false => bail!("{}", String::from_utf8_lossy(&stderr).trim()),
        }
    }

    /// Waits for the VMM's end, which is to be a failure. What it said.
    pub fn failure(&mut self) -> Result<String> {
        let status = self.vmm.wait()?;
        ensure!(!status.success(), "the VMM ended well: {}", self.story());
        Ok(std::fs::read_to_string(LOG)?)
    }

    /// SIGKILL to the VMM; when this returns, its files are closed.
    pub fn kill(mut self) -> Result<()> {
        self.vmm.kill()?;
        self.vmm.wait()?;
        Ok(())
    }

    /// For how many milliseconds the guest stood still the last time, as the VMM says.
    pub fn stood_still_ms(&self) -> Result<u64> {
        let log = std::fs::read_to_string(LOG)?;
        let (_, rest) = log
            .rsplit_once("stood still for ")
            .with_context(|| self.story())?;
        Ok(rest.split(' ').next().unwrap_or_default().parse()?)
    }

    /// What the VMM said, and the end of what the guest said: for messages.
    fn story(&self) -> String {
        let log = std::fs::read_to_string(LOG).unwrap_or_default();
        let text = self.console.text().unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        let tail = lines[lines.len().saturating_sub(5)..].join(" / ");
        format!("the VMM says {log:?}, the guest {tail:?}")
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.vmm.kill();
        let _ = self.vmm.wait();
    }
}

fn vmm(what: &str) -> Command {
    let mut command = Command::new(Path::new(NESTED_FOLDER).join("vmm"));
    command.args([what, "--socket", SOCKET]);
    command
}

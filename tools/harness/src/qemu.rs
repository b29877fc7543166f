// SPDX-License-Identifier: GPL-2.0

//! One QEMU: what it is started with, and its process.

use anyhow::{Context, Result};
use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use luo_vm_protocol::{Event, DISK_DATA, DISK_INITRAMFS, DISK_KERNEL};

/// What executes the VM's instructions.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub enum Accel {
    /// The processor.
    Kvm,
    /// QEMU's translator, everywhere at hand.
    Tcg,
    /// The same with a clock that counts instructions, one a nanosecond, whatever else the host does. One CPU, no disks
    /// for a kexec.
    Icount,
}

impl fmt::Display for Accel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
            Self::Icount => "icount",
        })
    }
}

/// How a VM ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum End {
    /// By itself: it powered off, or was reset.
    PowerOff,
    /// By a signal that QEMU got for what it did itself.
    Crash(i32),
    /// Because it was ended.
    Ended,
}

/// The machine and what it boots.
#[derive(Debug)]
pub struct Machine<'a> {
    /// What executes it.
    pub accel: Accel,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// Number of virtual CPUs.
    pub cpus: u32,
    /// The kernel image, also of all later kernels.
    pub kernel: &'a Path,
    /// The initramfs, also of all later kernels.
    pub initramfs: &'a Path,
    /// A disk with the demo's data.
    pub data: Option<&'a Path>,
    /// A disk with a root file system. What is written to it is gone with the VM.
    pub root: Option<&'a Path>,
    /// The first kernel's command line.
    pub cmdline: &'a str,
    /// Folder for the logs: `console.log`, `events.log`, `qemu.log`.
    pub logs: &'a Path,
}

/// A running QEMU. It does not outlive this value.
#[derive(Debug)]
pub struct Qemu {
    child: Child,
    lines: Receiver<(Instant, String)>,
    console: PathBuf,
}

/// What came from the VM, or why nothing did.
#[derive(Debug)]
pub enum Heard {
    /// An event, and when it came.
    Event(Event, Instant),
    /// Nothing in the given time.
    Silence,
    /// QEMU ended.
    End,
}

impl Qemu {
    /// Starts it.
    pub fn start(machine: &Machine) -> Result<Self> {
        let console = machine.logs.join("console.log");
        // It may be read before QEMU makes it.
        File::create(&console).with_context(|| console.display().to_string())?;
        let mut child = command(machine, &console)?
            .spawn()
            .context("starting qemu-system-x86_64")?;
        let report = child
            .stdout
            .take()
            .expect("standard output was set to be a pipe");
        let mut log = File::create(machine.logs.join("events.log"))?;
        let (sender, lines) = std::sync::mpsc::channel();
        // Ends with QEMU, whose end of the pipe it reads.
        std::thread::spawn(move || {
            for line in BufReader::new(report).lines().map_while(Result::ok) {
                let _ = std::io::Write::write_all(&mut log, format!("{line}\n").as_bytes());
                if sender.send((Instant::now(), line)).is_err() {
                    break;
                }
            }
        });
        Ok(Self {
            child,
            lines,
            console,
        })
    }

    /// Waits for the next event.
    pub fn next(&mut self, timeout: Duration) -> Heard {
        loop {
            match self.lines.recv_timeout(timeout) {
                Ok((at, line)) => {
                    if let Some(event) = Event::from_line(&line) {
                        return Heard::Event(event, at);
                    }
                }
                Err(RecvTimeoutError::Timeout) => return Heard::Silence,
                Err(RecvTimeoutError::Disconnected) => return Heard::End,
            }
        }
    }

    /// Where the kernels' console output is gathered.
    pub fn console(&self) -> &Path {
        &self.console
    }

    /// Gives it a moment to end by itself, then ends it.
    pub fn stop(&mut self) -> End {
        for _ in 0..100 {
            if let Ok(Some(status)) = self.child.try_wait() {
                return match status.signal() {
                    Some(signal) => End::Crash(signal),
                    None => End::PowerOff,
                };
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        End::Ended
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(machine: &Machine, console: &Path) -> Result<Command> {
    let (accel, cpu) = match machine.accel {
        Accel::Kvm => ("kvm", "host"),
        Accel::Tcg => ("tcg", "max"),
        // Without the string instructions that are fast in hardware: each byte of them would count as an instruction, and
        // clearing a page would cost more than all that the kernel does around it.
        Accel::Icount => ("tcg", "max,-erms,-fsrm"),
    };
    let mut command = Command::new("qemu-system-x86_64");
    command
        .args(["-nodefaults", "-display", "none", "-no-reboot", "-cpu", cpu])
        .args(["-accel", accel])
        .args([
            "-m",
            &format!("{}M", machine.memory_mib),
            "-smp",
            &machine.cpus.to_string(),
        ])
        .arg("-kernel")
        .arg(machine.kernel)
        .arg("-initrd")
        .arg(machine.initramfs)
        .args(["-append", machine.cmdline])
        .args([
            "-chardev",
            &format!("file,id=console,path={}", plain(console)?),
        ])
        .args(["-chardev", "stdio,id=report,signal=off"])
        .args(["-serial", "chardev:console", "-serial", "chardev:report"]);
    // To wait for a disk is to let the clock jump, where it counts instructions.
    let for_kexec = machine.accel != Accel::Icount;
    let disks = [
        (
            DISK_KERNEL,
            "readonly=on",
            for_kexec.then_some(machine.kernel),
        ),
        (
            DISK_INITRAMFS,
            "readonly=on",
            for_kexec.then_some(machine.initramfs),
        ),
        (DISK_DATA, "readonly=on", machine.data),
        ("luo-root", "snapshot=on", machine.root),
    ];
    for (serial, writing, file) in disks {
        let Some(file) = file else { continue };
        let file = plain(file)?;
        command
            .args([
                "-drive",
                &format!("if=none,id={serial},format=raw,{writing},file={file}"),
            ])
            .args([
                "-device",
                &format!("virtio-blk-pci,drive={serial},serial={serial}"),
            ]);
    }
    if machine.accel == Accel::Icount {
        command.args(["-icount", "shift=0,sleep=off"]);
        // Looking for a mouse takes the kernel half a second, which a kexec waits for.
        command.args(["-machine", "i8042=off"]);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    command.stderr(File::create(machine.logs.join("qemu.log"))?);
    // SAFETY: prctl is a plain system call, fit for the time between fork and exec.
    unsafe {
        command.pre_exec(|| {
            // When this harness is killed, its VMs must not go on.
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            Ok(())
        });
    }
    Ok(command)
}

/// A path as part of one of QEMU's option lists, where a comma is written twice.
fn plain(path: &Path) -> Result<String> {
    Ok(path
        .to_str()
        .context("a path that is not UTF-8")?
        .replace(',', ",,"))
}

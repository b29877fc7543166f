// SPDX-License-Identifier: GPL-2.0

//! The line to the harness: events on the second serial port.

use luo_vm_protocol::Event;
use nix::sys::termios;
use std::fs::{File, OpenOptions};
use std::io::Write;

const PORT: &str = "/dev/ttyS1";

/// Makes the port carry bytes as they are.
pub fn prepare() -> anyhow::Result<()> {
    let port = open()?;
    let mut settings = termios::tcgetattr(&port)?;
    termios::cfmakeraw(&mut settings);
    termios::tcsetattr(&port, termios::SetArg::TCSANOW, &settings)?;
    Ok(())
}

/// Sends an event and waits until it left the machine.
///
/// A report that cannot be sent is no reason to stop: the harness counts what it does not hear of as failed.
pub fn send(event: &Event) {
    let line = event.to_line() + "\n";
    let sent = open().and_then(|mut port| {
        port.write_all(line.as_bytes())?;
        termios::tcdrain(&port).map_err(Into::into)
    });
    if let Err(err) = sent {
        eprintln!("luo-vm: cannot report {line:?}: {err}");
    }
}

/// Reports that this kernel has booted.
pub fn boot(stage: usize) -> anyhow::Result<()> {
    let uptime = std::fs::read_to_string("/proc/uptime")?;
    let seconds: f64 = uptime.split(' ').next().unwrap_or_default().parse()?;
    send(&Event::Boot {
        stage,
        version: nix::sys::utsname::uname()?
            .version()
            .to_string_lossy()
            .into_owned(),
        boot_id: std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?
            .trim()
            .into(),
        uptime_ms: (seconds * 1000.0) as u64,
    });
    Ok(())
}

fn open() -> std::io::Result<File> {
    OpenOptions::new().read(true).write(true).open(PORT)
}

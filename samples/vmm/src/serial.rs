// SPDX-License-Identifier: GPL-2.0

//! What the guest finds at its I/O ports: a serial port, and nothing else.

use anyhow::{anyhow, Result};
use kvm_ioctls::VmFd;
use serde::{Deserialize, Serialize};
use std::io::{Stdout, Write};
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use vm_superio::serial::{NoEvents, SerialState};
use vm_superio::{Serial, Trigger};

const PORTS: RangeInclusive<u16> = 0x3f8..=0x3ff;
const INTERRUPT: u32 = 4;
/// The data port of a clock that is not there. Read as all ones it would be one that is busy, and be waited for.
const CMOS_DATA: u16 = 0x71;
/// What nobody answers reads as this.
const FLOATING: u8 = 0xff;

type Port = Serial<Line, NoEvents, Listener>;

/// The serial port, for any of the guest's processors. What the guest says goes to standard output.
#[derive(Clone)]
pub struct Ports(Arc<Mutex<Port>>);

/// What of it has to be carried over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PortsState(#[serde(with = "SerialStateDef")] SerialState);

impl PortsState {
    /// As it is when the machine is switched on.
    pub fn new() -> Self {
        Self(SerialState::default())
    }
}

impl Ports {
    /// The port of this VM, in this state.
    pub fn new(vm: Arc<VmFd>, state: &PortsState) -> Result<Self> {
        let port = Serial::from_state(&state.0, Line(vm), NoEvents, Listener(std::io::stdout()))
            .map_err(|err| anyhow!("the state of the serial port: {err:?}"))?;
        Ok(Self(Arc::new(Mutex::new(port))))
    }

    /// Its state; the guest's processors stand still.
    pub fn state(&self) -> PortsState {
        PortsState(self.lock().state())
    }

    /// The guest reads from a port.
    pub fn read(&self, port: u16, data: &mut [u8]) {
        data.fill(FLOATING);
        match (port, data) {
            (port, [byte]) if PORTS.contains(&port) => {
                *byte = self.lock().read((port - PORTS.start()) as u8)
            }
            (CMOS_DATA, [byte]) => *byte = 0,
            _ => {}
        }
    }

    /// The guest writes to a port.
    pub fn write(&self, port: u16, data: &[u8]) -> Result<()> {
        match data {
            &[byte] if PORTS.contains(&port) => {
                let result = self.lock().write((port - PORTS.start()) as u8, byte);
                result.map_err(|err| anyhow!("the serial port: {err:?}"))
            }
            _ => Ok(()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Port> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The other end of the line. Where nobody listens any more, what is said is lost, as it is on a wire.
struct Listener(Stdout);

impl Write for Listener {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let _ = self.0.write_all(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        let _ = self.0.flush();
        Ok(())
    }
}

/// Its interrupt line. Raised by a system call and not by an eventfd: what is raised is then in the interrupt
/// controllers' state at once, and not lost when that is saved.
struct Line(Arc<VmFd>);

impl Trigger for Line {
    type E = kvm_ioctls::Error;

    fn trigger(&self) -> Result<(), Self::E> {
        self.0.set_irq_line(INTERRUPT, true)?;
        self.0.set_irq_line(INTERRUPT, false)
    }
}

/// The fields of vm-superio's type, which serde does not know by itself.
#[derive(Serialize, Deserialize)]
#[serde(remote = "SerialState")]
struct SerialStateDef {
    baud_divisor_low: u8,
    baud_divisor_high: u8,
    interrupt_enable: u8,
    interrupt_identification: u8,
    line_control: u8,
    line_status: u8,
    modem_control: u8,
    modem_status: u8,
    scratch: u8,
    in_buffer: Vec<u8>,
}

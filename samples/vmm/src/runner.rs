// SPDX-License-Identifier: GPL-2.0

//! The thread that runs a virtual processor, and how it is told to stop and to go on.

use crate::kick::{self, Target};
use crate::log::log;
use crate::serial::Ports;
use crate::vcpu::VcpuState;
use anyhow::{bail, ensure, Context, Result};
use kvm_ioctls::{VcpuExit, VcpuFd};
use std::sync::mpsc::{Receiver, Sender, TryRecvError};
use std::sync::Arc;
use std::thread::JoinHandle;

/// Why a guest is over.
#[derive(Debug)]
pub enum End {
    /// It asked for a reset, as by reboot().
    Reset,
    /// It, or this VMM, did something wrong.
    Failed(anyhow::Error),
}

enum Order {
    Pause(Sender<()>),
    Save(Sender<Result<VcpuState>>),
    Run,
}

/// A processor's thread. It stands still at first.
#[derive(Debug)]
pub struct Runner {
    orders: Option<Sender<Order>>,
    thread: Option<JoinHandle<()>>,
}

impl Runner {
    /// Starts the thread. `on_end` is called when the guest is over.
    pub fn new(
        mut vcpu: VcpuFd,
        ports: Ports,
        msrs: Arc<[u32]>,
        on_end: impl FnOnce(End) + Send + 'static,
    ) -> Result<Self> {
        let (orders, receiver) = std::sync::mpsc::channel();
        let body = move || match serve(&mut vcpu, &ports, &msrs, &receiver) {
            Ok(Some(end)) => on_end(end),
            Ok(None) => {}
            Err(err) => on_end(End::Failed(err)),
        };
        let thread = std::thread::Builder::new()
            .name("vcpu".into())
            .spawn(body)?;
        Ok(Self {
            orders: Some(orders),
            thread: Some(thread),
        })
    }

    /// Fails if there is no thread any more. One that stands still does not end by itself.
    pub fn ensure_can_run(&self) -> Result<()> {
        let is_there = |thread: &JoinHandle<()>| !thread.is_finished();
        ensure!(
            self.thread.as_ref().is_some_and(is_there),
            "a vCPU's thread is gone"
        );
        Ok(())
    }

    /// Lets it run.
    pub fn run(&self) -> Result<()> {
        self.send(Order::Run)
    }

    /// Tells it to stand still. It does once the answer is there.
    pub fn pause(&self) -> Result<Receiver<()>> {
        let (sender, done) = std::sync::mpsc::channel();
        self.send(Order::Pause(sender))?;
        self.kick()?;
        Ok(done)
    }

    /// The state of one that stands still.
    pub fn save(&self) -> Result<VcpuState> {
        let (sender, state) = std::sync::mpsc::channel();
        self.send(Order::Save(sender))?;
        state.recv().context("a vCPU's thread is gone")?
    }

    fn send(&self, order: Order) -> Result<()> {
        let sent = self.orders.as_ref().map(|orders| orders.send(order));
        sent.and_then(Result::ok).context("a vCPU's thread is gone")
    }

    fn kick(&self) -> Result<()> {
        self.thread.as_ref().map_or(Ok(()), kick::kick)
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        // Without anyone to give orders the thread ends.
        self.orders = None;
        if self.kick().is_ok() {
            self.thread.take().map(JoinHandle::join);
        }
    }
}

/// The thread. `None` when nobody gives orders any more.
fn serve(
    vcpu: &mut VcpuFd,
    ports: &Ports,
    msrs: &[u32],
    orders: &Receiver<Order>,
) -> Result<Option<End>> {
    let run = &raw mut *vcpu.get_kvm_run();
    // SAFETY: what KVM_RUN answers by is mapped for as long as the vCPU is there, which is longer than this function.
    let _target = unsafe { Target::new(run) };
    let mut running = false;
    loop {
        // Whoever kicks has given an order before. Without one it was a kick too many, or another signal.
        let order = match running {
            true => orders.try_recv(),
            false => orders.recv().map_err(TryRecvError::from),
        };
        match order {
            Ok(Order::Run) => {
                running = true;
                // The guest's watchdogs are not to take the time that it stood still for a lockup. Without the clock of
                // KVM it cannot be told.
                let _ = vcpu.kvmclock_ctrl();
            }
            Ok(Order::Pause(answer)) => {
                running = false;
                // Who does not wait for the answer does not need it.
                let _ = answer.send(());
            }
            Ok(Order::Save(answer)) => drop(answer.send(VcpuState::save(vcpu, msrs))),
            Err(TryRecvError::Disconnected) => return Ok(None),
            Err(TryRecvError::Empty) => {
                if let Some(end) = run_until_kicked(vcpu, ports)? {
                    return Ok(Some(end));
                }
            }
        }
    }
}

/// Lets the guest run until a kick. KVM_RUN says EINTR only when what the guest had read or written before is complete.
fn run_until_kicked(vcpu: &mut VcpuFd, ports: &Ports) -> Result<Option<End>> {
    loop {
        match vcpu.run() {
            Ok(VcpuExit::IoIn(port, data)) => ports.read(port, data),
            Ok(VcpuExit::IoOut(port, data)) => ports.write(port, data)?,
            // A triple fault, which on a real machine resets it. Some kernels reboot by one, others find themselves in it.
            Ok(VcpuExit::Shutdown) => {
                log_registers(vcpu);
                return Ok(Some(End::Reset));
            }
            Ok(VcpuExit::MmioRead(_, data)) => data.fill(0xff),
            Ok(VcpuExit::MmioWrite(..)) => {}
            Ok(exit) => bail!("the guest has stopped: {exit:?}"),
            // A processor that waited to be started, and was.
            Err(err) if err.errno() == libc::EAGAIN => {}
            Err(err) if err.errno() == libc::EINTR => {
                vcpu.set_kvm_immediate_exit(0);
                return Ok(None);
            }
            Err(err) => return Err(err).context("KVM_RUN"),
        }
    }
}

/// Says where a processor was, for who wants to know why it went no further.
fn log_registers(vcpu: &VcpuFd) {
    let (Ok(regs), Ok(sregs), Ok(events)) =
        (vcpu.get_regs(), vcpu.get_sregs(), vcpu.get_vcpu_events())
    else {
        return;
    };
    log!(
        "a triple fault: rip {:#x}, rsp {:#x}, rflags {:#x}, cr0 {:#x}, cr2 {:#x}, cr3 {:#x}, cr4 {:#x}, \
         gdt {:#x}, idt {:#x}, exception {}, interrupt {}",
        regs.rip,
        regs.rsp,
        regs.rflags,
        sregs.cr0,
        sregs.cr2,
        sregs.cr3,
        sregs.cr4,
        sregs.gdt.base,
        sregs.idt.base,
        events.exception.nr,
        events.interrupt.nr,
    );
}

// SPDX-License-Identifier: GPL-2.0

//! A virtual machine: memory, processors, interrupt controllers, serial port; new, or built around what was before.

use crate::boot::{self, Image};
use crate::memory::GuestRam;
use crate::raw::Raw;
use crate::runner::{End, Runner};
use crate::serial::{Ports, PortsState};
use crate::tsc;
use crate::vcpu::{self, VcpuState};
use anyhow::{Context, Result};
use kvm_bindings::{
    kvm_clock_data, kvm_irqchip, kvm_pit_config, kvm_pit_state2, kvm_userspace_memory_region,
    KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE, KVM_MAX_CPUID_ENTRIES,
    KVM_PIT_SPEAKER_DUMMY,
};
use kvm_ioctls::{Kvm, VcpuFd, VmFd};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use vm_memory::{Address, GuestMemory, GuestMemoryRegion};

/// All of a virtual machine but its memory.
#[derive(Serialize, Deserialize)]
pub struct VmState {
    vcpus: Vec<VcpuState>,
    /// Two PICs and the I/O APIC.
    irqchips: Vec<Raw<kvm_irqchip>>,
    pit: Raw<kvm_pit_state2>,
    /// The guest's clock (that of KVM, on which others are built) in nanoseconds, and the host's time stamp counter
    /// when it was read.
    clock: u64,
    clock_at: u64,
    ports: PortsState,
    /// The host's time stamp counter when the guest was paused.
    paused_at: u64,
}

/// A virtual machine.
pub struct Vm {
    // Before what they use, for they are to end first.
    runners: Vec<Runner>,
    ports: Ports,
    fd: Arc<VmFd>,
    /// Its memory.
    pub ram: GuestRam,
}

/// Called, by any processor's thread, when the guest is over.
pub type OnEnd = Arc<dyn Fn(End) + Send + Sync>;

impl Vm {
    /// A new one, about to start this kernel. It stands still.
    pub fn boot(kvm: &Kvm, ram: GuestRam, image: &Image, cpus: u8, on_end: &OnEnd) -> Result<Self> {
        let entry = boot::load(&ram.map, image, cpus)?;
        let fd = create(kvm, &ram)?;
        let supported = kvm
            .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
            .context("KVM_GET_SUPPORTED_CPUID")?;
        let mut vcpus = Vec::new();
        for id in 0..cpus {
            let vcpu = fd.create_vcpu(id.into()).context("KVM_CREATE_VCPU")?;
            vcpu.set_cpuid2(&vcpu::new_cpuid(&supported, id))
                .context("KVM_SET_CPUID2")?;
            if id == 0 {
                // The others wait until the kernel starts them.
                vcpu.set_regs(&boot::registers(entry))
                    .context("KVM_SET_REGS")?;
                let reset = vcpu.get_sregs().context("KVM_GET_SREGS")?;
                vcpu.set_sregs(&boot::system_registers(reset))
                    .context("KVM_SET_SREGS")?;
            }
            vcpus.push(vcpu);
        }
        let ports = Ports::new(fd.clone(), &PortsState::new())?;
        Self::assemble(kvm, fd, ram, vcpus, ports, on_end)
    }

    /// The one that was, around the memory that it had. It stands still.
    pub fn restore(kvm: &Kvm, ram: GuestRam, state: &VmState, on_end: &OnEnd) -> Result<Self> {
        let fd = create(kvm, &ram)?;
        let mut vcpus = Vec::new();
        for (id, state) in (0..).zip(&state.vcpus) {
            let vcpu = fd.create_vcpu(id).context("KVM_CREATE_VCPU")?;
            state.restore(&vcpu).with_context(|| format!("vCPU {id}"))?;
            vcpus.push(vcpu);
        }
        let ports = Ports::new(fd.clone(), &state.ports)?;
        // After the serial port, whose interrupts are in it already.
        for irqchip in &state.irqchips {
            fd.set_irqchip(&irqchip.0).context("KVM_SET_IRQCHIP")?;
        }
        fd.set_pit2(&state.pit.0).context("KVM_SET_PIT2")?;
        fd.set_clock(&clock_now(state)).context("KVM_SET_CLOCK")?;
        Self::assemble(kvm, fd, ram, vcpus, ports, on_end)
    }

    fn assemble(
        kvm: &Kvm,
        fd: Arc<VmFd>,
        ram: GuestRam,
        vcpus: Vec<VcpuFd>,
        ports: Ports,
        on_end: &OnEnd,
    ) -> Result<Self> {
        let msrs: Arc<[u32]> = kvm
            .get_msr_index_list()
            .context("KVM_GET_MSR_INDEX_LIST")?
            .as_slice()
            .into();
        let runner = |vcpu| {
            let on_end = on_end.clone();
            Runner::new(vcpu, ports.clone(), msrs.clone(), move |end| on_end(end))
        };
        let runners = vcpus.into_iter().map(runner).collect::<Result<_>>()?;
        Ok(Self {
            runners,
            ports,
            fd,
            ram,
        })
    }

    /// Fails if [`Self::run`] would, with nothing done. For one that stands still.
    pub fn ensure_can_run(&self) -> Result<()> {
        self.runners.iter().try_for_each(Runner::ensure_can_run)
    }

    /// Lets it run. A part of it may have when this fails.
    pub fn run(&self) -> Result<()> {
        self.runners.iter().try_for_each(Runner::run)
    }

    /// Lets it stand still. It does when this returns.
    pub fn pause(&self) -> Result<()> {
        // All at once: each waits for an exit from the guest.
        let pending: Vec<_> = self
            .runners
            .iter()
            .map(Runner::pause)
            .collect::<Result<_>>()?;
        for done in pending {
            done.recv().context("a vCPU's thread is gone")?;
        }
        Ok(())
    }

    /// Its state; it stands still since the host's counter was at `paused_at`.
    pub fn save(&self, paused_at: u64) -> Result<VmState> {
        let irqchip = |chip_id| -> Result<Raw<kvm_irqchip>> {
            let mut irqchip = kvm_irqchip {
                chip_id,
                ..kvm_irqchip::default()
            };
            self.fd
                .get_irqchip(&mut irqchip)
                .context("KVM_GET_IRQCHIP")?;
            Ok(Raw(irqchip))
        };
        Ok(VmState {
            vcpus: self
                .runners
                .iter()
                .map(Runner::save)
                .collect::<Result<_>>()?,
            irqchips: [
                KVM_IRQCHIP_PIC_MASTER,
                KVM_IRQCHIP_PIC_SLAVE,
                KVM_IRQCHIP_IOAPIC,
            ]
            .into_iter()
            .map(irqchip)
            .collect::<Result<_>>()?,
            pit: Raw(self.fd.get_pit2().context("KVM_GET_PIT2")?),
            clock: self.fd.get_clock().context("KVM_GET_CLOCK")?.clock,
            // After it: the clock set from this is then never earlier than the guest has seen.
            clock_at: tsc::now(),
            ports: self.ports.state(),
            paused_at,
        })
    }
}

impl VmState {
    /// How many milliseconds the guest has stood still.
    pub fn paused_for_ms(&self) -> f64 {
        self.ms_since(self.paused_at)
    }

    /// Milliseconds since the host's counter, which goes on through a kexec, was there.
    fn ms_since(&self, tsc: u64) -> f64 {
        let ticks = tsc::now().saturating_sub(tsc) as f64;
        self.vcpus
            .first()
            .map_or(0.0, |vcpu| ticks / f64::from(vcpu.tsc_khz()))
    }
}

/// Opens KVM.
pub fn open_kvm() -> Result<Kvm> {
    Kvm::new().context("/dev/kvm (is kvm_intel or kvm_amd loaded?)")
}

/// A machine without processors: memory, interrupt controllers, timer.
fn create(kvm: &Kvm, ram: &GuestRam) -> Result<Arc<VmFd>> {
    let fd = kvm.create_vm().context("KVM_CREATE_VM")?;
    // For Intel's processors: three pages, and one, that the guest does not use.
    const TSS: usize = 0xfffb_d000;
    const IDENTITY_MAP: u64 = 0xfffb_c000;
    fd.set_identity_map_address(IDENTITY_MAP)
        .context("KVM_SET_IDENTITY_MAP_ADDR")?;
    fd.set_tss_address(TSS).context("KVM_SET_TSS_ADDR")?;
    for (slot, region) in (0..).zip(ram.map.iter()) {
        let region = kvm_userspace_memory_region {
            slot,
            guest_phys_addr: region.start_addr().raw_value(),
            memory_size: region.len(),
            userspace_addr: region.as_ptr() as u64,
            flags: 0,
        };
        // SAFETY: the mapping lives in `ram`, which a `Vm` keeps for as long as its processors can run.
        unsafe { fd.set_user_memory_region(region) }.context("KVM_SET_USER_MEMORY_REGION")?;
    }
    fd.create_irq_chip().context("KVM_CREATE_IRQCHIP")?;
    let pit = kvm_pit_config {
        flags: KVM_PIT_SPEAKER_DUMMY,
        ..kvm_pit_config::default()
    };
    fd.create_pit2(pit).context("KVM_CREATE_PIT2")?;
    Ok(Arc::new(fd))
}

/// The guest's clock as it is now, had it gone on: the guest sees then that it stood still.
fn clock_now(state: &VmState) -> kvm_clock_data {
    let clock = state.clock + (state.ms_since(state.clock_at) * 1e6) as u64;
    kvm_clock_data {
        clock,
        ..kvm_clock_data::default()
    }
}

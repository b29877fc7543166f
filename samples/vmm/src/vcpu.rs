// SPDX-License-Identifier: GPL-2.0

//! A virtual processor: what its state consists of, and in which order KVM wants that.

use crate::raw::Raw;
use crate::tsc;
use anyhow::{bail, Context, Result};
use kvm_bindings::{
    kvm_cpuid_entry2, kvm_debugregs, kvm_lapic_state, kvm_mp_state, kvm_msr_entry, kvm_regs,
    kvm_sregs, kvm_vcpu_events, kvm_xcrs, kvm_xsave, CpuId, Msrs, KVM_MAX_CPUID_ENTRIES,
};
use kvm_ioctls::VcpuFd;
use serde::{Deserialize, Serialize};

const MSR_IA32_TSC: u32 = 0x10;
const MSR_IA32_TSC_DEADLINE: u32 = 0x6e0;

/// All of a processor that the guest could notice.
#[derive(Serialize, Deserialize)]
pub struct VcpuState {
    cpuid: Vec<Raw<kvm_cpuid_entry2>>,
    mp_state: Raw<kvm_mp_state>,
    regs: Raw<kvm_regs>,
    sregs: Raw<kvm_sregs>,
    /// Floating point and vectors. AMX, which would not fit, is only there for who asks for it by arch_prctl().
    xsave: Raw<kvm_xsave>,
    xcrs: Raw<kvm_xcrs>,
    debugregs: Raw<kvm_debugregs>,
    lapic: Raw<kvm_lapic_state>,
    msrs: Vec<Raw<kvm_msr_entry>>,
    tsc_offset: u64,
    tsc_khz: u32,
    events: Raw<kvm_vcpu_events>,
}

impl VcpuState {
    /// Reads it from a processor that does not run and has nothing left to complete: its last KVM_RUN gave EINTR.
    /// `msrs` are those that KVM says are to be saved.
    pub fn save(vcpu: &VcpuFd, msrs: &[u32]) -> Result<Self> {
        // First, for it makes the processor take in what others have sent it (INIT, SIPI).
        let mp_state = vcpu.get_mp_state().context("KVM_GET_MP_STATE")?;
        let cpuid = vcpu
            .get_cpuid2(KVM_MAX_CPUID_ENTRIES)
            .context("KVM_GET_CPUID2")?;
        Ok(Self {
            mp_state: Raw(mp_state),
            cpuid: cpuid.as_slice().iter().copied().map(Raw).collect(),
            regs: Raw(vcpu.get_regs().context("KVM_GET_REGS")?),
            sregs: Raw(vcpu.get_sregs().context("KVM_GET_SREGS")?),
            xsave: Raw(vcpu.get_xsave().context("KVM_GET_XSAVE")?),
            xcrs: Raw(vcpu.get_xcrs().context("KVM_GET_XCRS")?),
            debugregs: Raw(vcpu.get_debug_regs().context("KVM_GET_DEBUGREGS")?),
            lapic: Raw(vcpu.get_lapic().context("KVM_GET_LAPIC")?),
            msrs: read_msrs(vcpu, msrs)?,
            tsc_offset: tsc::offset(vcpu).context("KVM_VCPU_TSC_OFFSET")?,
            tsc_khz: vcpu.get_tsc_khz().context("KVM_GET_TSC_KHZ")?,
            // Last: the commands above may still change what is pending.
            events: Raw(vcpu.get_vcpu_events().context("KVM_GET_VCPU_EVENTS")?),
        })
    }

    /// Puts it into a new processor.
    pub fn restore(&self, vcpu: &VcpuFd) -> Result<()> {
        // What the processor can do decides what the other commands accept.
        let entries: Vec<_> = self.cpuid.iter().map(|entry| entry.0).collect();
        let cpuid = CpuId::from_entries(&entries).context("more CPUID entries than KVM takes")?;
        vcpu.set_cpuid2(&cpuid).context("KVM_SET_CPUID2")?;
        vcpu.set_mp_state(self.mp_state.0)
            .context("KVM_SET_MP_STATE")?;
        vcpu.set_regs(&self.regs.0).context("KVM_SET_REGS")?;
        vcpu.set_sregs(&self.sregs.0).context("KVM_SET_SREGS")?;
        // SAFETY: KVM reads no more than the 4096 bytes of the type, as no larger state was asked for (see above).
        unsafe { vcpu.set_xsave(&self.xsave.0) }.context("KVM_SET_XSAVE")?;
        vcpu.set_xcrs(&self.xcrs.0).context("KVM_SET_XCRS")?;
        vcpu.set_debug_regs(&self.debugregs.0)
            .context("KVM_SET_DEBUGREGS")?;
        tsc::set_offset(vcpu, self.tsc_offset).context("KVM_VCPU_TSC_OFFSET")?;
        // After the system registers, which say where the local APIC is, and before the MSRs, which start its timer.
        vcpu.set_lapic(&self.lapic.0).context("KVM_SET_LAPIC")?;
        write_msrs(vcpu, &self.msrs)?;
        // Last: KVM_SET_REGS drops pending exceptions.
        vcpu.set_vcpu_events(&self.events.0)
            .context("KVM_SET_VCPU_EVENTS")
    }

    /// Counts of the time stamp counter in a millisecond.
    pub fn tsc_khz(&self) -> u32 {
        self.tsc_khz
    }
}

/// Those of these MSRs that this processor has.
fn read_msrs(vcpu: &VcpuFd, indices: &[u32]) -> Result<Vec<Raw<kvm_msr_entry>>> {
    let mut found = Vec::with_capacity(indices.len());
    // The counter itself is carried over by its offset.
    let mut wanted: Vec<_> = indices
        .iter()
        .copied()
        .filter(|&index| index != MSR_IA32_TSC)
        .collect();
    // It says when the local APIC's timer is to fire, so it is written when all else is there.
    wanted.sort_by_key(|&index| index == MSR_IA32_TSC_DEADLINE);
    let mut rest = &wanted[..];
    while !rest.is_empty() {
        let entries: Vec<_> = rest
            .iter()
            .map(|&index| kvm_msr_entry {
                index,
                ..Default::default()
            })
            .collect();
        let mut msrs = Msrs::from_entries(&entries).context("more MSRs than KVM takes")?;
        let read = vcpu.get_msrs(&mut msrs).context("KVM_GET_MSRS")?;
        found.extend(msrs.as_slice()[..read].iter().copied().map(Raw));
        // KVM lists what some processor of this host may have, and stops at one that this processor does not have.
        rest = rest.get(read + 1..).unwrap_or_default();
    }
    Ok(found)
}

fn write_msrs(vcpu: &VcpuFd, entries: &[Raw<kvm_msr_entry>]) -> Result<()> {
    let entries: Vec<_> = entries.iter().map(|entry| entry.0).collect();
    let msrs = Msrs::from_entries(&entries).context("more MSRs than KVM takes")?;
    let written = vcpu.set_msrs(&msrs).context("KVM_SET_MSRS")?;
    match entries.get(written) {
        None => Ok(()),
        // The guest had it: to go on without would be another processor.
        Some(kvm_msr_entry { index, data, .. }) => bail!(
            "this kernel's KVM does not take MSR {index:#x} = {data:#x}, which the guest had in the old kernel"
        ),
    }
}

/// What a new processor can do: what this host's KVM can, with the number of this one in it.
pub fn new_cpuid(supported: &CpuId, id: u8) -> CpuId {
    let mut cpuid = supported.clone();
    for entry in cpuid.as_mut_slice() {
        match entry.function {
            1 => entry.ebx = (entry.ebx & 0x00ff_ffff) | (u32::from(id) << 24),
            0xb | 0x1f => entry.edx = id.into(),
            0x8000_001e => entry.eax = id.into(),
            _ => {}
        }
    }
    cpuid
}

// SPDX-License-Identifier: GPL-2.0

//! The difference between the guest's time stamp counter and the host's.
//!
//! The host's goes on through a kexec. With the same difference in the new kernel the guest's does, too.

use kvm_bindings::{kvm_device_attr, KVMIO, KVM_VCPU_TSC_CTRL, KVM_VCPU_TSC_OFFSET};
use kvm_ioctls::{Error, VcpuFd};
use vmm_sys_util::ioctl::ioctl_with_ref;
use vmm_sys_util::{errno, ioctl_iow_nr};

// kvm-ioctls has these for other architectures only.
ioctl_iow_nr!(KVM_SET_DEVICE_ATTR, KVMIO, 0xe1, kvm_device_attr);
ioctl_iow_nr!(KVM_GET_DEVICE_ATTR, KVMIO, 0xe2, kvm_device_attr);

/// The offset of this vCPU.
pub fn offset(vcpu: &VcpuFd) -> Result<u64, Error> {
    let mut offset = 0u64;
    call(vcpu, KVM_GET_DEVICE_ATTR(), &raw mut offset)?;
    Ok(offset)
}

/// Sets it.
pub fn set_offset(vcpu: &VcpuFd, mut offset: u64) -> Result<(), Error> {
    call(vcpu, KVM_SET_DEVICE_ATTR(), &raw mut offset)
}

fn call(vcpu: &VcpuFd, number: libc::c_ulong, offset: *mut u64) -> Result<(), Error> {
    let attribute = kvm_device_attr {
        group: KVM_VCPU_TSC_CTRL,
        attr: KVM_VCPU_TSC_OFFSET.into(),
        addr: offset as u64,
        flags: 0,
    };
    // SAFETY: KVM reads or writes the u64 at `addr`, which the callers above have on their stacks.
    match unsafe { ioctl_with_ref(vcpu, number, &attribute) } {
        0 => Ok(()),
        _ => Err(errno::Error::last()),
    }
}

/// The host's counter now.
pub fn now() -> u64 {
    // SAFETY: every x86-64 processor has the instruction, and Linux lets user space use it.
    unsafe { std::arch::x86_64::_rdtsc() }
}

// SPDX-License-Identifier: GPL-2.0

//! KVM's structures, to be written down and read by serde: as the bytes that the kernel's ABI says they are.
//!
//! (kvm-bindings can do this, too, by its feature `serde`. That switches on zerocopy's macros for the whole workspace,
//! where the code that is shared with the kernel takes them from zerocopy-derive.)

use kvm_bindings::{
    kvm_cpuid_entry2, kvm_debugregs, kvm_irqchip, kvm_lapic_state, kvm_mp_state, kvm_msr_entry,
    kvm_pit_state2, kvm_regs, kvm_sregs, kvm_vcpu_events, kvm_xcrs, kvm_xsave,
};
use serde::de::{Deserialize, Deserializer, Error, Visitor};
use serde::ser::{Serialize, Serializer};
use std::fmt;
use std::marker::PhantomData;
use std::slice;

/// A structure of KVM.
///
/// # Safety
///
/// It has no padding, and any bytes are a value of it.
pub unsafe trait Abi {}

macro_rules! abi {
    ($($structure:ty),* $(,)?) => {
        // SAFETY: it is one of those that the kernel copies from and to user space byte by byte, whatever these are,
        // and what would be padding is a field in them.
        $(unsafe impl Abi for $structure {})*
    };
}

abi!(
    kvm_cpuid_entry2,
    kvm_debugregs,
    kvm_irqchip,
    kvm_lapic_state,
    kvm_mp_state,
    kvm_msr_entry,
    kvm_pit_state2,
    kvm_regs,
    kvm_sregs,
    kvm_vcpu_events,
    kvm_xcrs,
    kvm_xsave,
);

/// One of them.
#[derive(Clone, Copy, Debug)]
pub struct Raw<T>(pub T);

impl<T: Abi> Serialize for Raw<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // SAFETY: all its bytes have a value, as `Abi` promises, and live as long as `self`.
        let bytes = unsafe { slice::from_raw_parts((&raw const self.0).cast(), size_of::<T>()) };
        serializer.serialize_bytes(bytes)
    }
}

impl<'de, T: Abi> Deserialize<'de> for Raw<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_bytes(Bytes(PhantomData))
    }
}

struct Bytes<T>(PhantomData<T>);

impl<T: Abi> Visitor<'_> for Bytes<T> {
    type Value = Raw<T>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{} bytes", size_of::<T>())
    }

    fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Self::Value, E> {
        if bytes.len() != size_of::<T>() {
            return Err(E::invalid_length(bytes.len(), &self));
        }
        // SAFETY: there are as many bytes as a value has, and any will do, as `Abi` promises.
        Ok(Raw(unsafe { bytes.as_ptr().cast::<T>().read_unaligned() }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        let regs = kvm_regs {
            rip: 1,
            r15: u64::MAX,
            ..kvm_regs::default()
        };
        let bytes = postcard::to_stdvec(&Raw(regs)).unwrap();
        let back: Raw<kvm_regs> = postcard::from_bytes(&bytes).unwrap();
        assert_eq!(back.0, regs);
    }

    #[test]
    fn another_structure_is_refused() {
        let bytes = postcard::to_stdvec(&Raw(kvm_mp_state::default())).unwrap();
        assert!(postcard::from_bytes::<Raw<kvm_regs>>(&bytes).is_err());
    }
}

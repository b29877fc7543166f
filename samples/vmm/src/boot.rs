// SPDX-License-Identifier: GPL-2.0

//! Puts a Linux kernel into a new guest's memory, and the first processor at its start.
//!
//! By the 64-bit boot protocol (Documentation/arch/x86/boot.rst of the kernel): the processor is in long mode, with the
//! first gigabyte mapped where it is.

use crate::mptable;
use anyhow::{ensure, Context, Result};
use kvm_bindings::{kvm_regs, kvm_segment, kvm_sregs};
use linux_loader::cmdline::Cmdline;
use linux_loader::configurator::linux::LinuxBootConfigurator;
use linux_loader::configurator::{BootConfigurator, BootParams};
use linux_loader::loader::bootparam::{boot_e820_entry, boot_params};
use linux_loader::loader::bzimage::BzImage;
use linux_loader::loader::{load_cmdline, KernelLoader};
use std::fs::File;
use std::path::{Path, PathBuf};
use vm_memory::{Address, Bytes, GuestAddress, GuestMemory, GuestMemoryMmap};

const GDT: GuestAddress = GuestAddress(0x500);
const ZERO_PAGE: GuestAddress = GuestAddress(0x7000);
const STACK: u64 = 0x8ff0;
const PML4: GuestAddress = GuestAddress(0x9000);
const PDPT: GuestAddress = GuestAddress(0xa000);
const PAGE_DIRECTORY: GuestAddress = GuestAddress(0xb000);
const CMDLINE: GuestAddress = GuestAddress(0x20000);
const CMDLINE_MAX: usize = 2048;
/// Where usable memory below 1 MiB ends; the table of processors is behind it.
pub const LOW_END: u64 = 0x9fc00;
const HIGH_START: u64 = 0x10_0000;

/// What to boot.
#[derive(Clone, Debug)]
pub struct Image {
    /// A bzImage.
    pub kernel: PathBuf,
    /// Its initramfs.
    pub initramfs: PathBuf,
    /// Its command line.
    pub cmdline: String,
}

/// Loads it. Gives the address where the first processor starts.
pub fn load(ram: &GuestMemoryMmap, image: &Image, cpus: u8) -> Result<u64> {
    let mut kernel = open(&image.kernel)?;
    let high = Some(GuestAddress(HIGH_START));
    let loaded = BzImage::load(ram, None, &mut kernel, high)
        .with_context(|| format!("{} as a bzImage", image.kernel.display()))?;
    let end = ram.last_addr().raw_value() + 1;

    let mut params = boot_params {
        hdr: loaded
            .setup_header
            .context("a kernel without a setup header")?,
        ..boot_params::default()
    };
    let size = load_initramfs(ram, &image.initramfs, &mut params, end, loaded.kernel_end)?;
    let mut cmdline = Cmdline::new(CMDLINE_MAX)?;
    cmdline.insert_str(&image.cmdline)?;
    load_cmdline(ram, CMDLINE, &cmdline)?;
    params.hdr.type_of_loader = 0xff; // none of those with a number of their own
    params.hdr.cmd_line_ptr = CMDLINE.raw_value() as u32;
    params.hdr.cmdline_size = image.cmdline.len() as u32;
    params.hdr.ramdisk_size = size;
    for (entry, (from, to)) in [(0, LOW_END), (HIGH_START, end)].into_iter().enumerate() {
        const USABLE: u32 = 1;
        params.e820_table[entry] = boot_e820_entry {
            addr: from,
            size: to - from,
            type_: USABLE,
        };
        params.e820_entries += 1;
    }
    LinuxBootConfigurator::write_bootparams(&BootParams::new(&params, ZERO_PAGE), ram)?;
    mptable::write(ram, GuestAddress(LOW_END), cpus)?;

    write_page_tables(ram)?;
    let gdt = [0, 0, CODE.descriptor(), DATA.descriptor()];
    for (address, descriptor) in (GDT.raw_value()..).step_by(8).zip(gdt) {
        ram.write_obj(descriptor, GuestAddress(address))?;
    }
    const ENTRY_64: u64 = 0x200;
    Ok(loaded.kernel_load.raw_value() + ENTRY_64)
}

/// As far up as it goes, out of the way of the kernel when that unpacks itself.
fn load_initramfs(
    ram: &GuestMemoryMmap,
    path: &Path,
    params: &mut boot_params,
    end: u64,
    kernel_end: u64,
) -> Result<u32> {
    let mut file = open(path)?;
    let size = file.metadata()?.len();
    let start = end.saturating_sub(size) & !0xfff;
    let unpacked = params.hdr.pref_address + u64::from(params.hdr.init_size);
    ensure!(
        start >= kernel_end.max(unpacked),
        "the guest's memory is too small for this kernel and initramfs"
    );
    ram.read_exact_volatile_from(GuestAddress(start), &mut file, usize::try_from(size)?)?;
    params.hdr.ramdisk_image = u32::try_from(start)?;
    Ok(u32::try_from(size)?)
}

fn open(path: &Path) -> Result<File> {
    File::open(path).with_context(|| path.display().to_string())
}

/// One gigabyte in pages of 2 MiB, each where it is.
fn write_page_tables(ram: &GuestMemoryMmap) -> Result<()> {
    const PRESENT_WRITABLE: u64 = 0b11;
    const LARGE: u64 = 1 << 7;
    ram.write_obj(PDPT.raw_value() | PRESENT_WRITABLE, PML4)?;
    ram.write_obj(PAGE_DIRECTORY.raw_value() | PRESENT_WRITABLE, PDPT)?;
    for index in 0..512 {
        let entry = (index << 21) | PRESENT_WRITABLE | LARGE;
        ram.write_obj(entry, PAGE_DIRECTORY.unchecked_add(index * 8))?;
    }
    Ok(())
}

/// A flat segment of the boot protocol.
struct Segment {
    /// Its index in the table of descriptors.
    index: u16,
    /// Type, as in a descriptor.
    kind: u8,
    /// Whether it is of 64-bit code.
    long: bool,
}

const CODE: Segment = Segment {
    index: 2,
    kind: 0xb,
    long: true,
};
const DATA: Segment = Segment {
    index: 3,
    kind: 0x3,
    long: false,
};

impl Segment {
    /// As the processor reads it from memory: base 0, limit 4 GiB.
    const fn descriptor(&self) -> u64 {
        const PRESENT_CODE_OR_DATA: u64 = 0x90 << 40;
        const GRANULARITY: u64 = 1 << 55;
        let size = if self.long { 1 << 53 } else { 1 << 54 };
        0x000f_0000_0000_ffff
            | PRESENT_CODE_OR_DATA
            | ((self.kind as u64) << 40)
            | GRANULARITY
            | size
    }

    /// As KVM loads it.
    fn loaded(&self) -> kvm_segment {
        kvm_segment {
            base: 0,
            limit: 0xffff_ffff,
            selector: self.index * 8,
            type_: self.kind,
            present: 1,
            s: 1,
            g: 1,
            l: self.long.into(),
            db: (!self.long).into(),
            ..kvm_segment::default()
        }
    }
}

/// The general registers of a processor that starts the kernel at this address.
pub fn registers(entry: u64) -> kvm_regs {
    kvm_regs {
        rip: entry,
        rsi: ZERO_PAGE.raw_value(),
        rsp: STACK,
        rflags: 2, // the one bit that is always set
        ..kvm_regs::default()
    }
}

/// Its system registers, from those that it has after a reset.
pub fn system_registers(reset: kvm_sregs) -> kvm_sregs {
    const CR0_PROTECTED_PAGING: u64 = (1 << 31) | 1;
    const CR4_PAE: u64 = 1 << 5;
    const EFER_LONG_MODE_ENABLED_ACTIVE: u64 = (1 << 8) | (1 << 10);
    let mut sregs = reset;
    sregs.gdt.base = GDT.raw_value();
    sregs.gdt.limit = 4 * 8 - 1;
    sregs.cs = CODE.loaded();
    for segment in [
        &mut sregs.ds,
        &mut sregs.es,
        &mut sregs.fs,
        &mut sregs.gs,
        &mut sregs.ss,
    ] {
        *segment = DATA.loaded();
    }
    sregs.cr3 = PML4.raw_value();
    sregs.cr0 |= CR0_PROTECTED_PAGING;
    sregs.cr4 |= CR4_PAE;
    sregs.efer |= EFER_LONG_MODE_ENABLED_ACTIVE;
    sregs
}

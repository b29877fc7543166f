// SPDX-License-Identifier: GPL-2.0

//! Tells the guest's kernel its processors and interrupt controllers, by a table of Intel's MultiProcessor
//! Specification 1.4. It is smaller than ACPI's, which a VMM of today uses.

use anyhow::Result;
use vm_memory::{Address, Bytes, GuestAddress, GuestMemoryMmap};

const SPEC: u8 = 4; // of 1.4
const LAPIC_VERSION: u8 = 0x14;
const LAPIC_ADDRESS: u32 = 0xfee0_0000;
const IOAPIC_ADDRESS: u32 = 0xfec0_0000;
/// The lines that KVM leads to both the PICs and the I/O APIC, to pins of the same number.
const ISA_LINES: u8 = 16;
const ALL_LAPICS: u8 = 0xff;

/// Writes the table for a guest with so many processors.
pub fn write(ram: &GuestMemoryMmap, at: GuestAddress, cpus: u8) -> Result<()> {
    let pointer_size = 16;
    let table = at.unchecked_add(pointer_size);
    let mut pointer = [
        b"_MP_",
        &(table.raw_value() as u32).to_le_bytes()[..],
        &[1, SPEC, 0, 0, 0, 0, 0, 0],
    ]
    .concat();
    pointer[10] = checksum(&pointer);
    ram.write_slice(&pointer, at)?;
    ram.write_slice(&configuration(cpus), table)?;
    Ok(())
}

/// The table itself: a header, and entries whose first byte says what they are.
fn configuration(cpus: u8) -> Vec<u8> {
    let ioapic_id = cpus;
    let mut entries: Vec<Vec<u8>> = Vec::new();
    for id in 0..cpus {
        const ENABLED: u8 = 1;
        const BOOTS: u8 = 2;
        let flags = if id == 0 { ENABLED | BOOTS } else { ENABLED };
        let mut processor = vec![0, id, LAPIC_VERSION, flags];
        processor.resize(20, 0); // family and features, which the kernel asks the processor for
        entries.push(processor);
    }
    entries.push([&[1, 0][..], b"ISA   "].concat());
    let ioapic = [2, ioapic_id, 0x11, 1];
    entries.push([&ioapic[..], &IOAPIC_ADDRESS.to_le_bytes()].concat());
    for line in 0..ISA_LINES {
        const INT: u8 = 0;
        entries.push(vec![3, INT, 0, 0, 0, line, ioapic_id, line]);
    }
    const EXT_INT: u8 = 3;
    const NMI: u8 = 1;
    entries.push(vec![4, EXT_INT, 0, 0, 0, 0, 0, 0]);
    entries.push(vec![4, NMI, 0, 0, 0, 0, ALL_LAPICS, 1]);

    let count = entries.len() as u16;
    let body = entries.concat();
    let header_size = 44;
    let mut table = Vec::with_capacity(header_size + body.len());
    table.extend(b"PCMP");
    table.extend((header_size as u16 + body.len() as u16).to_le_bytes());
    table.extend([SPEC, 0]);
    table.extend(b"LUO     ");
    table.extend(b"sample VMM  ");
    table.extend([0; 6]); // no table of the manufacturer's own
    table.extend(count.to_le_bytes());
    table.extend(LAPIC_ADDRESS.to_le_bytes());
    table.extend([0; 4]); // no extended entries
    table.extend(body);
    table[7] = checksum(&table);
    table
}

/// The byte with which all of them add up to nothing.
fn checksum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0u8, |sum, byte| sum.wrapping_sub(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_guest_finds() {
        let ram = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x1000)]).unwrap();
        write(&ram, GuestAddress(0x100), 2).unwrap();
        let read = |at, len| {
            let mut bytes = vec![0; len];
            ram.read_slice(&mut bytes, GuestAddress(at)).unwrap();
            bytes
        };
        let pointer = read(0x100, 16);
        assert_eq!((&pointer[..4], checksum(&pointer)), (&b"_MP_"[..], 0));
        let len = u16::from_le_bytes([read(0x114, 1)[0], read(0x115, 1)[0]]);
        let table = read(0x110, len.into());
        assert_eq!((&table[..4], checksum(&table)), (&b"PCMP"[..], 0));
        // Two processors, a bus, an I/O APIC, its lines, and two lines of the local APICs.
        let count = u16::from_le_bytes([table[34], table[35]]);
        assert_eq!(count, 2 + 1 + 1 + 16 + 2);
        assert_eq!(usize::from(len), 44 + 2 * 20 + usize::from(count - 2) * 8);
    }
}

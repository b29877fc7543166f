// SPDX-License-Identifier: GPL-2.0

//! What KHO's debugfs tells: a flattened device tree with the address of the tree of all that is preserved.

use anyhow::{bail, Context, Result};
use std::path::Path;

const FOLDER: &str = "/sys/kernel/debug/kho";

const BEGIN_NODE: usize = 1;
const PROP: usize = 3;

/// Physical address of the root of what is preserved for the next kernel.
pub fn root() -> Result<u64> {
    let path = Path::new(FOLDER).join("out/fdt");
    let fdt = std::fs::read(&path).with_context(|| path.display().to_string())?;
    let value = property_of(&fdt, size_of::<u64>()).context("the device tree")?;
    Ok(u64::from_ne_bytes(value.try_into()?))
}

fn word(fdt: &[u8], at: usize) -> Result<usize> {
    let bytes = fdt.get(at..at + 4).context("it ends too early")?;
    Ok(u32::from_be_bytes(bytes.try_into()?) as usize)
}

/// The value of the root node's first property of this size.
///
/// It is told by its size, since its name cannot be read: names are at the end of the tree, and debugfs shows no more
/// bytes than the tree had at boot, before others were added to it.
fn property_of(fdt: &[u8], size: usize) -> Result<&[u8]> {
    let structure = word(fdt, 8)?;
    let mut at = structure;
    loop {
        match word(fdt, at)? {
            // The root's name is empty: one NUL, and three bytes to fill up.
            BEGIN_NODE if at == structure => at += 8,
            PROP => {
                let len = word(fdt, at + 4)?;
                if len == size {
                    return fdt.get(at + 12..at + 12 + len).context("a value");
                }
                at += 12 + len.next_multiple_of(4);
            }
            _ => bail!("no such property"),
        }
    }
}

/// Lets the entry of this name have no size, in a whole device tree: the property has another name from now on.
pub fn lose_size(fdt: &mut [u8], entry: &str) -> Result<()> {
    const NAME: &[u8] = b"blob-size\0";
    let node = [&(BEGIN_NODE as u32).to_be_bytes(), entry.as_bytes(), &[0]].concat();
    let start = fdt.windows(node.len()).position(|bytes| bytes == node);
    let mut at = start.context("no such entry")? + node.len().next_multiple_of(4);
    let strings = word(fdt, 12)?;
    while word(fdt, at)? == PROP {
        let (len, name) = (word(fdt, at + 4)?, word(fdt, at + 8)?);
        if fdt[strings + name..].starts_with(NAME) {
            // The same without its first letter.
            fdt[at + 8..at + 12].copy_from_slice(&(name as u32 + 1).to_be_bytes());
            return Ok(());
        }
        at += 12 + len.next_multiple_of(4);
    }
    bail!("{entry} has no size")
}

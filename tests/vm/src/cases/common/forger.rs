// SPDX-License-Identifier: GPL-2.0

//! Forges what the next kernel takes for this one's account: see tests/modules/forger/forger.h.

use super::luo::ioctl;
use super::{kho, modules};
use anyhow::{ensure, Context, Result};
use luo_handover::memory::Memory;
use nix::errno::Errno;
use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::rc::Rc;

const MODULE: &str = "luo_forger";
const DEVICE: &str = "/dev/luo-forger";

/// What is at an address.
#[repr(C)]
#[derive(Clone, Copy)]
struct Range {
    phys: u64,
    order: u64,
}

/// The root of an account, and what the next kernel is told of its size.
#[repr(C)]
#[derive(Clone, Copy)]
struct Root {
    phys: u64,
    size: u64,
}

/// The number of an ioctl with an argument of this size.
const fn number(direction: u32, command: u8, size: usize) -> u32 {
    direction << 30 | (size as u32) << 16 | (b'F' as u32) << 8 | command as u32
}

const WRITE: u32 = 1;
const READ: u32 = 2;
const READ_WRITE: u32 = 3;
const ALLOCATE: u32 = number(READ_WRITE, 0, size_of::<u64>());
const PRESERVE: u32 = number(WRITE, 1, size_of::<Range>());
const PUBLISH: u32 = number(WRITE, 2, size_of::<Root>());
const TREE: u32 = number(READ, 3, size_of::<u64>());
const RESERVED: u32 = number(READ, 4, size_of::<u64>());

/// The forger, inserted. It stays for as long as the kernel.
#[derive(Clone, Debug)]
pub struct Forger(Rc<File>);

impl Forger {
    /// Inserts it. `None` if it was not built for this VM.
    pub fn new() -> Result<Option<Self>> {
        if !Path::new("/modules/luo_forger.ko").exists() {
            return Ok(None);
        }
        if !modules::is_inserted(MODULE) {
            modules::insert(MODULE)?;
        }
        let file = OpenOptions::new().read(true).write(true).open(DEVICE);
        Ok(Some(Self(Rc::new(file.context(DEVICE)?))))
    }

    /// Memory of this machine, to compose a handover in.
    pub fn memory(&self) -> Memory {
        let forger = self.clone();
        Memory::new(move |nr_pages| forger.allocate(nr_pages).expect("memory to forge"))
    }

    fn allocate(&self, nr_pages: u64) -> Result<u64, Errno> {
        let mut arg = nr_pages;
        self.ioctl(ALLOCATE, &mut arg)?;
        Ok(arg)
    }

    /// Leaves the handover that was composed, with its root there, to the next kernel.
    pub fn publish(&self, memory: &Memory, root_pa: u64) -> Result<()> {
        self.publish_sized(memory, root_pa, 4096)
    }

    /// The same, with a root that is said to be of this size.
    pub fn publish_sized(&self, memory: &Memory, root_pa: u64, size: u64) -> Result<()> {
        for pa in memory.written() {
            self.write(pa, memory.bytes(pa))?;
        }
        for pa in memory.preserved() {
            let order = memory.order(pa).unwrap_or_default().into();
            self.ioctl(PRESERVE, &mut Range { phys: pa, order })
                .with_context(|| format!("preserving {pa:#x}"))?;
        }
        let mut root = Root {
            phys: root_pa,
            size,
        };
        self.ioctl(PUBLISH, &mut root)
            .context("publishing the root")
    }

    /// Where KHO's own device tree is, in which the next kernel finds the root. Only in the first kernel.
    pub fn tree(&self) -> Result<u64> {
        let mut pa = 0u64;
        self.ioctl(TREE, &mut pa).context("KHO's device tree")?;
        Ok(pa)
    }

    /// Where the memory is that `reserve_mem=` on the command line calls "forger".
    pub fn reserved(&self) -> Result<u64> {
        let mut pa = 0u64;
        self.ioctl(RESERVED, &mut pa).context("reserve_mem=")?;
        Ok(pa)
    }

    /// Takes the size out of KHO's own entry for the root, which was published. Only in the first kernel.
    pub fn lose_size(&self) -> Result<()> {
        let pa = self.tree()?;
        let mut tree = self.page(pa)?;
        kho::lose_size(&mut tree, "LUO")?;
        self.write(pa, &tree)
    }

    /// Writes to a page that was allocated here.
    pub fn write(&self, pa: u64, bytes: &[u8]) -> Result<()> {
        let written = self.0.write_at(bytes, pa);
        let written = written.with_context(|| format!("{pa:#x}"))?;
        ensure!(written == bytes.len(), "a part of {pa:#x}");
        Ok(())
    }

    /// The bytes of a page of this machine.
    pub fn page(&self, pa: u64) -> Result<Vec<u8>> {
        let mut page = vec![0; 4096];
        self.0
            .read_exact_at(&mut page, pa)
            .with_context(|| format!("{pa:#x}"))?;
        Ok(page)
    }

    fn ioctl<T: Copy>(&self, number: u32, arg: &mut T) -> Result<(), Errno> {
        ioctl(self.0.as_raw_fd(), number, arg).map(drop)
    }
}

/// Where the kernel itself is in memory.
pub fn kernel_code() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/iomem")?;
    let line = text.lines().find(|line| line.ends_with("Kernel code"));
    let line = line.context("no kernel in /proc/iomem")?.trim();
    let (start, _) = line.split_once('-').context("a range")?;
    Ok(u64::from_str_radix(start, 16)?.next_multiple_of(4096))
}

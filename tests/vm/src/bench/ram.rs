// SPDX-License-Identifier: GPL-2.0

//! A memfd that is used as a VMM uses guest RAM: through a mapping, page by page.

use anyhow::{ensure, Context, Result};
use luo_vm_protocol::bench::{Layout, Memfd};
use nix::errno::Errno;
use nix::sys::memfd::{memfd_create, MFdFlags};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

/// Bytes of a page.
pub const PAGE: usize = 4096;
/// Bytes of a large folio.
const HUGE: usize = 2 << 20;
/// Where in a page the words are that tell it from any other: at its start, and those that are looked at last.
const FIRST: usize = 0;
const OTHERS: [usize; 2] = [PAGE / 2, PAGE - 8];
/// How much is read at a time, to look for what should not be there.
const CHUNK: usize = 1 << 20;

/// A new memfd of this size, all hole.
pub fn create(size: u64) -> Result<File> {
    let file = File::from(memfd_create("ram", MFdFlags::MFD_CLOEXEC)?);
    file.set_len(size).context("ftruncate")?;
    Ok(file)
}

/// The pages of a memfd that are to be populated, in the order in which this is to be done.
pub fn pages(memfd: &Memfd) -> Vec<u32> {
    let count =
        u32::try_from(memfd.size.div_ceil(PAGE as u64)).expect("a memfd that fits into the VM");
    let unit = if memfd.huge { (HUGE / PAGE) as u32 } else { 1 };
    let percent = u64::from(memfd.percent);
    let mut pages: Vec<u32> = (0..count)
        .filter(|page| mix(!u64::from(page / unit)) % 100 < percent)
        .collect();
    if memfd.layout == Layout::Random {
        for last in (1..pages.len()).rev() {
            let other = mix(last as u64) % (last as u64 + 1);
            pages.swap(last, other as usize);
        }
    }
    pages
}

/// A number that looks like any other: the finaliser of SplitMix64.
pub fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

/// The word at this offset of the file: different everywhere, and not zero.
fn word(page: u32, offset: usize) -> u64 {
    mix(u64::from(page) << 12 | offset as u64) | 1
}

/// A shared mapping of a whole memfd.
pub struct Mapping {
    start: *mut u8,
    len: usize,
}

impl Mapping {
    /// Maps it; `None` if there is nothing to be mapped.
    pub fn new(file: &File) -> Result<Option<Self>> {
        let len = usize::try_from(file.metadata()?.len())?;
        if len == 0 {
            return Ok(None);
        }
        let (protection, fd) = (libc::PROT_READ | libc::PROT_WRITE, file.as_raw_fd());
        // SAFETY: a new mapping, wherever the kernel likes.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                protection,
                libc::MAP_SHARED,
                fd,
                0,
            )
        };
        ensure!(start != libc::MAP_FAILED, "mmap: {}", Errno::last());
        Ok(Some(Self {
            start: start.cast(),
            len,
        }))
    }

    /// The address at which it begins.
    pub fn address(&self) -> usize {
        self.start as usize
    }

    /// Writes to each of these pages what it is known by.
    pub fn populate(&self, pages: &[u32]) {
        for &page in pages {
            for offset in [FIRST].into_iter().chain(OTHERS) {
                // SAFETY: `at` gives an address within the mapping. Volatile, since the file is shared.
                unsafe { self.at(page, offset).write_volatile(word(page, offset)) };
            }
        }
    }

    /// Reads the first word of each of these pages. Gives how many are not what they were.
    pub fn touch(&self, pages: &[u32]) -> usize {
        self.wrong(pages, FIRST)
    }

    /// Looks at the other words of each of these pages. Gives how many are not what they were.
    pub fn check(&self, pages: &[u32]) -> usize {
        OTHERS.map(|offset| self.wrong(pages, offset)).iter().sum()
    }

    fn wrong(&self, pages: &[u32], offset: usize) -> usize {
        let is_wrong = |page: &&u32| {
            // SAFETY: as in `populate`.
            unsafe { self.at(**page, offset).read_volatile() != word(**page, offset) }
        };
        pages.iter().filter(is_wrong).count()
    }

    fn at(&self, page: u32, offset: usize) -> *mut u64 {
        let offset = page as usize * PAGE + offset;
        assert!(offset + 8 <= self.len);
        // SAFETY: within the mapping, as checked; page and offset are multiples of 8.
        unsafe { self.start.add(offset).cast() }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping made above, which ends with `self`.
        unsafe { libc::munmap(self.start.cast(), self.len) };
    }
}

/// Fails unless there are zeros wherever `populate` wrote nothing.
pub fn check_zeros(file: &File, pages: &[u32]) -> Result<()> {
    let size = file.metadata()?.len();
    let mut populated = vec![false; size.div_ceil(PAGE as u64) as usize];
    for &page in pages {
        populated[page as usize] = true;
    }
    let mut chunk = vec![0; CHUNK];
    for from in (0..size).step_by(CHUNK) {
        let chunk = &mut chunk[..CHUNK.min((size - from) as usize)];
        // Not by the mapping: to read a hole there is to fill it.
        file.read_exact_at(chunk, from)?;
        let first = (from / PAGE as u64) as usize;
        for (page, bytes) in (first..).zip(chunk.chunks_mut(PAGE)) {
            if populated[page] {
                for offset in [FIRST].into_iter().chain(OTHERS) {
                    bytes[offset..offset + 8].fill(0);
                }
            }
            ensure!(
                // SAFETY: any eight bytes are a valid u64.
                unsafe { bytes.align_to::<u64>().1.iter().all(|&word| word == 0) },
                "page {page} has something in it that nobody wrote"
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memfd(layout: Layout, percent: u8) -> Memfd {
        Memfd {
            size: 64 << 20,
            percent,
            layout,
            huge: false,
            early: false,
        }
    }

    #[test]
    fn a_random_order_has_every_page_once() {
        let mut pages = pages(&memfd(Layout::Random, 100));
        assert!(pages[..16] != pages.clone()[..16] || pages[0] != 0);
        assert!(
            pages
                .windows(2)
                .filter(|pair| pair[0] + 1 == pair[1])
                .count()
                < 10
        );
        pages.sort_unstable();
        assert_eq!(pages, (0..16384).collect::<Vec<_>>());
    }

    #[test]
    fn percents_are_about_right() {
        for (percent, least, most) in [
            (0, 0, 0),
            (1, 130, 200),
            (50, 8000, 8400),
            (100, 16384, 16384),
        ] {
            let count = pages(&memfd(Layout::InOrder, percent)).len();
            assert!((least..=most).contains(&count), "{percent} %: {count}");
        }
    }

    #[test]
    fn a_wrong_byte_is_found() {
        let memfd = memfd(Layout::InOrder, 50);
        let file = create(memfd.size).unwrap();
        let pages = pages(&memfd);
        let mapping = Mapping::new(&file).unwrap().unwrap();
        mapping.populate(&pages);
        assert_eq!((mapping.touch(&pages), mapping.check(&pages)), (0, 0));
        check_zeros(&file, &pages).unwrap();

        file.write_all_at(&[0xff], u64::from(pages[7]) * PAGE as u64)
            .unwrap();
        assert_eq!((mapping.touch(&pages), mapping.check(&pages)), (1, 0));
        file.write_all_at(&[0xff], u64::from(pages[9]) * PAGE as u64 + 4095)
            .unwrap();
        assert_eq!((mapping.touch(&pages), mapping.check(&pages)), (1, 1));
        let hole = (0..).find(|page| !pages.contains(page)).unwrap();
        file.write_all_at(&[1], u64::from(hole) * PAGE as u64 + 100)
            .unwrap();
        check_zeros(&file, &pages).unwrap_err();
    }
}

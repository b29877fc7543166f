// SPDX-License-Identifier: GPL-2.0

//! memfds, and what can be done to them.

use super::data::Extent;
use super::pages::PAGE;
use super::seen::data_ranges;
use anyhow::{ensure, Context, Result};
use nix::errno::Errno;
use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

/// Of `asm-generic/mman-common.h`, which the libc crate does not know.
pub const MADV_COLLAPSE: libc::c_int = 25;

/// A memfd that can be sealed, of this size, all hole.
pub fn create(size: u64) -> Result<File> {
    create_with(libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING, size)
}

/// A memfd with these flags, of this size, all hole.
pub fn create_with(flags: libc::c_uint, size: u64) -> Result<File> {
    // SAFETY: the name is a string that ends in NUL.
    let fd = Errno::result(unsafe { libc::memfd_create(c"test".as_ptr(), flags) })
        .context("memfd_create")?;
    // SAFETY: the kernel just made this descriptor for us.
    let file = unsafe { File::from_raw_fd(fd) };
    file.set_len(size).context("ftruncate")?;
    Ok(file)
}

/// Another open file of the same inode.
pub fn reopen(file: &File, write: bool) -> Result<File> {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let file = std::fs::OpenOptions::new()
        .read(true)
        .write(write)
        .open(path)?;
    Ok(file)
}

/// ftruncate(2).
pub fn truncate(file: &File, size: u64) -> Result<(), Errno> {
    // SAFETY: a descriptor and a number.
    Errno::result(unsafe { libc::ftruncate(file.as_raw_fd(), size as libc::off_t) }).map(drop)
}

/// fallocate(2), which also punches holes.
pub fn fallocate(file: &File, mode: libc::c_int, start: u64, len: u64) -> Result<(), Errno> {
    let (start, len) = (start as libc::off_t, len as libc::off_t);
    // SAFETY: a descriptor and numbers.
    Errno::result(unsafe { libc::fallocate(file.as_raw_fd(), mode, start, len) }).map(drop)
}

/// Punches a hole.
pub fn punch(file: &File, start: u64, len: u64) -> Result<(), Errno> {
    let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    fallocate(file, mode, start, len)
}

/// pwrite(2) of these bytes.
pub fn write_at(file: &File, start: u64, bytes: &[u8]) -> Result<usize, Errno> {
    let fd = file.as_raw_fd();
    // SAFETY: the bytes are ours for the duration of the call.
    let written =
        unsafe { libc::pwrite(fd, bytes.as_ptr().cast(), bytes.len(), start as libc::off_t) };
    Errno::result(written).map(|written| written as usize)
}

/// Puts as much as can be out to swap.
pub fn swap_out(file: &File) -> Result<()> {
    let map = Mapping::new(file, file.metadata()?.len() as usize)?;
    // MADV_PAGEOUT passes over what is not mapped.
    for range in data_ranges(file)? {
        for index in range.step_by(PAGE) {
            map.read(index as usize);
        }
    }
    map.advise(libc::MADV_PAGEOUT).context("MADV_PAGEOUT")
}

/// The folder that tells of folios of so many KiB.
fn folios(kib: u64) -> PathBuf {
    format!("/sys/kernel/mm/transparent_hugepage/hugepages-{kib}kB").into()
}

/// Says whether new memfds get folios of so many KiB: "always" or "never".
pub fn allow_folios(kib: u64, when: &str) -> Result<()> {
    let path = folios(kib).join("shmem_enabled");
    std::fs::write(&path, when).with_context(|| format!("{} = {when}", path.display()))
}

/// How many folios of so many KiB memfds have got so far.
pub fn folios_made(kib: u64) -> Result<u64> {
    folio_count(kib, "shmem_alloc")
}

/// How many folios of so many KiB have gone to swap as a whole so far.
pub fn folios_swapped_out(kib: u64) -> Result<u64> {
    folio_count(kib, "swpout")
}

fn folio_count(kib: u64, of: &str) -> Result<u64> {
    let path = folios(kib).join("stats").join(of);
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    Ok(text.trim().parse()?)
}

/// Fills a part of a file with folios of `kib` KiB: what is first touched through a mapping is one. Fails unless there
/// are as many as fit. Their bytes are ones and zeroes.
pub fn fill_with_folios(file: &File, part: Extent, kib: u64) -> Result<()> {
    let size = kib << 10;
    let before = folios_made(kib)?;
    allow_folios(kib, "always")?;
    let map = Mapping::aligned(file, file.metadata()?.len() as usize, size as usize)?;
    for start in (part.start..part.start + part.len).step_by(size as usize) {
        map.write(start as usize, 1);
    }
    allow_folios(kib, "never")?;
    let (made, wanted) = (folios_made(kib)? - before, part.len.div_ceil(size));
    ensure!(
        made >= wanted,
        "{made} folios of {kib} KiB instead of {wanted}"
    );
    Ok(())
}

/// Makes the pages of a part of files: one after the other, but in no order of the file. Of one file alone they are a run
/// in memory, else no two of a file are neighbours there. Their bytes are ones and zeroes.
pub fn scatter(files: &[&File], part: Extent) -> Result<()> {
    let page = PAGE as u64;
    let count = part.len / page;
    for i in 0..count {
        // Each of them once: the prime number does not divide their number.
        let at = part.start + i * 7919 % count * page;
        for file in files {
            file.write_all_at(&[1], at).context("making a page")?;
        }
    }
    Ok(())
}

/// The file's seals.
pub fn seals(file: &File) -> Result<libc::c_int, Errno> {
    // SAFETY: a descriptor.
    Errno::result(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GET_SEALS) })
}

/// Adds seals.
pub fn add_seals(file: &File, seals: libc::c_int) -> Result<(), Errno> {
    // SAFETY: a descriptor and a number.
    Errno::result(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, seals) }).map(drop)
}

/// The file's position.
pub fn position(mut file: &File) -> Result<u64> {
    Ok(file.stream_position()?)
}

/// Moves the file's position.
pub fn seek(mut file: &File, position: u64) -> Result<()> {
    ensure!(file.seek(SeekFrom::Start(position))? == position);
    Ok(())
}

/// The file system type that fstatfs(2) names.
pub fn fs_magic(file: &impl AsRawFd) -> Result<libc::c_long> {
    // SAFETY: all zero is a valid value of this struct of integers.
    let mut stat: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes to a struct of ours.
    Errno::result(unsafe { libc::fstatfs(file.as_raw_fd(), &mut stat) })?;
    Ok(stat.f_type as libc::c_long)
}

/// A shared mapping of a file's first bytes.
#[derive(Debug)]
pub struct Mapping {
    start: *mut libc::c_void,
    len: usize,
}

impl Mapping {
    /// Maps them to be read and written.
    pub fn new(file: &File, len: usize) -> Result<Self, Errno> {
        Self::with_protection(file, len, libc::PROT_READ | libc::PROT_WRITE)
    }

    /// Maps them with this protection.
    pub fn with_protection(file: &File, len: usize, prot: libc::c_int) -> Result<Self, Errno> {
        Self::at(std::ptr::null_mut(), file, len, prot, libc::MAP_SHARED)
    }

    /// Maps them to be read and written by nobody else.
    pub fn private(file: &File, len: usize) -> Result<Self, Errno> {
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        Self::at(std::ptr::null_mut(), file, len, prot, libc::MAP_PRIVATE)
    }

    /// Maps them at an address that is a multiple of `align`, to be read and written.
    pub fn aligned(file: &File, len: usize, align: usize) -> Result<Self, Errno> {
        let (prot, flags) = (libc::PROT_NONE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: new room, wherever the kernel likes.
        let room = unsafe { libc::mmap(std::ptr::null_mut(), len + align, prot, flags, -1, 0) };
        if room == libc::MAP_FAILED {
            return Err(Errno::last());
        }
        let head = (room as usize).wrapping_neg() % align;
        let len = len.next_multiple_of(super::pages::PAGE);
        let start = room.wrapping_byte_add(head);
        // Room that is not given back first: another thread might get it in between.
        for (rest, len) in [(room, head), (start.wrapping_byte_add(len), align - head)] {
            // SAFETY: what is left of the room just made, to which nothing refers.
            let _ = unsafe { libc::munmap(rest, len) };
        }
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_SHARED | libc::MAP_FIXED;
        Self::at(start, file, len, prot, flags)
    }

    fn at(
        place: *mut libc::c_void,
        file: &File,
        len: usize,
        prot: libc::c_int,
        flags: libc::c_int,
    ) -> Result<Self, Errno> {
        // SAFETY: a new mapping, where nothing else is mapped but room kept for it.
        let start = unsafe { libc::mmap(place, len, prot, flags, file.as_raw_fd(), 0) };
        match start == libc::MAP_FAILED {
            true => Err(Errno::last()),
            false => Ok(Self { start, len }),
        }
    }

    /// madvise(2) of all of it.
    pub fn advise(&self, advice: libc::c_int) -> Result<(), Errno> {
        // SAFETY: a mapping of ours; no advice that is used here takes its contents away.
        Errno::result(unsafe { libc::madvise(self.start, self.len, advice) }).map(drop)
    }

    /// madvise(2) of a part of it: whole pages.
    pub fn advise_part(&self, start: usize, len: usize, advice: libc::c_int) -> Result<(), Errno> {
        assert!(start + len <= self.len.next_multiple_of(super::pages::PAGE));
        // SAFETY: within the mapping, which nothing but the methods here refers to.
        Errno::result(unsafe { libc::madvise(self.start.byte_add(start), len, advice) }).map(drop)
    }

    /// Makes large folios of a part of it.
    pub fn collapse(&self, start: usize, len: usize) -> Result<(), Errno> {
        self.advise_part(start, len, MADV_COLLAPSE)
    }

    /// mincore(2) of all of it: an entry for each page.
    pub fn mincore(&self, pages: &mut [u8]) -> Result<(), Errno> {
        assert!(pages.len() == self.len.div_ceil(super::pages::PAGE));
        // SAFETY: a mapping of ours, and room for each of its pages.
        Errno::result(unsafe { libc::mincore(self.start, self.len, pages.as_mut_ptr()) }).map(drop)
    }

    /// mlock(2) of all of it, which brings it in.
    pub fn lock(&self) -> Result<(), Errno> {
        // SAFETY: a mapping of ours.
        Errno::result(unsafe { libc::mlock(self.start, self.len) }).map(drop)
    }

    /// Where it is, as /proc/PID/smaps writes it.
    pub fn address(&self) -> usize {
        self.start as usize
    }

    /// Writes a byte.
    pub fn write(&self, index: usize, byte: u8) {
        assert!(index < self.len);
        // SAFETY: within the mapping. Volatile, since the memory is shared with the file's other users.
        unsafe { self.start.cast::<u8>().add(index).write_volatile(byte) };
    }

    /// Reads a byte.
    pub fn read(&self, index: usize) -> u8 {
        assert!(index < self.len);
        // SAFETY: as above.
        unsafe { self.start.cast::<u8>().add(index).read_volatile() }
    }
}

/// Words, with the order that threads and a kexec see them in.
impl Mapping {
    fn word(&self, index: usize) -> &AtomicU64 {
        assert!((index + 1) * 8 <= self.len);
        // SAFETY: within the mapping and aligned; words are only ever used as atomics.
        unsafe { &*self.start.cast::<AtomicU64>().add(index) }
    }

    /// Reads a word.
    pub fn load(&self, index: usize) -> u64 {
        self.word(index).load(Ordering::SeqCst)
    }

    /// Writes a word.
    pub fn store(&self, index: usize, value: u64) {
        self.word(index).store(value, Ordering::Release);
    }
}

// SAFETY: threads use the memory by volatile and atomic accesses only, and the methods that take `self` by reference
// leave the mapping where it is.
unsafe impl Sync for Mapping {}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping made above, which ends with `self`.
        unsafe { libc::munmap(self.start, self.len) };
    }
}

// SPDX-License-Identifier: GPL-2.0

//! Memory with an edge: where exactly an ioctl argument lies decides what the kernel can read and write of it.

use anyhow::{ensure, Context, Result};
use nix::errno::Errno;
use std::ffi::c_void;

/// Size of a page.
pub const PAGE: usize = 4096;

/// Pages of memory, and an inaccessible one behind them.
#[derive(Debug)]
pub struct Pages {
    start: *mut u8,
    len: usize,
}

impl Pages {
    /// This many accessible pages, all zero.
    pub fn new(pages: usize) -> Result<Self> {
        let len = pages * PAGE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: new memory, wherever the kernel likes.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), len + PAGE, prot, flags, -1, 0) };
        ensure!(start != libc::MAP_FAILED, "mmap: {}", Errno::last());
        let this = Self {
            start: start.cast(),
            len,
        };
        // SAFETY: the last page of the mapping just made, which nothing refers to.
        let guard = unsafe { libc::mprotect(start.byte_add(len), PAGE, libc::PROT_NONE) };
        Errno::result(guard).context("mprotect")?;
        Ok(this)
    }

    /// Copies bytes to the start.
    pub fn at_start(&mut self, bytes: &[u8]) -> *mut c_void {
        self.put(0, bytes)
    }

    /// Copies bytes to the end, so that nothing can be accessed behind the last of them.
    pub fn at_end(&mut self, bytes: &[u8]) -> *mut c_void {
        self.put(self.len - bytes.len(), bytes)
    }

    /// Copies bytes to this offset.
    pub fn put(&mut self, offset: usize, bytes: &[u8]) -> *mut c_void {
        assert!(offset + bytes.len() <= self.len);
        // SAFETY: within the accessible pages, as checked, and ours alone.
        unsafe {
            let to = self.start.add(offset);
            to.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
            to.cast()
        }
    }

    /// The bytes of the accessible pages.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: mapped and readable as long as `self` lives.
        unsafe { std::slice::from_raw_parts(self.start, self.len) }
    }

    /// Lets the pages from this one on be read only: the kernel can take an argument from them, but not write an answer.
    pub fn read_only_from(&mut self, page: usize) -> Result<()> {
        self.protect(page, libc::PROT_READ)
    }

    /// Lets all be written again.
    pub fn writable(&mut self) -> Result<()> {
        self.protect(0, libc::PROT_READ | libc::PROT_WRITE)
    }

    fn protect(&mut self, page: usize, prot: libc::c_int) -> Result<()> {
        let offset = page * PAGE;
        assert!(offset < self.len);
        // SAFETY: pages of ours, written only by methods that borrow `self` mutably.
        let done =
            unsafe { libc::mprotect(self.start.add(offset).cast(), self.len - offset, prot) };
        Errno::result(done).context("mprotect")?;
        Ok(())
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `new`, which ends with `self`.
        unsafe { libc::munmap(self.start.cast(), self.len + PAGE) };
    }
}

/// The bytes of an ioctl argument.
pub fn bytes_of<T: Copy>(value: &T) -> Vec<u8> {
    let start = std::ptr::from_ref(value).cast::<u8>();
    // SAFETY: the argument structs have no padding, so that all of their bytes are initialised.
    unsafe { std::slice::from_raw_parts(start, size_of::<T>()) }.to_vec()
}

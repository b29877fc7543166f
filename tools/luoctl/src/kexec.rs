// SPDX-License-Identifier: GPL-2.0

//! The system calls of kexec. KHO wants kexec_file_load(2): the older kexec_load(2) cannot hand anything on.

use libc::{c_ulong, SYS_kexec_file_load};
use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, RawFd};

const KEXEC_FILE_UNLOAD: c_ulong = 1;
const KEXEC_FILE_NO_INITRAMFS: c_ulong = 4;

/// Loads a kernel, to be started by [`execute`]. On failure one that was loaded before stays so.
pub fn load(kernel: &File, initrd: Option<&File>, command_line: &str) -> io::Result<()> {
    let line = CString::new(command_line)?;
    match initrd {
        Some(initrd) => file_load(kernel.as_raw_fd(), initrd.as_raw_fd(), &line, 0),
        None => file_load(kernel.as_raw_fd(), -1, &line, KEXEC_FILE_NO_INITRAMFS),
    }
}

/// Takes back what [`load`] loaded.
pub fn unload() -> io::Result<()> {
    file_load(-1, -1, c"", KEXEC_FILE_UNLOAD)
}

/// Starts the loaded kernel. Returns only if that is refused, with the reason.
#[must_use]
pub fn execute() -> io::Error {
    use rustix::system::{reboot, RebootCommand};
    match reboot(RebootCommand::Kexec) {
        Ok(()) => io::Error::other("reboot() returned without an error"),
        Err(errno) => errno.into(),
    }
}

fn file_load(
    kernel: RawFd,
    initrd: RawFd,
    line: &std::ffi::CStr,
    flags: c_ulong,
) -> io::Result<()> {
    let length = line.to_bytes_with_nul().len();
    // SAFETY: The command line is alive and as long as said; descriptors are numbers to the kernel, which checks them.
    let result = unsafe {
        libc::syscall(
            SYS_kexec_file_load,
            kernel,
            initrd,
            length,
            line.as_ptr(),
            flags,
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

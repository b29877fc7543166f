// SPDX-License-Identifier: GPL-2.0

//! Into the next kernel: `kexec_file_load(2)`, then `reboot(LINUX_REBOOT_CMD_KEXEC)`.

use anyhow::{bail, Context, Result};
use luo_vm_protocol::{DISK_INITRAMFS, DISK_KERNEL, NEXT_FOLDER};
use nix::errno::Errno;
use nix::sys::memfd::{memfd_create, MFdFlags};
use std::ffi::CString;
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Where the next kernel finds what it is given along.
const BAGGAGE: &str = "/baggage";

/// Loads the kernel and the initramfs of this VM, to be started with this command line and, unless there are none, these
/// bytes.
pub fn load(cmdline: &str, baggage: &[u8]) -> Result<()> {
    let (kernel, mut initramfs) = next()?;
    if !baggage.is_empty() {
        initramfs = with_file(initramfs, BAGGAGE, baggage).context("adding to the initramfs")?;
    }
    file_load(&kernel, Some(&initramfs), cmdline).context("kexec_file_load")
}

/// The bytes that this kernel was given along by the one before.
pub fn baggage() -> Result<Option<Vec<u8>>> {
    match std::fs::read(BAGGAGE) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(err) => Err(err).context(BAGGAGE),
    }
}

/// An initramfs with one more file. Archives may follow each other, with zeros between.
fn with_file(initramfs: File, path: &str, content: &[u8]) -> Result<File> {
    let mut all = File::from(memfd_create("initramfs", MFdFlags::MFD_CLOEXEC)?);
    std::io::copy(&mut &initramfs, &mut all)?;
    let end = all.stream_position()?.next_multiple_of(4);
    all.set_len(end)?;
    all.seek(SeekFrom::Start(end))?;
    let entry = cpio::NewcBuilder::new(path.trim_start_matches('/'))
        .mode(0o600)
        .set_mode_file_type(cpio::newc::ModeFileType::Regular);
    let mut writer = entry.write(&all, u32::try_from(content.len())?);
    writer.write_all(content)?;
    writer.finish()?;
    cpio::newc::trailer(&all)?;
    all.rewind()?;
    Ok(all)
}

/// The kernel and the initramfs of this VM.
pub fn next() -> Result<(File, File)> {
    let next = Path::new(NEXT_FOLDER);
    Ok(match next.exists() {
        true => (
            File::open(next.join("kernel"))?,
            File::open(next.join("initramfs"))?,
        ),
        false => (image(DISK_KERNEL)?, image(DISK_INITRAMFS)?),
    })
}

/// Loads something by `kexec_load(2)`, which lets KHO hand nothing over: a page that is no kernel.
pub fn load_untold() -> Result<()> {
    #[repr(C)]
    struct Segment {
        buf: *const u8,
        bufsz: usize,
        mem: usize,
        memsz: usize,
    }
    const AT: usize = 16 << 20;
    let page = [0; 4096];
    let segment = Segment {
        buf: page.as_ptr(),
        bufsz: page.len(),
        mem: AT,
        memsz: page.len(),
    };
    // SAFETY: the segment and its page are alive.
    let ret = unsafe { libc::syscall(libc::SYS_kexec_load, AT, 1, &raw const segment, 0) };
    Errno::result(ret).map(drop).context("kexec_load")
}

/// Unloads what [`load`] loaded.
pub fn unload() -> Result<()> {
    const KEXEC_FILE_UNLOAD: libc::c_ulong = 1;
    // SAFETY: with this flag the kernel looks at no other argument.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_kexec_file_load,
            -1,
            -1,
            0,
            std::ptr::null::<u8>(),
            KEXEC_FILE_UNLOAD,
        )
    };
    Errno::result(ret)
        .map(drop)
        .context("unloading the kexec image")
}

/// Starts the loaded kernel. Returns only when that failed, with the reason.
pub fn execute() -> Errno {
    match nix::sys::reboot::reboot(nix::sys::reboot::RebootMode::RB_KEXEC) {
        Ok(never) => match never {},
        Err(errno) => errno,
    }
}

/// `kexec_file_load(2)` itself.
pub fn file_load(kernel: &File, initramfs: Option<&File>, cmdline: &str) -> Result<(), Errno> {
    const KEXEC_FILE_NO_INITRAMFS: libc::c_ulong = 4;
    let cmdline = CString::new(cmdline).map_err(|_| Errno::EINVAL)?;
    let bytes = cmdline.as_bytes_with_nul();
    let (initramfs, flags) = match initramfs {
        Some(file) => (file.as_raw_fd(), 0),
        None => (-1, KEXEC_FILE_NO_INITRAMFS),
    };
    // SAFETY: the command line is alive and as long as said; descriptors are numbers to the kernel.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_kexec_file_load,
            kernel.as_raw_fd(),
            initramfs,
            bytes.len(),
            bytes.as_ptr(),
            flags,
        )
    };
    Errno::result(ret).map(drop)
}

/// The virtio disk with this serial number.
pub fn disk(serial: &str) -> Result<PathBuf> {
    for entry in std::fs::read_dir("/sys/block")? {
        let entry = entry?;
        let found = std::fs::read_to_string(entry.path().join("serial")).unwrap_or_default();
        if found.trim() == serial {
            return Ok(Path::new("/dev").join(entry.file_name()));
        }
    }
    bail!("this VM has no disk with serial number {serial}")
}

/// A disk's content as a regular file, the only kind of file that the system call reads.
///
/// The disk is padded with zeros to whole sectors, which neither kernel image nor initramfs mind.
fn image(serial: &str) -> Result<File> {
    let mut from = File::open(disk(serial)?)?;
    let mut to = File::from(memfd_create(serial, MFdFlags::MFD_CLOEXEC)?);
    std::io::copy(&mut from, &mut to).with_context(|| format!("reading disk {serial}"))?;
    to.rewind()?;
    Ok(to)
}

/// The little of kexec-tools that a test script needs: `-l [--reuse-cmdline] [--initrd=FILE] KERNEL`, `-e`, `-u`.
pub fn applet(args: impl Iterator<Item = String>) -> ExitCode {
    match run_applet(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            eprintln!("kexec: {err:#}");
            ExitCode::FAILURE
        }
    }
}

fn run_applet(args: impl Iterator<Item = String>) -> Result<()> {
    let (mut wants_load, mut kernel, mut initramfs) = (false, None, None);
    let mut cmdline = String::new();
    for arg in args {
        match arg.as_str() {
            "-l" | "--load" => wants_load = true,
            "-s" | "--kexec-file-syscall" => {}
            "--reuse-cmdline" => cmdline = std::fs::read_to_string("/proc/cmdline")?,
            "-e" | "--exec" => bail!("{}", execute()),
            "-u" | "--unload" => return unload(),
            _ => {
                if let Some(path) = arg.strip_prefix("--initrd=") {
                    initramfs = Some(File::open(path).with_context(|| path.to_string())?);
                } else if let Some(line) = arg.strip_prefix("--append=") {
                    cmdline = format!("{} {line}", cmdline.trim());
                } else if arg.starts_with('-') {
                    bail!("unknown option {arg}");
                } else {
                    kernel = Some(File::open(&arg).with_context(|| arg.clone())?);
                }
            }
        }
    }
    match (wants_load, kernel) {
        (true, Some(kernel)) => Ok(file_load(&kernel, initramfs.as_ref(), cmdline.trim())?),
        _ => bail!("nothing to do"),
    }
}

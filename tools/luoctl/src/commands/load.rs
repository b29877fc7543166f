// SPDX-License-Identifier: GPL-2.0

//! `luoctl load` and `luoctl unload`

use crate::cli;
use crate::failure::{Failure, Result, Status};
use crate::kexec;
use crate::machine::{parameter, Machine};
use crate::output::{bytes, note, say};
use crate::progress::Progress;
use std::fs::File;
use std::io;
use std::path::Path;

/// Loads a kernel.
pub fn run(args: &cli::Load) -> Result<()> {
    let machine = Machine::default();
    let line = command_line(args, machine.command_line())?;
    let kernel = open(&args.kernel, "kernel")?;
    let initrd = args
        .initrd
        .as_deref()
        .map(|path| open(path, "initrd"))
        .transpose()?;
    if let Some(warning) = forgets_handover(&line, &machine) {
        note(warning);
    }
    let progress = Progress::spinner("loading the next kernel");
    let loaded = kexec::load(&kernel, initrd.as_ref(), &line);
    drop(progress);
    let sizes = Sizes {
        kernel: size(&kernel),
        initrd: initrd.as_ref().map(size),
    };
    loaded.map_err(|error| refused(&error, args, &sizes, machine.scratch().as_deref()))?;
    say(format_args!("loaded: {sizes}, to be started with: {line}"));
    Ok(())
}

/// Takes it back.
pub fn unload() -> Result<()> {
    kexec::unload().map_err(|error| {
        let next = "run it as root, on a kernel with CONFIG_KEXEC_FILE";
        Failure::io("cannot unload the next kernel", error, next)
    })
}

fn open(path: &Path, what: &str) -> Result<File> {
    let file = File::open(path).map_err(|error| {
        let what = format!("the {what} {}", path.display());
        Failure::io(what, error, "give the path of a file that you may read")
    })?;
    let wrong = match file.metadata() {
        Ok(metadata) if !metadata.is_file() => "is not a regular file, and kexec reads no other",
        Ok(metadata) if metadata.len() == 0 => "is empty",
        _ => return Ok(file),
    };
    Err(Failure::new(
        Status::Failed,
        format_args!("the {what} {} {wrong}", path.display()),
        "give the path of another",
    ))
}

fn size(file: &File) -> u64 {
    file.metadata().map_or(0, |metadata| metadata.len())
}

/// What the next kernel is to be started with.
fn command_line(args: &cli::Load, of_this_kernel: Option<String>) -> Result<String> {
    let mut words: Vec<String> = Vec::new();
    if args.reuse_cmdline {
        let line = of_this_kernel.ok_or_else(|| {
            let next = "mount proc on /proc, or give --command-line";
            Failure::new(
                Status::Failed,
                "this kernel's command line cannot be read",
                next,
            )
        })?;
        // The boot loader's name for this kernel is not that of the next.
        let reused = line
            .split_whitespace()
            .filter(|word| !word.starts_with("BOOT_IMAGE="));
        words.push(reused.collect::<Vec<_>>().join(" "));
    }
    words.extend(args.command_line.clone());
    words.extend(args.append.clone());
    Ok(words.join(" ").trim().to_string())
}

/// A warning if the next kernel would not take what this one hands on, as far as the command lines tell.
fn forgets_handover(line: &str, machine: &Machine) -> Option<&'static str> {
    let here = machine.parameter("kho");
    match (here.as_deref(), parameter(line, "kho")) {
        (_, Some("off" | "0" | "n")) => {
            Some("kho=off: the next kernel will not take over any session")
        }
        (Some(_), None) => Some(
            "this kernel was started with kho=on, the next one is not: \
             unless that is its default, it will not take over any session",
        ),
        _ => None,
    }
}

struct Sizes {
    kernel: u64,
    initrd: Option<u64>,
}

impl std::fmt::Display for Sizes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "a kernel of {}", bytes(self.kernel))?;
        match self.initrd {
            Some(initrd) => write!(f, " and an initrd of {}", bytes(initrd)),
            None => Ok(()),
        }
    }
}

/// kexec_file_load(2) has failed.
fn refused(error: &io::Error, args: &cli::Load, sizes: &Sizes, scratch: Option<&[u64]>) -> Failure {
    let kernel = args.kernel.display();
    let (status, cause, next) = match error.raw_os_error() {
        Some(libc::EADDRNOTAVAIL) => {
            let parts = scratch.unwrap_or_default().iter();
            let parts: Vec<String> = parts.map(|&size| bytes(size)).collect();
            let have = match parts.is_empty() {
                true => "KHO's scratch area".into(),
                false => format!("KHO's scratch area, with parts of {}", parts.join(", ")),
            };
            (
                Status::Failed,
                format!("{sizes} do not fit into {have}"),
                "take a smaller initrd, or boot with a larger area, such as kho_scratch=16M,1G,256M",
            )
        }
        Some(libc::ENOEXEC) => (
            Status::Failed,
            format!("{kernel} is not a kernel that can be started by kexec"),
            "give the path of a bzImage, such as /boot/vmlinuz-VERSION",
        ),
        Some(libc::EPERM | libc::EACCES) => (
            Status::Permission,
            "loading a kernel is not permitted".into(),
            "run it as root; if you are, kexec was disabled (kernel.kexec_load_disabled) or the kernel is locked down",
        ),
        Some(libc::EBUSY) => (
            Status::Busy,
            "another program loads or starts a kernel just now".into(),
            "try again when it is done",
        ),
        Some(libc::ENOSYS) => (
            Status::NotReady,
            "this kernel has no kexec_file_load(2)".into(),
            "boot a kernel with CONFIG_KEXEC_FILE",
        ),
        Some(libc::EKEYREJECTED | libc::ENODATA | libc::ENOKEY) => (
            Status::Failed,
            format!("the signature of {kernel} is missing or not trusted"),
            "take a kernel that is signed by a key of this machine",
        ),
        Some(libc::ENOMEM) => (
            Status::Failed,
            format!("no memory for {sizes}"),
            "free some memory, then try again",
        ),
        _ => (
            Status::Failed,
            format!("loading {kernel}: {error}"),
            "`dmesg | tail` may say why",
        ),
    };
    Failure::new(status, cause, next)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::tests::folder;

    fn args(reuse_cmdline: bool, command_line: Option<&str>, append: Option<&str>) -> cli::Load {
        cli::Load {
            kernel: "/boot/vmlinuz".into(),
            initrd: None,
            reuse_cmdline,
            command_line: command_line.map(str::to_string),
            append: append.map(str::to_string),
        }
    }

    #[test]
    fn command_lines_are_put_together() {
        let here = || Some("BOOT_IMAGE=/vmlinuz root=/dev/vda kho=on".to_string());
        let line = |args| command_line(&args, here()).unwrap();
        assert_eq!(line(args(true, None, None)), "root=/dev/vda kho=on");
        assert_eq!(
            line(args(true, None, Some("quiet"))),
            "root=/dev/vda kho=on quiet"
        );
        assert_eq!(line(args(false, Some("kho=on"), None)), "kho=on");
        assert_eq!(line(args(false, Some(""), None)), "");
        assert!(command_line(&args(true, None, None), None).is_err());
    }

    #[test]
    fn a_next_kernel_without_handover_is_warned_of() {
        let root = folder(&[("proc/cmdline", "kho=on\n")]);
        let with = Machine::at(root.path());
        assert!(forgets_handover("quiet", &with).is_some());
        assert!(forgets_handover("quiet kho=on", &with).is_none());
        assert!(forgets_handover("kho=on kho=off", &with).is_some());
        let root = folder(&[("proc/cmdline", "quiet\n")]);
        assert!(forgets_handover("quiet", &Machine::at(root.path())).is_none());
    }

    #[test]
    fn refusals_name_cause_and_next_step() {
        let sizes = Sizes {
            kernel: 4 << 20,
            initrd: Some(512 << 20),
        };
        let of = |errno| {
            let error = io::Error::from_raw_os_error(errno);
            refused(
                &error,
                &args(true, None, None),
                &sizes,
                Some(&[16 << 20, 64 << 20]),
            )
        };
        let large = of(libc::EADDRNOTAVAIL);
        assert_eq!(
            large.cause,
            "a kernel of 4.00 MiB and an initrd of 512.00 MiB do not fit into KHO's scratch area, \
             with parts of 16.00 MiB, 64.00 MiB"
        );
        assert!(large.next.contains("kho_scratch="));
        assert!(of(libc::ENOEXEC).cause.contains("/boot/vmlinuz"));
        assert_eq!(of(libc::EPERM).status, Status::Permission);
        assert_eq!(
            of(libc::EIO).cause,
            "loading /boot/vmlinuz: Input/output error (os error 5)"
        );
    }
}

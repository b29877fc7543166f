// SPDX-License-Identifier: GPL-2.0

//! Sizes, pointers and numbers of commands: what is malformed is refused, and nothing comes of it.

use super::common::command::{Answer, Command};
use super::common::luo::{ioctl, number, Device, FdArg, Session, RETRIEVE_FD};
use super::common::pages::{Pages, PAGE};
use super::common::{data, is_ours, memfd, no_fd_leak, refused, still_works};
use crate::ctx::Ctx;
use crate::test::{Config, Test};
use anyhow::{ensure, Context, Result};
use nix::errno::Errno;
use std::ffi::c_void;
use std::fs::File;
use std::os::fd::AsRawFd;

/// The cases.
pub const TESTS: &[Test] = &[
    Test::new("sizes", Config::new(), &[sizes]),
    Test::new("pointers", Config::new(), &[pointers]),
    Test::new("larger_works", Config::new(), &[larger_works]),
    Test::new("unaligned_works", Config::new(), &[unaligned_works]),
    Test::new("device_numbers", Config::new(), &[device_numbers]),
    Test::new("session_numbers", Config::new(), &[session_numbers]),
    Test::new("extension_numbers", Config::new(), &[extension_numbers]),
    Test::new("incoming", Config::new(), &[hand_on, incoming]),
];

/// A device, a session and a file, of which nothing was asked yet.
struct Bench {
    device: Device,
    session: Session,
    file: File,
}

impl Bench {
    fn new(_: &Ctx) -> Result<Self> {
        let device = Device::open()?;
        Ok(Self {
            session: device.create_session("bench")?,
            device,
            file: memfd::create(PAGE as u64)?,
        })
    }

    /// Every command that can succeed before a kexec.
    fn commands(&self) -> [Command; 3] {
        [
            Command::create(&self.device, "created"),
            Command::preserve(&self.session, &self.file, 1),
            Command::get_name(&self.session),
        ]
    }

    /// Fails if any command left something behind: each of them can still be issued.
    fn is_untouched(&self) -> Result<()> {
        for command in self.commands() {
            let issued = command.issue()?;
            issued.with_context(|| format!("{} as it should be", command.what))?;
        }
        still_works(&self.session)
    }
}

/// Issues it, and fails unless it is refused like this and no descriptor comes of it.
fn refuse(command: &Command, why: &str, wanted: Errno) -> Result<()> {
    let what = format!("{}, {why}", command.what);
    no_fd_leak(&what, || refused(&what, command.issue()?, wanted))
}

fn bad_sizes(command: &Command) -> Result<()> {
    let len = command.arg.len();
    for size in [0, 1, 3, 4, 7, len as u32 - 1] {
        let why = format!("size {size}");
        refuse(&command.resized(size, len), &why, Errno::EINVAL)?;
        // The size is looked at before the rest is, which here is not there.
        let why = format!("size {size} and nothing else");
        refuse(&command.resized(size, 4), &why, Errno::EINVAL)?;
    }
    for tail in [1, 7, 8, PAGE, 5 * PAGE] {
        let mut bytes = vec![0; tail];
        bytes[tail - 1] = 1;
        let why = format!("{tail} bytes more, the last not zero");
        refuse(&command.with_tail(&bytes), &why, Errno::E2BIG)?;
        bytes[0] = 0x80;
        let why = format!("{tail} bytes more, the first not zero");
        refuse(&command.with_tail(&bytes), &why, Errno::E2BIG)?;
    }
    for size in [len as u32 + 1, len as u32 + 4096, i32::MAX as u32, u32::MAX] {
        let why = format!("size {size}, but the memory ends before");
        refuse(&command.resized(size, len), &why, Errno::EFAULT)?;
    }
    // What is not zero counts before the end of the memory does.
    for before in [0, 8, 100] {
        let mut tail = vec![0; before + 1];
        tail[before] = 1;
        let command = command.with_tail(&tail);
        let len = command.arg.len();
        let why = format!("{before} bytes more, one not zero, then the memory ends");
        refuse(&command.resized(len as u32 + 100, len), &why, Errno::E2BIG)?;
    }
    Ok(())
}

fn bad_pointers(command: &Command) -> Result<()> {
    let mut pages = Pages::new(1)?;
    let end = pages.at_end(&[]);
    let size = (command.arg.len() as u32).to_ne_bytes();
    let addresses: [(&str, *mut c_void); 6] = [
        ("a null pointer", std::ptr::null_mut()),
        ("a pointer to 1", std::ptr::without_provenance_mut(1)),
        ("a pointer to unmapped memory", end),
        (
            "a pointer to kernel memory",
            std::ptr::without_provenance_mut(0xffff_8880_0000_0000),
        ),
        (
            "a pointer that no address is",
            std::ptr::without_provenance_mut(0x8000_0000_0000_0000),
        ),
        ("only half of the size field", pages.at_end(&size[..2])),
    ];
    for (why, address) in addresses {
        let what = format!("{}, {why}", command.what);
        no_fd_leak(&what, || {
            refused(&what, command.issue_at(address), Errno::EFAULT)
        })?;
    }
    for missing in [1, 4, command.arg.len() - 4] {
        let len = command.arg.len();
        let why = format!("the last {missing} bytes not there");
        refuse(
            &command.resized(len as u32, len - missing),
            &why,
            Errno::EFAULT,
        )?;
    }
    Ok(())
}

/// A larger struct whose surplus is zero is taken, and the surplus left as it is.
fn larger(command: &Command, tail: usize) -> Result<Answer> {
    let larger = command.with_tail(&vec![0; tail]);
    let answer = larger
        .issue()?
        .with_context(|| format!("{} with {tail} bytes more", command.what))?;
    let (head, rest) = answer.bytes.split_at(command.arg.len());
    ensure!(head[..4] == larger.arg[..4], "the size was changed");
    ensure!(rest.iter().all(|&byte| byte == 0), "the tail was changed");
    Ok(answer)
}

fn sizes(ctx: &mut Ctx) -> Result<()> {
    let bench = Bench::new(ctx)?;
    bench.commands().iter().try_for_each(bad_sizes)?;
    bad_sizes(&Command::retrieve_session(&bench.device, "nothing"))?;
    bench.is_untouched()
}

fn pointers(ctx: &mut Ctx) -> Result<()> {
    let bench = Bench::new(ctx)?;
    bench.commands().iter().try_for_each(bad_pointers)?;
    bad_pointers(&Command::retrieve_session(&bench.device, "nothing"))?;
    bench.is_untouched()
}

fn larger_works(ctx: &mut Ctx) -> Result<()> {
    for tail in [1, 8, 100, PAGE, 1 << 20] {
        let bench = Bench::new(ctx)?;
        for command in bench.commands() {
            larger(&command, tail)?;
        }
        still_works(&bench.session)?;
    }
    Ok(())
}

fn unaligned_works(ctx: &mut Ctx) -> Result<()> {
    let bench = Bench::new(ctx)?;
    let mut pages = Pages::new(2)?;
    for command in bench.commands() {
        for offset in [PAGE + 1, PAGE - 3, PAGE - 13] {
            if command.what == "PRESERVE_FD" && offset != PAGE - 3 {
                continue; // a file is preserved once
            }
            let at = pages.put(offset, &command.arg);
            command
                .issue_at(at)
                .with_context(|| format!("{} at offset {offset}", command.what))?;
            drop(command.fd_in(&pages.bytes()[offset..]));
        }
    }
    Ok(())
}

/// `_IOWR(0xBA, nr, 72)`
fn with_direction(nr: u8) -> u32 {
    3 << 30 | 72 << 16 | number(nr)
}

/// `_IO(0xBB, nr)`
fn of_other_type(nr: u8) -> u32 {
    number(nr) + 0x100
}

/// A number that is known but for its type, direction or size: ENOTTY, once the size could be read.
fn bad_encoding(command: &Command) -> Result<()> {
    let nr = command.number as u8;
    for number in [
        with_direction(nr),
        of_other_type(nr),
        command.number | 1 << 16,
    ] {
        let wrong = command.renumbered(number);
        let why = format!("as {number:#x}");
        refuse(&wrong, &why, Errno::ENOTTY)?;
        refuse(&wrong.resized(0, 4), &why, Errno::ENOTTY)?;
        refused(
            &format!("{} as {number:#x} of nothing", command.what),
            wrong.issue_at(std::ptr::null_mut()),
            Errno::EFAULT,
        )?;
    }
    Ok(())
}

/// A number that is not known: refused before the pointer is looked at.
fn unknown(command: &Command, nr: u8, wanted: Errno) -> Result<()> {
    for number in [number(nr), with_direction(nr), of_other_type(nr)] {
        let unknown = command.renumbered(number);
        let what = format!("number {number:#x} instead of {}", command.what);
        refuse(&unknown, &what, wanted)?;
        let at_null = unknown.issue_at(std::ptr::null_mut());
        refused(&format!("{what}, a null pointer"), at_null, wanted)?;
    }
    Ok(())
}

fn device_numbers(ctx: &mut Ctx) -> Result<()> {
    let bench = Bench::new(ctx)?;
    let create = Command::create(&bench.device, "created");
    bad_encoding(&create)?;
    bad_encoding(&Command::retrieve_session(&bench.device, "nothing"))?;
    for nr in [0x02, 0x3f, 0x40, 0x41, 0x42, 0x43, 0x7f, 0x9f] {
        unknown(&create, nr, Errno::EINVAL)?;
    }
    bench.is_untouched()
}

fn session_numbers(ctx: &mut Ctx) -> Result<()> {
    let bench = Bench::new(ctx)?;
    let preserve = Command::preserve(&bench.session, &bench.file, 1);
    bad_encoding(&preserve)?;
    bad_encoding(&Command::get_name(&bench.session))?;
    // The encoding is looked at before the kind of session.
    bad_encoding(&Command::retrieve(&bench.session, 1))?;
    bad_encoding(&Command::finish(&bench.session))?;
    for nr in [0x00, 0x01, 0x02, 0x3f, 0x44, 0x7f, 0x9f] {
        unknown(&preserve, nr, Errno::EINVAL)?;
    }
    bench.is_untouched()
}

fn extension_numbers(ctx: &mut Ctx) -> Result<()> {
    let bench = Bench::new(ctx)?;
    let [create, preserve, _] = bench.commands();
    let wanted = match is_ours(ctx) {
        true => Errno::ENOTTY,
        false => Errno::EINVAL,
    };
    for nr in [0xbf, 0xe0, 0xff] {
        unknown(&create, nr, wanted)?;
    }
    for nr in [0xdf, 0xe0, 0xff] {
        unknown(&preserve, nr, wanted)?;
    }
    bench.is_untouched()
}

fn hand_on(ctx: &mut Ctx) -> Result<()> {
    let session = Device::open()?.create_session("abi")?;
    for token in [1, 2] {
        let file = memfd::create(10_000)?;
        data::fill(&file, token, data::whole(10_000))?;
        session.preserve(&file, token)?;
    }
    ctx.keep(session);
    Ok(())
}

fn incoming(_: &mut Ctx) -> Result<()> {
    let device = Device::open()?;
    let command = Command::retrieve_session(&device, "abi");
    bad_sizes(&command)?;
    bad_pointers(&command)?;
    bad_encoding(&command)?;
    let session = Session(larger(&command, 40)?.fd.context("no descriptor")?);

    let commands = [
        Command::retrieve(&session, 1),
        Command::get_name(&session),
        Command::finish(&session),
    ];
    for command in &commands {
        bad_sizes(command)?;
        bad_pointers(command)?;
        bad_encoding(command)?;
    }
    // Who is refused has no descriptor, and no number that may be one soon.
    let mut unknown = FdArg::new(-1, 77);
    let retrieved = ioctl(session.0.as_raw_fd(), RETRIEVE_FD, &mut unknown);
    refused("an unknown token", retrieved, Errno::ENOENT)?;
    ensure!(unknown.fd == -1, "the answer is descriptor {}", unknown.fd);
    for token in [1, 2] {
        let answer = larger(&Command::retrieve(&session, token), 8)?;
        let file = File::from(answer.fd.context("no descriptor")?);
        data::check(&file, token, 10_000, &[data::whole(10_000)])?;
    }
    larger(&commands[1], 8)?;
    larger(&commands[2], 8)?;
    Ok(())
}

// SPDX-License-Identifier: GPL-2.0

//! A thread starts a program while another one of its process is within PRESERVE_FD: execve(2) kills that one, and closes
//! what is not to be inherited.

use super::super::common::luo::{Device, Session};
use super::super::common::modules::{Kind, Recorder};
use super::super::common::still_works;
use super::super::races::LONG;
use crate::ctx::Ctx;
use crate::process::{Child, Said};
use anyhow::{ensure, Context, Result};
use nix::fcntl::OFlag;
use nix::sys::wait::WaitStatus;
use nix::unistd::pipe2;
use std::convert::Infallible;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::process::Command;

const NAME: &str = "execed";

/// Which thread starts the program: its process id stays that of the first one.
#[derive(Clone, Copy, Debug)]
enum Who {
    First,
    Other,
}

/// The program has nothing of the session, whose name is free, and nothing of the file, which is as before.
pub fn execed(ctx: &mut Ctx) -> Result<()> {
    let recorder = Recorder::new(ctx)?;
    let file = recorder.open(Kind::A, 1)?;
    for who in [Who::First, Who::Other] {
        one(ctx, &recorder, &file, who).with_context(|| format!("by thread {who:?}"))?;
    }
    drop(file);
    recorder.remove()
}

fn one(ctx: &Ctx, recorder: &Recorder, file: &File, who: Who) -> Result<()> {
    recorder.take()?;
    recorder.hold("preserve", 1)?;
    let (input, orders) = pipe2(OFlag::O_CLOEXEC)?;
    let input = File::from(input);
    let mut child = Child::spawn(|pipe| {
        // If all goes well it is the program that has something to say.
        let Err(error) = preserve_and_exec(file, who, input, pipe);
        let _ = writeln!(pipe, "{error:#}");
    })?;
    recorder.wait_for(ctx, "preserve a1")?;
    let mut orders = File::from(orders);
    orders.write_all(b"!")?;
    let said = child.listen(LONG)?;
    ensure!(said == Said::Line("here".into()), "it says {said:?}");

    let device = Device::open().context("the device")?;
    let session = device.create_session(NAME).context("its name")?;
    recorder.expect(
        "it was taken back",
        "x.preserve, y.preserve, preserve a1, y.unpreserve, x.unpreserve",
    )?;
    session.preserve(file, 1).context("the file")?;
    still_works(&session)?;
    drop(session);
    let live = recorder.live()?;
    ensure!(live == 0, "{live} pages are left");

    ensure!(!child.has_ended()?, "the program is gone");
    drop(orders);
    let end = child.wait()?;
    ensure!(matches!(end, WaitStatus::Exited(_, 0)), "{end:?}");
    Ok(())
}

/// Makes a session in this process, for two threads: one puts the file into it, and the other one becomes a program when
/// it is told to. Its input and output are what it is given.
fn preserve_and_exec(file: &File, who: Who, mut input: File, output: &File) -> Result<Infallible> {
    let device = Device::open()?;
    let session: Session = device.create_session(NAME)?;
    let mut program = Command::new("/init");
    program.arg("stay").stdout(output.try_clone()?);
    let exec = move || -> Result<Infallible> {
        input.read_exact(&mut [0])?;
        Err(program.stdin(input).exec().into())
    };
    let preserve = || session.preserve(file, 1);
    std::thread::scope(|scope| match who {
        Who::First => {
            scope.spawn(preserve);
            exec()
        }
        Who::Other => {
            let exec = scope.spawn(exec);
            // Not to come back.
            let preserved = preserve();
            exec.join()
                .expect("no panic")
                .with_context(|| format!("PRESERVE_FD: {preserved:?}"))
        }
    })
}

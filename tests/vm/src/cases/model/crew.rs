// SPDX-License-Identifier: GPL-2.0

//! The processes and threads that do what the model says, one step at a time.

use super::finish_all;
use super::hands::{Hands, Mailbox};
use crate::cases::common::luo::Device;
use crate::cases::common::modules::Recorder;
use crate::ctx::Ctx;
use crate::kexec;
use crate::process::Child;
use anyhow::{ensure, Context, Result};
use luo_model::{Answer, Callback, Command, Errno, Layout, Step, Told, World};
use nix::errno::Errno as Raw;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

/// Longer than any step takes.
const PATIENCE: Duration = Duration::from_secs(60);
/// Room for a command or an answer.
const MESSAGE: usize = 1 << 14;
/// After so many steps the recorder's record is emptied, which has room for some thousand lines.
const RECORD: usize = 500;

/// A process, and the lines to its threads.
struct Member {
    child: Child,
    lines: Vec<UnixDatagram>,
}

/// All processes of a layout, and what they share.
pub struct Crew {
    layout: Layout,
    members: Vec<Member>,
    mailbox: Mailbox,
    device: Device,
    recorder: Recorder,
    /// Whether the next kernel is loaded.
    loaded: bool,
    steps: usize,
}

impl Crew {
    /// Brings them into being.
    pub fn new(ctx: &Ctx, layout: &Layout) -> Result<Self> {
        let mut crew = Self {
            layout: layout.clone(),
            members: Vec::new(),
            mailbox: Mailbox::new()?,
            device: Device::open()?,
            recorder: Recorder::new(ctx)?,
            loaded: false,
            steps: 0,
        };
        for _ in 0..layout.processes {
            let member = crew.new_member()?;
            crew.members.push(member);
        }
        Ok(crew)
    }

    /// The device that all of them have.
    pub fn device(&self) -> RawFd {
        self.device.0.as_raw_fd()
    }

    fn new_member(&self) -> Result<Member> {
        let pairs: std::io::Result<Vec<_>> = (0..self.layout.threads)
            .map(|_| UnixDatagram::pair())
            .collect();
        let (lines, theirs): (Vec<_>, Vec<_>) = pairs?.into_iter().unzip();
        for line in &lines {
            line.set_read_timeout(Some(PATIENCE))?;
        }
        let child = Child::spawn(|_| {
            let hands = Hands::new(self.device(), &self.mailbox, &self.layout);
            std::thread::scope(|scope| {
                for line in &theirs {
                    scope.spawn(|| serve(line, &hands));
                }
            });
        })?;
        Ok(Member { child, lines })
    }

    /// Does a step, of which the model thinks that it begins in this world.
    pub fn perform(&mut self, ctx: &Ctx, step: &Step, world: &World) -> Result<Answer> {
        self.steps += 1;
        if self.steps % RECORD == 0 {
            self.recorder.take()?;
        }
        match step.command {
            Command::Kill(process) => {
                self.recorder.open_gate()?;
                let new = self.new_member()?;
                let old = std::mem::replace(&mut self.members[usize::from(process)], new);
                old.child.kill()?;
                Ok(Ok(Told::Nothing))
            }
            Command::FailNext(callback) => {
                let callback = match callback {
                    Callback::Preserve => "preserve",
                    Callback::PreserveX => "x.preserve",
                    Callback::PreserveY => "y.preserve",
                    Callback::Retrieve => "retrieve",
                    Callback::CanFinish => "can_finish",
                };
                self.recorder.fail(callback, 1, Raw::EIO)?;
                Ok(Ok(Told::Nothing))
            }
            Command::RefusedKexec if world.can_refuse_kexec() => {
                if !self.loaded {
                    ctx.kexec_load()?;
                    self.loaded = true;
                }
                self.recorder.fail("freeze", 1, Raw::EIO)?;
                Ok(Err(Errno::from(kexec::execute() as i32)))
            }
            Command::RefusedKexec => Ok(Ok(Told::Nothing)),
            ref command => self.ask(step, command),
        }
    }

    fn ask(&self, step: &Step, command: &Command) -> Result<Answer> {
        let line = &self.members[usize::from(step.by.process)].lines[usize::from(step.by.thread)];
        line.send(&postcard::to_allocvec(command)?)?;
        let mut message = [0; MESSAGE];
        let len = line.recv(&mut message).context("no answer")?;
        Ok(postcard::from_bytes(&message[..len])?)
    }

    /// Ends all of it, finishes what the previous kernel handed over, and says whether nothing is left.
    pub fn end(self) -> Result<bool> {
        for member in self.members {
            member.child.kill()?;
        }
        drop(self.mailbox);
        self.recorder.open_gate()?;
        finish_all(&self.device, None)?;
        let (_, sessions) = self.device.list_sessions(0, 0)?;
        let live = self.recorder.live()?;
        drop(self.device);
        self.recorder.remove()?;
        ensure!(
            sessions != 0 || live == 0,
            "{live} preserved pages and no session"
        );
        Ok(sessions == 0)
    }
}

/// A thread: does what it is told, until its process is killed.
fn serve(line: &UnixDatagram, hands: &Hands<'_>) {
    let mut message = [0; MESSAGE];
    while let Ok(len) = line.recv(&mut message) {
        let Ok(command) = postcard::from_bytes(&message[..len]) else {
            return;
        };
        let answer = hands.perform(&command);
        let Ok(answer) = postcard::to_allocvec(&answer) else {
            return;
        };
        if line.send(&answer).is_err() {
            return;
        }
    }
}

/// Does a step, and says how it was answered, or what is wrong with that.
pub fn compare(
    ctx: &Ctx,
    crew: &mut Crew,
    world: &mut World,
    step: &Step,
) -> Result<Result<String, String>> {
    let answer = crew
        .perform(ctx, step, world)
        .with_context(|| step.to_string())?;
    let wanted: Answer = world.apply(step);
    Ok(match answer == wanted {
        true => Ok(answer.map_or_else(|errno| format!("{errno:?}"), |_| "ok".into())),
        false => Err(format!(
            "{step}\n  answered {answer:?}\n  instead of {wanted:?}"
        )),
    })
}

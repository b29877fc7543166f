// SPDX-License-Identifier: GPL-2.0

//! A small virtual machine monitor whose guest lives through an update of its host's kernel.
//!
//! From the outside in: [`control`] takes commands, [`agent`] knows the way of a guest from one kernel to the next,
//! [`blob`] is what goes beside its memory, [`vm`] puts a virtual machine together or saves it, of [`memory`],
//! processors ([`vcpu`] their state, [`runner`] their threads) and a [`serial`] port. Only a new guest needs [`boot`].

mod agent;
mod blob;
mod boot;
mod control;
mod kick;
mod log;
mod memory;
mod mptable;
mod raw;
mod runner;
mod serial;
mod tsc;
mod vcpu;
mod vm;

use agent::Agent;
use anyhow::{ensure, Context, Result};
use boot::Image;
use clap::{Args, Parser};
use control::{Command, Request};
use liveupdate::{Device, IncomingSession, SessionName};
use log::log;
use memory::GuestRam;
use runner::End;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, Sender};
use std::sync::Arc;
use vm::{OnEnd, Vm};

/// A small virtual machine monitor whose guest lives through an update of its host's kernel.
///
/// What the guest says on its serial port goes to standard output. Ends with 0 when the guest resets itself, with 1
/// when something went wrong.
#[derive(Parser)]
#[command(version)]
enum Cli {
    /// Boot a new guest
    Run(RunArgs),
    /// Go on with the guest that the previous kernel handed on
    Resume(ResumeArgs),
    /// Give a command to a VMM that runs
    Send(SendArgs),
}

#[derive(Args)]
struct RunArgs {
    /// Where to take commands
    #[arg(long)]
    socket: PathBuf,
    /// Name of the live update session that the guest is put into
    #[arg(long)]
    session: String,
    /// The guest's kernel, a bzImage
    #[arg(long)]
    kernel: PathBuf,
    /// Its initramfs
    #[arg(long)]
    initramfs: PathBuf,
    /// Its command line
    #[arg(long, default_value = "console=ttyS0 reboot=t panic=-1 pci=off")]
    append: String,
    /// Its memory in MiB
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u64).range(16..=memory::MAX_SIZE >> 20))]
    memory: u64,
    /// Its processors
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=64))]
    cpus: u8,
}

#[derive(Args)]
struct ResumeArgs {
    /// Where to take commands
    #[arg(long)]
    socket: PathBuf,
    /// Name of the session that the guest is in. If the guest cannot go on it is lost, unless somebody else holds the
    /// session: see --session-fd
    #[arg(long, required_unless_present = "session_fd")]
    session: Option<String>,
    /// Number of the session's descriptor, inherited from somebody who has retrieved it and holds it, too
    #[arg(long, conflicts_with = "session")]
    session_fd: Option<RawFd>,
}

#[derive(Args)]
struct SendArgs {
    /// Where the VMM takes commands
    #[arg(long)]
    socket: PathBuf,
    command: Command,
}

/// What the main thread waits for.
enum Event {
    End(End),
    Request(Request),
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            eprintln!("luo-vmm: {err:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<()> {
    kick::prepare()?;
    let (events, receiver) = std::sync::mpsc::channel();
    match cli {
        Cli::Run(args) => {
            let kvm = vm::open_kvm()?;
            let name = SessionName::new(&args.session)?;
            let image = Image {
                kernel: args.kernel,
                initramfs: args.initramfs,
                cmdline: args.append,
            };
            let ram = GuestRam::create(args.memory << 20)?;
            let on_end = on_end(&events);
            listen(args.socket, events)?;
            let vm = Vm::boot(&kvm, ram, &image, args.cpus, &on_end)?;
            let mut agent = Agent::new(vm, name, args.cpus)?;
            agent.resume()?;
            serve(agent, &receiver)
        }
        Cli::Resume(args) => {
            // What may be missing first: once the session is taken, the guest depends on this program.
            let kvm = vm::open_kvm()?;
            let on_end = on_end(&events);
            listen(args.socket.clone(), events)?;
            let agent = Agent::take_over(&kvm, incoming(&args)?, &on_end)?;
            serve(agent, &receiver)
        }
        Cli::Send(args) => {
            println!("{}", control::send(&args.socket, args.command)?);
            Ok(())
        }
    }
}

fn incoming(args: &ResumeArgs) -> Result<IncomingSession> {
    match (args.session_fd, &args.session) {
        (Some(number), _) => {
            ensure!(number > 2, "descriptor {number} is no session");
            // SAFETY: whoever started this program left it the descriptor, as --session-fd says, and nothing here has
            // it.
            let session = IncomingSession::from(unsafe { OwnedFd::from_raw_fd(number) });
            let name = session
                .name()
                .with_context(|| format!("descriptor {number}"))?;
            log!("the session {name}");
            Ok(session)
        }
        (None, name) => Ok(Device::open()?.retrieve_session(name.as_deref().unwrap_or_default())?),
    }
}

fn on_end(events: &Sender<Event>) -> OnEnd {
    let events = events.clone();
    Arc::new(move |end| {
        // Nobody waits any more if the program is about to end.
        let _ = events.send(Event::End(end));
    })
}

fn listen(socket: PathBuf, events: Sender<Event>) -> Result<()> {
    control::listen(&socket, move |request| {
        events
            .send(Event::Request(request))
            .context("the VMM ended")
    })
}

/// Does what it is told, until the guest is over.
fn serve(mut agent: Agent, events: &Receiver<Event>) -> Result<()> {
    for event in events {
        match event {
            Event::End(End::Reset) => {
                log!("the guest has reset itself");
                return Ok(());
            }
            Event::End(End::Failed(err)) => return Err(err),
            Event::Request((command, answer)) => {
                // Who asked may be gone by now.
                let _ = answer.send(obey(&mut agent, command));
            }
        }
    }
    Ok(())
}

fn obey(agent: &mut Agent, command: Command) -> Result<String> {
    match command {
        Command::Status => {}
        Command::Preserve => agent.preserve()?,
        Command::Unpreserve => agent.unpreserve(),
        Command::Pause => drop(agent.pause()?),
        Command::Resume => agent.resume()?,
        Command::Update => agent.update()?,
    }
    Ok(agent.status())
}

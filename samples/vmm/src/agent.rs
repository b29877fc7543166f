// SPDX-License-Identifier: GPL-2.0

//! How a guest gets from one kernel of its host to the next.
//!
//! Two memfds go: the guest's memory under [`RAM_TOKEN`], and what is left of the VM (see [`VmState`]) under
//! [`STATE_TOKEN`]. To preserve the memory is what takes long, and the guest runs meanwhile. The state is written when
//! it stands still: its memfd is preserved before, too, with its pages in place, so that next to nothing is left to do.

use crate::blob;
use crate::log::log;
use crate::memory::GuestRam;
use crate::tsc;
use crate::vm::{OnEnd, Vm, VmState};
use anyhow::{bail, ensure, Context, Result};
use kvm_ioctls::Kvm;
use liveupdate::{Device, IncomingSession, OutgoingSession, SessionName};
use rustix::fs::{fallocate, memfd_create, FallocateFlags, MemfdFlags};
use rustix::system::{reboot, RebootCommand};
use std::fs::File;
use std::os::unix::fs::FileExt;

/// Under which the guest's memory is preserved.
const RAM_TOKEN: u64 = 1;
/// Under which the state of the VM is preserved.
const STATE_TOKEN: u64 = 2;
/// Room for the state: a processor takes some 10 KiB.
const STATE_SIZE: u64 = 64 << 10;
const STATE_SIZE_OF_CPU: u64 = 32 << 10;

/// A guest and what it takes to hand it over.
pub struct Agent {
    vm: Vm,
    running: bool,
    name: SessionName,
    state: File,
    session: Option<OutgoingSession>,
    /// The session that the guest came in, if it could not be finished yet.
    unfinished: Option<IncomingSession>,
}

impl Agent {
    /// The agent of a new guest with so many processors. Its session will have this name.
    pub fn new(vm: Vm, name: SessionName, cpus: u8) -> Result<Self> {
        let state = File::from(memfd_create("guest-state", MemfdFlags::CLOEXEC)?);
        let size = STATE_SIZE + u64::from(cpus) * STATE_SIZE_OF_CPU;
        // With its pages: a preserved memfd does not grow, and freeze would have to see to every hole that was filled.
        fallocate(&state, FallocateFlags::empty(), 0, size).context("room for the state")?;
        Ok(Self {
            vm,
            running: false,
            name,
            state,
            session: None,
            unfinished: None,
        })
    }

    /// The agent of the guest that the previous kernel handed on, which goes on at once.
    ///
    /// If this fails, the guest has not gone on, and its state is as it was: it can be tried again by whoever else holds
    /// the session. Where nobody does the guest is lost.
    pub fn take_over(kvm: &Kvm, session: IncomingSession, on_end: &OnEnd) -> Result<Self> {
        let ram = session.retrieve(RAM_TOKEN).context("the guest's memory")?;
        let state = File::from(session.retrieve(STATE_TOKEN).context("the guest's state")?);
        log!("retrieved memory and state");
        let ram = GuestRam::open(File::from(ram))?;
        let saved = read_state(&state, &ram)?;
        let vm = Vm::restore(kvm, ram, &saved, on_end).context("building the VM anew")?;
        log!("built the VM anew");
        let mut agent = Self {
            vm,
            running: false,
            name: session.name()?,
            state,
            session: None,
            unfinished: None,
        };
        agent.resume()?;
        log!(
            "the guest goes on; it stood still for {:.0} ms",
            saved.paused_for_ms()
        );
        // The guest need not wait for this: what it touches comes by itself. Nor is it to end because of this.
        agent.unfinished = Some(session);
        if let Err(err) = agent.finish() {
            log!("{err:#}. The guest goes on, its files stay in the session, and the next `preserve` tries again");
        }
        Ok(agent)
    }

    /// Ends the session that the guest came in, unless that is done. As long as it is not, its files cannot be preserved.
    fn finish(&mut self) -> Result<()> {
        if let Some(session) = &self.unfinished {
            session
                .finish()
                .context("finishing the session that the guest came in")?;
            self.unfinished = None;
            log!("finished the session");
        }
        Ok(())
    }

    /// A word on where it stands.
    pub fn status(&self) -> String {
        let running = if self.running { "running" } else { "paused" };
        let preserved = if self.session.is_some() {
            ", preserved"
        } else {
            ""
        };
        format!("{running}{preserved}")
    }

    /// Puts the guest into a session, while it runs.
    pub fn preserve(&mut self) -> Result<()> {
        if self.session.is_none() {
            self.finish()?;
            log!("preserving memory and state");
            let session = Device::open()?.create_session(self.name.as_bytes())?;
            session
                .preserve(&self.vm.ram.file, RAM_TOKEN)
                .context("the guest's memory")?;
            session
                .preserve(&self.state, STATE_TOKEN)
                .context("the guest's state")?;
            self.session = Some(session);
            log!("preserved memory and state");
        }
        Ok(())
    }

    /// Takes the guest out of its session.
    pub fn unpreserve(&mut self) {
        self.session = None;
    }

    /// Lets the guest stand still and writes its state, which is the answer, unless it stood still already. Whoever
    /// calls reboot() then hands it on.
    pub fn pause(&mut self) -> Result<Option<VmState>> {
        if !self.running {
            return Ok(None);
        }
        let paused_at = tsc::now();
        log!("pausing the guest");
        self.vm.pause()?;
        self.running = false;
        log!("paused the guest");
        let state = self.vm.save(paused_at);
        let written = state.and_then(|state| self.write_state(&state).map(|()| state));
        if written.is_err() {
            self.resume()?;
        }
        written.map(Some)
    }

    /// Lets the guest go on. If this fails, none of it has gone on.
    pub fn resume(&mut self) -> Result<()> {
        if !self.running {
            // Before the state is wiped: it is all that the guest could go on from another time.
            self.vm.ensure_can_run()?;
            // From here on it would be the state of a guest that has gone on.
            self.state
                .write_all_at(&[0; blob::HEADER_SIZE], 0)
                .context("the guest's state")?;
            self.vm.run()?;
            self.running = true;
        }
        Ok(())
    }

    /// Starts the next kernel, which must be loaded, with this guest handed on. Returns only if that failed. The guest
    /// goes on by then, unless it was paused before.
    pub fn update(&mut self) -> Result<()> {
        self.preserve()?;
        let prepared = self.prepare()?;
        let refused = self.pause_and_reboot();
        if let (true, Some(session)) = (prepared, &self.session) {
            session.cancel()?;
        }
        let refused = refused?;
        let guest = if self.running {
            "The guest goes on"
        } else {
            "The guest stays paused"
        };
        match refused {
            Err(errno) => bail!(
                "the kernel refuses the kexec: {errno}; its log says why. Is a kernel loaded (kexec -s -l)? {guest}"
            ),
            Ok(()) => bail!("reboot() came back without an error. {guest}"),
        }
    }

    fn pause_and_reboot(&mut self) -> Result<rustix::io::Result<()>> {
        let paused = self.pause()?;
        log!("calling reboot(LINUX_REBOOT_CMD_KEXEC)");
        let refused = reboot(RebootCommand::Kexec);
        if let Some(state) = paused {
            self.resume()?;
            let still = state.paused_for_ms();
            log!("the guest goes on in the old kernel; it stood still for {still:.0} ms");
        }
        Ok(refused)
    }

    /// What would refuse the kexec, while the guest still runs. False where the orchestrator does not have this.
    fn prepare(&self) -> Result<bool> {
        match self
            .session
            .as_ref()
            .map_or(Ok(()), OutgoingSession::prepare)
        {
            Ok(()) => Ok(true),
            Err(err) if err.is_unsupported() => Ok(false),
            Err(err) => Err(err).context("preparing the session"),
        }
    }

    fn write_state(&self, state: &VmState) -> Result<()> {
        let bytes = blob::encode(state, self.vm.ram.id)?;
        let room = self.state.metadata()?.len();
        ensure!(
            bytes.len() as u64 <= room,
            "the state has {} bytes, and there is room for {room}",
            bytes.len()
        );
        self.state
            .write_all_at(&bytes, 0)
            .context("the guest's state")?;
        log!("wrote the state, {} bytes", bytes.len());
        Ok(())
    }
}

fn read_state(file: &File, ram: &GuestRam) -> Result<VmState> {
    let mut bytes = vec![0; usize::try_from(file.metadata()?.len())?];
    file.read_exact_at(&mut bytes, 0)
        .context("the guest's state")?;
    Ok(blob::decode(&bytes, ram.id)?)
}

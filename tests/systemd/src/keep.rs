// SPDX-License-Identifier: GPL-2.0

//! The service: a memfd in systemd's file descriptor store, and another one in a session that systemd gave it.

use crate::{test, truth};
use anyhow::{bail, Context, Result};
use liveupdate::{IncomingSession, OutgoingSession, Session};
use luo_vm::report;
use nix::sys::signal::{SigSet, Signal};
use sd_notify::NotifyState;
use std::collections::BTreeMap;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};

/// Name of the memfd in the store.
const DATA: &str = "data";
/// Name of the session: `LUOSession=` of the unit.
const SESSION: &str = "guest";
/// The session's memfd.
const TOKEN: u64 = 7;

/// Descriptors from the store, by name.
type Store = BTreeMap<String, OwnedFd>;

/// Runs until it is told to stop.
pub fn main() -> Result<()> {
    // Waited for below; nothing may come in between.
    let stop = SigSet::from(Signal::SIGTERM);
    stop.thread_block()?;
    report::prepare()?;
    let mut store = store()?;
    match test::stage()? {
        1 => test::run("systemd::store_is_filled", || fill(&mut store)),
        2 => {
            test::run("systemd::memfd_is_back", || memory_is_right(&store));
            test::run("systemd::session_is_back", || take_over(&mut store));
        }
        3 => {
            test::run("systemd::memfd_is_back_again", || memory_is_right(&store));
            test::run("systemd::session_is_new", || outgoing(&mut store).map(drop));
        }
        _ => {}
    }
    sd_notify::notify(&[NotifyState::Ready])?;
    stop.wait()?;
    Ok(())
}

fn store() -> Result<Store> {
    let passed = sd_notify::listen_fds_with_names().context("what systemd passed")?;
    Ok(passed
        // SAFETY: These descriptors were passed to this process, and nobody else in it takes them.
        .map(|(fd, name)| (name, unsafe { OwnedFd::from_raw_fd(fd) }))
        .collect())
}

/// The first start: there is nothing to take over.
fn fill(store: &mut Store) -> Result<()> {
    let session = outgoing(store)?;
    if let Some(name) = store.keys().next() {
        bail!("{name:?} in the store at the first start");
    }
    session.preserve(truth::memfd(SESSION)?, TOKEN)?;
    let data = truth::memfd(DATA)?;
    sd_notify::notify_with_fds(
        &[NotifyState::FdStore, NotifyState::FdName(DATA)],
        &[data.as_fd()],
    )?;
    Ok(())
}

/// The memfd of the store, whose contents are new for the next kernel.
fn memory_is_right(store: &Store) -> Result<()> {
    let data = store
        .get(DATA)
        .with_context(|| format!("no {DATA:?} in the store, but {:?}", store.keys()))?;
    truth::compare(data, DATA)?;
    truth::renew(data, DATA)
}

/// The session that the previous kernel handed over, which is done with now.
fn take_over(store: &mut Store) -> Result<()> {
    let session = match session(store)? {
        Session::Incoming(session) => session,
        Session::Outgoing(_) => bail!("{SESSION:?} is a new session"),
    };
    truth::compare(&retrieve(&session)?, SESSION)?;
    session.finish()?;
    // Else it stays there, and the next start gets it once more.
    sd_notify::notify(&[NotifyState::FdStoreRemove, NotifyState::FdName(SESSION)])?;
    Ok(())
}

fn retrieve(session: &IncomingSession) -> Result<OwnedFd> {
    Ok(session.retrieve(TOKEN)?)
}

fn outgoing(store: &mut Store) -> Result<OutgoingSession> {
    match session(store)? {
        Session::Outgoing(session) => Ok(session),
        Session::Incoming(_) => bail!("{SESSION:?} is a session of the previous kernel"),
    }
}

fn session(store: &mut Store) -> Result<Session> {
    let fd = store
        .remove(SESSION)
        .with_context(|| format!("no {SESSION:?} in the store, but {:?}", store.keys()))?;
    Ok(Session::identify(fd)?)
}

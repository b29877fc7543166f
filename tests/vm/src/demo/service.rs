// SPDX-License-Identifier: GPL-2.0

//! The service: a process that holds the data and answers requests on a socket.
//!
//! A request is a line: `GET PATH`, answered by `OK LENGTH` and the bytes; `LIST`, answered by the index; `PRESERVE`,
//! which puts the data into a session that the process holds from then on. An error is answered by `ERROR WHY`.

use super::clock;
use super::store::Store;
use crate::process::Child;
use anyhow::Result;
use luo_vm_protocol::demo::{DemoEvent, Step};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

/// Its socket.
pub const SOCKET: &str = "/run/archive.sock";

/// Starts the service with this data. Returns when it takes requests.
pub fn start(store: impl FnOnce() -> Result<Store>) -> Result<Child> {
    Child::service(
        Duration::from_secs(600),
        || Ok((store()?, UnixListener::bind(SOCKET)?)),
        |(store, listener)| {
            let mut session = None;
            for connection in listener.incoming().flatten() {
                if let Err(err) = serve(connection, &store, &mut session) {
                    eprintln!("service: {err:#}");
                }
            }
        },
    )
}

type Session = Option<liveupdate::OutgoingSession>;

fn serve(connection: UnixStream, store: &Store, session: &mut Session) -> Result<()> {
    let mut answers = connection.try_clone()?;
    for request in BufReader::new(connection).lines() {
        match answer(&request?, store, session) {
            Ok(content) => {
                let head = format!("OK {}\n", content.len()).into_bytes();
                // At once: each write may wake the other side.
                answers.write_all(&[head, content].concat())?;
            }
            Err(err) => writeln!(answers, "ERROR {err:#}")?,
        }
    }
    Ok(())
}

fn answer(request: &str, store: &Store, session: &mut Session) -> Result<Vec<u8>> {
    match request.split_once(' ').unwrap_or((request, "")) {
        ("GET", path) => store.read(path),
        ("LIST", "") => Ok(serde_json::to_vec(&store.entries)?),
        ("PRESERVE", "") => {
            let from = clock::now();
            *session = Some(store.preserve()?);
            clock::report_step(Step::Preserve, from);
            super::report(DemoEvent::Holding {
                files: store.entries.len() as u64,
                bytes: store.entries.values().map(|entry| entry.len).sum(),
                memfds: store.count_memfds(),
                sessions: 1,
            });
            Ok(Vec::new())
        }
        _ => anyhow::bail!("what is {request:?}?"),
    }
}

// SPDX-License-Identifier: GPL-2.0

//! How the VMM is told what to do: by a line on a socket, which it answers with a line, `ok ...` or `error: ...`.

use anyhow::{bail, Context, Result};
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::mpsc::Sender;

/// What it can be told.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub enum Command {
    /// Say whether the guest runs, and is preserved
    Status,
    /// Put the guest into a live update session; it goes on
    Preserve,
    /// Take it out of the session
    Unpreserve,
    /// Let it stand still, its state written: whoever starts the next kernel then hands it on
    Pause,
    /// Let it go on
    Resume,
    /// All of it: preserve, pause, start the next kernel, which must be loaded
    Update,
}

/// A command, and where its answer goes.
pub type Request = (Command, Sender<Result<String>>);

/// Takes commands at this path from now on, one at a time.
pub fn listen(
    path: &Path,
    mut on_request: impl FnMut(Request) -> Result<()> + Send + 'static,
) -> Result<()> {
    let listener = bind(path).with_context(|| format!("the socket {}", path.display()))?;
    std::thread::Builder::new()
        .name("control".into())
        .spawn(move || {
            for connection in listener.incoming().flatten() {
                // Who went away does not need the answer.
                let _ = serve(&connection, &mut on_request);
            }
        })?;
    Ok(())
}

/// Binds the socket, also where one was left by a VMM that is gone.
fn bind(path: &Path) -> Result<UnixListener> {
    match UnixListener::bind(path) {
        Err(err) if err.kind() == ErrorKind::AddrInUse => match UnixStream::connect(path) {
            Ok(_) => bail!("another VMM listens there"),
            Err(_) => {
                std::fs::remove_file(path)?;
                Ok(UnixListener::bind(path)?)
            }
        },
        result => Ok(result?),
    }
}

fn serve(
    connection: &UnixStream,
    on_request: &mut impl FnMut(Request) -> Result<()>,
) -> Result<()> {
    let mut line = String::new();
    BufReader::new(connection).read_line(&mut line)?;
    let answer = match <Command as clap::ValueEnum>::from_str(line.trim(), false) {
        Ok(command) => ask(command, on_request),
        Err(_) => Err(anyhow::anyhow!("there is no command {:?}", line.trim())),
    };
    let mut connection = connection;
    match answer {
        Ok(text) => writeln!(connection, "ok {text}")?,
        Err(err) => writeln!(connection, "error: {err:#}")?,
    }
    Ok(())
}

fn ask(command: Command, on_request: &mut impl FnMut(Request) -> Result<()>) -> Result<String> {
    let (sender, answer) = std::sync::mpsc::channel();
    on_request((command, sender))?;
    answer.recv().context("the VMM ended")?
}

/// Gives a command to the VMM that listens there. The text of its answer.
pub fn send(path: &Path, command: Command) -> Result<String> {
    let mut connection = UnixStream::connect(path)
        .with_context(|| format!("no VMM listens at {}", path.display()))?;
    let name = clap::ValueEnum::to_possible_value(&command).context("a command without a name")?;
    writeln!(connection, "{}", name.get_name())?;
    let mut answer = String::new();
    BufReader::new(connection).read_line(&mut answer)?;
    match answer.trim_end().split_once(' ') {
        Some(("ok", text)) => Ok(text.into()),
        Some(("error:", text)) => bail!("{text}"),
        _ => bail!("the VMM ended without an answer"),
    }
}

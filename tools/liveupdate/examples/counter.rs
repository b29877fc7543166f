//! Counts the kernels that it has run in.
//!
//! The count is in a memfd. Start this, replace the kernel by kexec (`luoctl load`, `luoctl update`),
//! and start it again: it goes on where it was. After a cold boot it begins anew.
//!
//!     cargo run --example counter &

use std::error::Error;
use std::fs::File;
use std::os::unix::fs::FileExt;

use liveupdate::{Device, Error as LiveUpdateError, OutgoingSession};
use rustix::fs::{memfd_create, MemfdFlags};

/// The session, the same before and after.
const NAME: &str = "counter";
/// The file in it.
const TOKEN: u64 = 1;

fn main() -> Result<(), Box<dyn Error>> {
    let count = match take_back()? {
        Some(file) => file,
        None => new_count()?,
    };
    let kernels = read(&count)? + 1;
    count.write_all_at(&kernels.to_le_bytes(), 0)?;

    // Whoever drops the session takes the file back: so it is held until this process ends, be it by
    // the kexec.
    let _session = hand_on(&count)?;
    println!("kernel {kernels}");
    loop {
        std::thread::park();
    }
}

/// The memfd of the previous kernel, if that has handed it on.
fn take_back() -> liveupdate::Result<Option<File>> {
    let session = match Device::open()?.retrieve_session(NAME) {
        Ok(session) => session,
        Err(LiveUpdateError::NoSuchSession(_)) => return Ok(None),
        Err(error) => return Err(error),
    };
    let file = session.retrieve(TOKEN)?;
    // From now on it is a memfd like any other.
    session.finish()?;
    Ok(Some(file.into()))
}

fn hand_on(count: &File) -> liveupdate::Result<OutgoingSession> {
    let session = Device::open()?.create_session(NAME)?;
    session.preserve(count, TOKEN)?;
    Ok(session)
}

fn new_count() -> std::io::Result<File> {
    let file = File::from(memfd_create("counter", MemfdFlags::CLOEXEC)?);
    file.set_len(8)?;
    Ok(file)
}

fn read(count: &File) -> std::io::Result<u64> {
    let mut bytes = [0; 8];
    count.read_exact_at(&mut bytes, 0)?;
    Ok(u64::from_le_bytes(bytes))
}

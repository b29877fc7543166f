// SPDX-License-Identifier: GPL-2.0

//! Many sessions, and many files in one session.

use super::meter::Meter;
use super::ram::{mix, PAGE};
use super::{memory, ram, Kept};
use anyhow::{ensure, Context, Result};
use liveupdate::{Device, OutgoingSession};
use luo_vm_protocol::bench::Figure;
use std::fs::File;
use std::os::unix::fs::FileExt;

const SESSION: &str = "files";

fn names(count: u32) -> Vec<String> {
    (0..count).map(|index| format!("session-{index}")).collect()
}

fn create_all(device: &Device, names: &[String]) -> Result<Vec<OutgoingSession>> {
    let sessions = names.iter().map(|name| device.create_session(name));
    Ok(sessions.collect::<Result<_, _>>()?)
}

/// Sessions: the first kernel's part.
pub fn sessions_before(meter: &Meter, count: u32) -> Result<Kept> {
    let device = Device::open()?;
    let names = names(count);
    let create = || create_all(&device, &names);
    let sessions = meter.time(Figure::CreateSession, count.into(), create)?;
    meter.time(Figure::CloseSession, count.into(), || {
        drop(sessions);
        Ok(())
    })?;
    Ok(Box::new(create_all(&device, &names)?))
}

/// Sessions: the second kernel's part.
pub fn sessions_after(meter: &Meter, count: u32) -> Result<()> {
    let device = Device::open()?;
    let names = names(count);
    let sessions = meter.time(Figure::RetrieveSession, count.into(), || {
        let sessions = names.iter().map(|name| device.retrieve_session(name));
        Ok(sessions.collect::<Result<Vec<_>, _>>()?)
    })?;
    for (session, name) in sessions.iter().zip(&names) {
        let found = session.name()?;
        ensure!(
            found.as_bytes() == name.as_bytes(),
            "{found} instead of {name}"
        );
    }
    meter.time(Figure::FinishSession, count.into(), || {
        Ok(sessions.iter().try_for_each(|session| session.finish())?)
    })
}

/// What file number `token` holds.
fn word(token: u64) -> [u8; 8] {
    mix(token).to_le_bytes()
}

fn make_files(count: u32) -> Result<Vec<File>> {
    let make = |token: u64| {
        let file = ram::create(PAGE as u64)?;
        file.write_all_at(&word(token), 0)?;
        Ok(file)
    };
    (0..count.into()).map(make).collect()
}

fn preserve_all(device: &Device, files: &[File]) -> Result<OutgoingSession> {
    let session = device.create_session(SESSION)?;
    for (token, file) in (0..).zip(files) {
        session.preserve(file, token)?;
    }
    Ok(session)
}

/// Files: the first kernel's part.
pub fn files_before(meter: &Meter, count: u32) -> Result<Kept> {
    let device = Device::open()?;
    let files = make_files(count).context("making the files")?;
    let free = memory::free_bytes()?;
    let preserve = || preserve_all(&device, &files);
    let session = meter.time(Figure::Preserve, count.into(), preserve)?;
    let taken = free - memory::free_bytes()?;
    meter.figure(Figure::PreserveMemory, taken, count.into());
    meter.time(Figure::Unpreserve, count.into(), || {
        drop(session);
        Ok(())
    })?;
    Ok(Box::new((preserve_all(&device, &files)?, files)))
}

/// Files: the second kernel's part.
pub fn files_after(meter: &Meter, count: u32) -> Result<()> {
    let session = Device::open()?.retrieve_session(SESSION)?;
    let files = meter.time(Figure::Retrieve, count.into(), || {
        let files = (0..count.into()).map(|token| session.retrieve(token).map(File::from));
        Ok(files.collect::<Result<Vec<_>, _>>()?)
    })?;
    meter.time(Figure::Finish, count.into(), || Ok(session.finish()?))?;
    let mut wrong = 0;
    meter.time(Figure::Touch, count.into(), || {
        for (token, file) in (0..).zip(&files) {
            let mut found = [0; 8];
            file.read_exact_at(&mut found, 0)?;
            wrong += usize::from(found != word(token));
        }
        Ok(())
    })?;
    ensure!(wrong == 0, "{wrong} of {count} files have another content");
    Ok(())
}

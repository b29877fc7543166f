// SPDX-License-Identifier: GPL-2.0

//! What an owner's sessions are in the kernel after the one in which it made them.

use super::hands::contents;
use super::owner::letter;
use crate::cases::common::luo::{Device, RETRIEVE_SESSION};
use crate::cases::common::session_by_bytes;
use anyhow::{ensure, Context, Result};
use luo_model::Arrived;

/// Takes all sessions of an owner, with all of their files, and finishes them.
pub fn arrived(device: &Device, owner: usize) -> Result<Vec<Arrived>> {
    let (entries, _) = device.list_sessions(0, 100)?;
    let own = entries
        .iter()
        .filter(|entry| entry.name[0] == letter(owner));
    let sessions = own.map(|entry| {
        let session = session_by_bytes(device, RETRIEVE_SESSION, &entry.name)
            .with_context(|| format!("RETRIEVE_SESSION {}", entry.name()))?;
        let mut files = Vec::new();
        for token in session.tokens()? {
            let file = session.retrieve(token);
            let file = file.with_context(|| format!("{}, token {token}", entry.name()))?;
            let contents = contents(&file);
            let contents = contents.map_err(|errno| anyhow::anyhow!("reading it: {errno:?}"))?;
            files.push((token, contents));
        }
        session.finish()?;
        let name = entry.name.split(|&byte| byte == 0).next();
        Ok(Arrived {
            name: name.unwrap_or_default().to_vec(),
            files,
        })
    });
    sessions.collect()
}

/// Fails unless what arrived is one of the things that are possible: all of it, or, if its owner was about to be killed
/// (1), any of its sessions; if it was gone (2), nothing.
pub fn compare(there: &[Arrived], possible: &[Vec<Arrived>], killed: u64) -> Result<()> {
    let right = match killed {
        0 => possible.iter().any(|possible| possible == there),
        1 => possible.iter().any(|possible| {
            let mut left = possible.iter();
            there
                .iter()
                .all(|session| left.any(|other| other == session))
        }),
        _ => there.is_empty(),
    };
    ensure!(
        right,
        "killed: {killed}; there is {there:?}\nwhere there could be {possible:?}"
    );
    Ok(())
}

// SPDX-License-Identifier: GPL-2.0

//! Making a memfd of what the previous kernel handed over.

use super::{
    description::{Description, Head, Refusal},
    new_memfd::{NewMemfd, Restored, RestoredExtent, Runs},
    patience::Patience,
    Format,
};
use crate::{handler::NotRetrieved, handover::Malformed, log::warn_limited};
use kernel::{fs::File, prelude::*, sync::aref::ARef};

/// Makes a memfd of the description at `pa`, of any value.
///
/// The pages are in the file when this returns, but come into its page cache later: see
/// [`NewMemfd::add`]. On failure all memory is kept.
///
/// What is most likely to fail is the new memfd, which is charged to the caller: it is made before
/// anything is touched, as is all else that can be.
///
/// Context: may sleep.
pub(super) fn retrieve(format: Format, pa: u64) -> Result<ARef<File>, NotRetrieved> {
    let head = match Head::read(format, pa, &mut Patience::none()) {
        Ok(head) => head,
        Err(Refusal::Failed(err)) => return Err(NotRetrieved::Untouched(err)),
        Err(why) => return Err(why.into()),
    };
    let memfd = NewMemfd::new(head.memfd()).map_err(NotRetrieved::Untouched)?;
    let runs = Runs::new().map_err(NotRetrieved::Untouched)?;
    let mut description = Description::claim(head, &mut Patience::long())?;
    match fill(&memfd, &mut description, runs) {
        Ok(()) => Ok(memfd.into_file()),
        Err(why) => {
            memfd.leak();
            description.leak();
            Err(why.into())
        }
    }
}

/// Puts everything into `memfd`, in runs as long as can be.
fn fill(memfd: &NewMemfd, description: &mut Description, mut runs: Runs) -> Result<(), Refusal> {
    let mut run: Option<RestoredExtent> = None;
    description.claim_all(|next| {
        match next {
            Restored::Table(table) => runs.push_table(table)?,
            Restored::Extent(next) => {
                let next = match &mut run {
                    Some(run) => match run.merge(next) {
                        Ok(()) => return Ok(()),
                        Err(next) => next,
                    },
                    None => next,
                };
                if let Some(whole) = run.replace(next) {
                    runs.push(whole)?;
                }
            }
        }
        if runs.is_full() {
            add(memfd, &mut runs)?;
        }
        Ok(())
    })?;
    if let Some(last) = run {
        runs.push(last)?;
    }
    add(memfd, &mut runs)
}

/// As [`NewMemfd::add`]. What is in one place twice is the description's fault.
fn add(memfd: &NewMemfd, runs: &mut Runs) -> Result<(), Refusal> {
    memfd.add(runs).map_err(|err| match err {
        EEXIST => Malformed::Field("two pages in one place of the file").into(),
        err => err.into(),
    })
}

/// Frees the memfd that is described at `pa`, of any value: nobody wanted it.
///
/// Context: may sleep.
pub(super) fn discard(format: Format, pa: u64) {
    let mut patience = Patience::short();
    let head = Head::read(format, pa, &mut patience);
    let claimed = head.and_then(|head| Description::claim(head, &mut patience));
    let freed = claimed.and_then(|mut description| {
        let freed = description.claim_all(|piece| {
            piece.free();
            Ok(())
        });
        if freed.is_err() {
            description.leak();
        }
        freed
    });
    if let Err(why) = freed {
        // It has a limit of its own in the log.
        let err = why.report();
        warn_limited!(
            "a memfd that nobody retrieved cannot be freed: {:?}; its memory is kept until the next kexec\n",
            err
        );
    }
}

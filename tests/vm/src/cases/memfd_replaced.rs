// SPDX-License-Identifier: GPL-2.0

//! The pages of a memfd are replaced by a large folio while it is preserved, as khugepaged does: what is preserved is what
//! the guest has from then on.

use super::common::data::{self, whole};
use super::common::luo::Device;
use super::common::memfd::{self, Mapping};
use super::common::only_ours;
use super::common::pages::PAGE;
use crate::ctx::Ctx;
use crate::test::{Config, Test};
use anyhow::{bail, ensure, Context, Result};
use std::sync::atomic::{AtomicUsize, Ordering};

/// The cases.
pub const TESTS: &[Test] = &[
    Test::new("meanwhile", CONFIG, &[preserve, check]),
    Test::new(
        "meanwhile_in_v2",
        CONFIG.params("memfd_v2=1"),
        &[preserve, check],
    ),
];

const CONFIG: Config = Config::new().memory_mib(1536).timeout_s(400);
const FILES: u64 = 24;
const BLOCK: usize = 2 << 20;
const BLOCKS: usize = 8;
const SIZE: usize = BLOCKS * BLOCK;
const WORDS_PER_PAGE: usize = PAGE / 8;

/// What page number `page` of file `token` has in the end.
fn last_word(token: u64, page: usize) -> u64 {
    (token << 32) + page as u64 + 1
}

fn preserve(ctx: &mut Ctx) -> Result<()> {
    only_ours(ctx, "it may pin what is being replaced")?;
    let session = Device::open()?.create_session("replaced")?;
    let (mut replaced, mut kept) = (0, 0);
    for token in 0..FILES {
        let file = memfd::create(SIZE as u64)?;
        data::fill(&file, token, whole(SIZE as u64))?;
        let map = Mapping::aligned(&file, SIZE, BLOCK)?;
        let begun = AtomicUsize::new(0);
        let count = std::thread::scope(|scope| {
            let replacer = scope.spawn(|| {
                let replace = |block| {
                    begun.fetch_add(1, Ordering::Relaxed);
                    let start = block * BLOCK;
                    map.collapse(start, BLOCK).is_ok()
                };
                (0..BLOCKS).filter(|&block| replace(block)).count()
            });
            // With each file a little later.
            while begun.load(Ordering::Relaxed) <= token as usize % BLOCKS {
                std::hint::spin_loop();
            }
            session.preserve(&file, token).context("PRESERVE_FD")?;
            match replacer.join() {
                Ok(count) => Ok(count),
                Err(_) => bail!("the thread has panicked"),
            }
        })?;
        replaced += count;
        kept += BLOCKS - count;
        for page in 0..SIZE / PAGE {
            map.store(page * WORDS_PER_PAGE, last_word(token, page));
        }
        ctx.keep((file, map));
    }
    ctx.figure(&format!(
        "{replaced} blocks were replaced, {kept} were preserved before"
    ));
    ensure!(replaced > 0 && kept > 0, "nothing was tried");
    ctx.keep(session);
    Ok(())
}

fn check(_: &mut Ctx) -> Result<()> {
    let session = Device::open()?.retrieve_session("replaced")?;
    let mut wrong = Vec::new();
    for token in 0..FILES {
        let file = match session.retrieve(token) {
            Ok(file) => file,
            Err(errno) => {
                wrong.push(format!("{token}: {errno:?}"));
                continue;
            }
        };
        let map = Mapping::new(&file, SIZE)?;
        let old = |&page: &usize| map.load(page * WORDS_PER_PAGE) != last_word(token, page);
        let old = (0..SIZE / PAGE).filter(old).count();
        if old != 0 {
            wrong.push(format!("{token}: {old} pages are old"));
        }
    }
    ensure!(wrong.is_empty(), "{wrong:?}");
    session.finish()?;
    Ok(())
}

// SPDX-License-Identifier: GPL-2.0

//! Memory that lies where the next kernel boots is moved by PRESERVE_FD: 2 MiB at a time where it can be, while the guest
//! runs, and at nobody else's expense.

use super::common::cgroup::Cgroup;
use super::common::in_the_way::{self, Layout, BLOCK};
use super::common::luo::Device;
use super::common::memfd::{self, Mapping};
use super::common::only_ours;
use super::common::pages::PAGE;
use crate::ctx::Ctx;
use crate::test::{Config, Test};
use anyhow::{bail, ensure, Context, Result};
use std::fs::File;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// The cases.
pub const TESTS: &[Test] = &[
    Test::new("into_large_folios", CONFIG, &[with_room, arrived]),
    Test::new("page_by_page", CONFIG, &[in_a_full_cgroup, arrived]),
];

const CONFIG: Config = Config::new().memory_mib(1536).timeout_s(400);
const SIZE: usize = 64 << 20;
const PAGES: usize = SIZE / PAGE;
const WORDS_PER_PAGE: usize = PAGE / 8;
const PATIENCE: Duration = Duration::from_secs(120);

/// A guest: its memory, and who pays for it.
struct Guest {
    file: File,
    map: Mapping,
    payer: Cgroup,
}

impl Guest {
    /// One whose memory comes from where the next kernel boots, the second half from elsewhere in turns; and at least that
    /// much free memory elsewhere.
    fn new() -> Result<Self> {
        let payer = Cgroup::new("guest")?;
        let file = memfd::create(SIZE as u64)?;
        let map = Mapping::aligned(&file, SIZE, BLOCK * PAGE)?;
        let taken = in_the_way::crowd(SIZE / 2, SIZE)?;
        payer.run(PATIENCE, || {
            for page in 0..PAGES {
                map.store(page * WORDS_PER_PAGE, first_word(page));
            }
            Ok(())
        })?;
        drop(taken);
        Ok(Self { file, map, payer })
    }

    fn layout(&self) -> Result<Layout> {
        Layout::of(&self.map, PAGES)
    }

    /// Preserves the memory while the guest writes to it: it must never see anything but what it wrote.
    fn preserve(&self, ctx: &mut Ctx) -> Result<()> {
        let session = Device::open()?.create_session("guest")?;
        let over = AtomicBool::new(false);
        let rounds = std::thread::scope(|scope| {
            let guest = scope.spawn(|| {
                let mut round = 0;
                while !over.load(Ordering::Relaxed) {
                    self.round(round)?;
                    round += 1;
                }
                Ok::<_, anyhow::Error>(round)
            });
            let preserved = session.preserve(&self.file, 1);
            over.store(true, Ordering::Relaxed);
            let rounds = match guest.join() {
                Ok(rounds) => rounds?,
                Err(_) => bail!("the guest has panicked"),
            };
            preserved.context("PRESERVE_FD")?;
            Ok(rounds)
        })?;
        ctx.set("rounds", rounds);
        ctx.keep(session);
        Ok(())
    }

    /// Looks at the second word of each page, and writes the next one.
    fn round(&self, round: u64) -> Result<()> {
        for page in 0..PAGES {
            let at = page * WORDS_PER_PAGE + 1;
            let word = self.map.load(at);
            ensure!(word == round, "page {page} has {word} in round {round}");
            self.map.store(at, round + 1);
        }
        Ok(())
    }
}

fn first_word(page: usize) -> u64 {
    (page as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Nothing is in the way any more, in large folios, and who pays is who paid before.
fn with_room(ctx: &mut Ctx) -> Result<()> {
    only_ours(ctx, "it moves page by page")?;
    let guest = Guest::new()?;
    let before = guest.layout()?;
    ensure!(
        before.in_the_way > PAGES / 4 && before.whole_blocks < PAGES / BLOCK / 2,
        "that proves nothing: {before:?}"
    );
    guest.preserve(ctx)?;
    let after = guest.layout()?;
    ensure!(after.in_the_way == 0, "{before:?}, then {after:?}");
    // What the guest had in use just then stays in small pieces.
    ensure!(
        after.whole_blocks > before.whole_blocks + PAGES / BLOCK / 4,
        "{before:?}, then {after:?}"
    );
    ctx.figure(&format!("{before:?}, then {after:?}"));
    let mut charged = Ok(0);
    ctx.wait_for("the charge", PATIENCE, || {
        charged = guest.payer.stat("shmem");
        matches!(charged, Ok(charged) if charged == SIZE as u64)
    })
    .with_context(|| format!("{charged:?} are charged"))?;
    ctx.keep(guest);
    Ok(())
}

/// Where the guest's cgroup has no room for a large folio its pages are moved all the same, and nobody is killed.
fn in_a_full_cgroup(ctx: &mut Ctx) -> Result<()> {
    only_ours(ctx, "it moves page by page")?;
    let guest = Guest::new()?;
    guest.payer.limit(Some(SIZE as u64 + (1 << 20)))?;
    let before = guest.layout()?;
    guest.preserve(ctx)?;
    let after = guest.layout()?;
    ensure!(
        after.in_the_way == 0 && after.whole_blocks <= before.whole_blocks,
        "{before:?}, then {after:?}"
    );
    let killed = guest.payer.events("oom_kill")?;
    ensure!(killed == 0, "{killed} processes were killed");
    ctx.keep(guest);
    Ok(())
}

fn arrived(ctx: &mut Ctx) -> Result<()> {
    let rounds: u64 = ctx.get("rounds")?.parse()?;
    let file = Device::open()?.retrieve_session("guest")?.retrieve(1)?;
    let map = Mapping::new(&file, SIZE)?;
    for page in 0..PAGES {
        let words = [0, 1].map(|word| map.load(page * WORDS_PER_PAGE + word));
        let wanted = [first_word(page), rounds];
        ensure!(
            words == wanted,
            "page {page}: {words:x?} instead of {wanted:x?}"
        );
    }
    Ok(())
}

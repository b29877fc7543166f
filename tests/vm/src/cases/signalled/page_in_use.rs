// SPDX-License-Identifier: GPL-2.0

//! Commands that wait for a page of a memfd, which has to be moved and is in somebody's use. A signal with a handler makes no
//! difference; to kill the task ends the wait.

use super::{command, ends, HANDLED, KILLED};
use crate::cases::common::luo::Device;
use crate::cases::common::memfd::{self, Mapping};
use crate::cases::common::{data, in_the_way, only_ours};
use crate::cases::memfd_moved::{self, fill_in_the_way, ATTEMPTS, HELD, PARTS, USERS, WAIT};
use crate::cases::races::{wait_until_stuck, Doer};
use crate::ctx::Ctx;
use crate::kexec;
use crate::test::Config;
use anyhow::{bail, ensure, Context, Result};
use nix::errno::Errno;
use nix::sys::signal::{kill, Signal};
use std::time::Instant;

/// Memory is filled three times, which takes a kernel with KASAN minutes.
pub const CONFIG: Config = memfd_moved::CONFIG.timeout_s(1200);

/// Fails unless a command waits for the page as long as it is to wait, or ends when it is killed.
fn waits(
    ctx: &Ctx,
    act: impl Fn() -> Result<(), Errno>,
    as_before: impl Fn() -> Result<()>,
) -> Result<()> {
    let in_time = || {
        let start = Instant::now();
        let result = act();
        match start.elapsed() < WAIT {
            // Not what any of them is answered with.
            true => Err(Errno::ETIME),
            false => result.map(|()| "done".into()),
        }
    };
    let begin = |signal: Signal| -> Result<Doer> {
        let doer = command(in_time)?;
        // It looks for the page again and again, so that it is seen to go on now and then.
        wait_until_stuck(ctx, doer.0.pid())?;
        kill(doer.0.pid(), signal)?;
        Ok(doer)
    };
    ends(begin(HANDLED)?, HANDLED, "ENOMEM")?;
    as_before().context("after a signal with a handler")?;
    for _ in 0..ATTEMPTS {
        let start = Instant::now();
        ends(begin(KILLED)?, KILLED, "")?;
        let took = start.elapsed();
        as_before().context("after it was killed")?;
        if took < WAIT {
            return Ok(());
        }
    }
    bail!("killed, it waits to the end")
}

/// PRESERVE_FD, PREPARE of a hole that was filled, and a kexec of another one.
pub fn waited_for(ctx: &mut Ctx) -> Result<()> {
    only_ours(ctx, "it does not wait as long")?;
    let file = memfd::create(HELD)?;
    let map = Mapping::new(&file, HELD as usize)?;
    let session = Device::open()?.create_session("held")?;
    let (_, hold) = USERS[0];
    let is = |wanted: (u32, u64, u64)| -> Result<()> {
        let state = session.state()?;
        ensure!(state == wanted, "{state:?}");
        Ok(())
    };

    let page = fill_in_the_way(&file, &map, PARTS[0])?;
    let user = hold(&file, &map, page)?;
    let preserve = || session.preserve(&file, 1);
    let untouched = || {
        is((1, 0, 0))?;
        memfd::truncate(&file, HELD / 2).context("shrinking it")?;
        memfd::truncate(&file, HELD).context("growing it")
    };
    waits(ctx, preserve, untouched).context("PRESERVE_FD")?;
    drop(user);
    preserve().context("PRESERVE_FD of what nobody uses")?;

    let page = fill_in_the_way(&file, &map, PARTS[1])?;
    let user = hold(&file, &map, page)?;
    let prepare = || session.prepare().map_err(|(errno, _)| errno);
    waits(ctx, prepare, || is((1, 1, 0))).context("PREPARE")?;
    drop(user);
    prepare().context("PREPARE when nobody uses it")?;
    ensure!(!in_the_way::is_page(&map, page)?, "it was not moved");

    let page = fill_in_the_way(&file, &map, PARTS[2])?;
    let _user = hold(&file, &map, page)?;
    ctx.kexec_load()?;
    let reboot = || Err(kexec::execute());
    waits(ctx, reboot, || is((2, 1, 0))).context("reboot()")?;
    data::check(&file, 0, HELD, &PARTS)
}

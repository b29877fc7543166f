// SPDX-License-Identifier: GPL-2.0

//! luo.ko as a module: when it can be inserted and removed, and what it says when it cannot.

use super::common::luo::{Device, DEVICE};
use super::common::modules::{self, id_of, Kind, Recorder};
use super::common::{data, errno_of, ext, memfd, still_works};
use super::races::{Doer, LONG};
use crate::ctx::Ctx;
use crate::kexec;
use crate::test::{Config, Orchestrator, Test};
use anyhow::{bail, ensure, Context, Result};
use nix::errno::Errno;
use std::fs::File;
use std::path::Path;

/// The cases.
pub const TESTS: &[Test] = &[
    Test::new("without_kho", BARE.cmdline("kho=off"), &[without_kho]),
    Test::new(
        "beside_the_other",
        Config::new().orchestrators(&[Orchestrator::C]),
        &[beside_the_other],
    ),
    Test::new("insert_and_remove", BARE, &[insert_and_remove]),
    Test::new("remove_with_session", BARE, &[remove_with_session]),
    Test::new("remove_with_device", BARE, &[remove_with_device]),
    Test::new("remove_with_debugfs", BARE, &[remove_with_debugfs]),
    Test::new("insert_twice", BARE, &[insert_twice]),
    Test::new("unknown_parameter", BARE, &[unknown_parameter]),
    Test::new("inserted_late", BARE, &[hand_on, insert_late]),
    Test::new("newer_build", BARE, &[hand_on_two, replace, take_third]),
    Test::new(
        "removed_before_kexec",
        BARE,
        &[remove_at_end, nothing_arrives],
    ),
    Test::new(
        "inserted_in_kexec",
        BARE,
        &[insert_in_kexec, nothing_arrives],
    ),
    Test::new("removed_in_kexec", BARE, &[remove_in_kexec, has_arrived]),
];

/// A kernel with no orchestrator yet.
const BARE: Config = Config::new().orchestrators(&[Orchestrator::None]);

const MODULE: &str = "/luo.ko";

fn needs_module(ctx: &Ctx) -> Result<()> {
    if !Path::new(MODULE).exists() {
        return ctx.skip("there is no luo.ko in this VM");
    }
    // A case that failed may have left it.
    match is_inserted() {
        true => ctx.rmmod(),
        false => Ok(()),
    }
}

fn is_inserted() -> bool {
    Path::new("/sys/module/luo").exists()
}

/// Fails unless insmod is refused, and the log says why, in the module's own words.
fn refused(ctx: &mut Ctx, params: &str, wanted: &[Errno], words: &[&str]) -> Result<()> {
    ctx.log().lines()?;
    match ctx.insmod(params) {
        Ok(()) => bail!("it was inserted"),
        Err(err) => ensure!(
            errno_of(&err).is_some_and(|errno| wanted.contains(&errno)),
            "{err:#}"
        ),
    }
    ensure!(!is_inserted(), "it is there nevertheless");
    let lines = ctx.log().lines()?;
    let says_why = |line: &&String| {
        let line = line.to_lowercase();
        line.contains("luo") && words.iter().any(|word| line.contains(word))
    };
    ensure!(
        lines.iter().any(|line| says_why(&line)),
        "it only says {lines:#?}"
    );
    Ok(())
}

fn without_kho(ctx: &mut Ctx) -> Result<()> {
    needs_module(ctx)?;
    for _ in 0..2 {
        let wanted = [Errno::EOPNOTSUPP];
        refused(ctx, "", &wanted, &["kho", "kexec handover"])?;
        ensure!(!Path::new(DEVICE).exists(), "there is a device");
    }
    Ok(())
}

fn beside_the_other(ctx: &mut Ctx) -> Result<()> {
    needs_module(ctx)?;
    let session = Device::open()?.create_session("undisturbed")?;
    for _ in 0..2 {
        refused(ctx, "", &[Errno::EBUSY], &["liveupdate=", "orchestrator"])?;
    }
    still_works(&session)?;
    still_works(&Device::open()?.create_session("another")?)
}

fn insert_and_remove(ctx: &mut Ctx) -> Result<()> {
    needs_module(ctx)?;
    ensure!(!Path::new(DEVICE).exists(), "a device without the module");
    for round in 0..10 {
        ctx.insmod("").with_context(|| format!("round {round}"))?;
        use_it(ctx).with_context(|| format!("round {round}"))?;
        ctx.rmmod().with_context(|| format!("round {round}"))?;
        ensure!(!Path::new(DEVICE).exists(), "the device is still there");
    }
    Ok(())
}

fn use_it(_: &Ctx) -> Result<()> {
    let file = memfd::create(1 << 20)?;
    let session = Device::open()?.create_session("name")?;
    session.preserve(&file, 1)?;
    still_works(&session)?;
    drop(session);
    memfd::truncate(&file, 0).context("the file it let go")?;
    Ok(())
}

/// Fails unless rmmod is refused at once.
fn stays(ctx: &Ctx) -> Result<()> {
    match ctx.rmmod() {
        Ok(()) => bail!("it was removed"),
        // EWOULDBLOCK, which is the same number.
        Err(err) => ensure!(errno_of(&err) == Some(Errno::EAGAIN), "{err:#}"),
    }
    ensure!(is_inserted(), "it is gone");
    Ok(())
}

fn remove_with_session(ctx: &mut Ctx) -> Result<()> {
    needs_module(ctx)?;
    ctx.insmod("")?;
    let file = memfd::create(50_000)?;
    data::fill(&file, 1, data::whole(50_000))?;
    let session = Device::open()?.create_session("holds")?;
    stays(ctx)?;
    session.preserve(&file, 1)?;
    stays(ctx)?;
    still_works(&session)?;
    use_it(ctx)?;
    drop(session);
    data::check(&file, 1, 50_000, &[data::whole(50_000)])?;
    ctx.rmmod().context("with the session closed")?;
    memfd::truncate(&file, 0).context("the file it let go")?;
    ctx.insmod("").context("inserting it again")?;
    use_it(ctx)?;
    ctx.rmmod()
}

fn remove_with_device(ctx: &mut Ctx) -> Result<()> {
    needs_module(ctx)?;
    ctx.insmod("")?;
    let device = Device::open()?;
    stays(ctx)?;
    still_works(&device.create_session("works")?)?;
    ensure!(Device::open().is_err(), "it opens twice");
    drop(device);
    ctx.rmmod()
}

fn remove_with_debugfs(ctx: &mut Ctx) -> Result<()> {
    needs_module(ctx)?;
    for name in ["handlers", "flbs"] {
        ctx.insmod("")?;
        let path = Path::new("/sys/kernel/debug/luo").join(name);
        let file = File::open(&path).with_context(|| path.display().to_string())?;
        stays(ctx)?;
        drop(file);
        ctx.rmmod()?;
    }
    Ok(())
}

fn insert_twice(ctx: &mut Ctx) -> Result<()> {
    needs_module(ctx)?;
    ctx.insmod("")?;
    let session = Device::open()?.create_session("first")?;
    match ctx.insmod("") {
        Ok(()) => bail!("it was inserted twice"),
        Err(err) => ensure!(errno_of(&err) == Some(Errno::EEXIST), "{err:#}"),
    }
    still_works(&session)?;
    drop(session);
    ctx.rmmod()
}

/// The kernel takes any parameter and says that it ignores those it does not know; the module works all the same.
fn unknown_parameter(ctx: &mut Ctx) -> Result<()> {
    needs_module(ctx)?;
    ctx.insmod("no_such_parameter=1")?;
    ctx.log().expect("no_such_parameter")?;
    use_it(ctx)?;
    ctx.rmmod()
}

const SIZE: u64 = 777_777;

fn hand_on(ctx: &mut Ctx) -> Result<()> {
    needs_module(ctx)?;
    ctx.insmod("")?;
    let file = memfd::create(SIZE)?;
    data::fill(&file, 2, data::whole(SIZE))?;
    let session = Device::open()?.create_session("waits")?;
    session.preserve(&file, 1)?;
    ctx.keep(session);
    Ok(())
}

/// What was handed on waits, untouched, until the module is there: memory is used and swapped about before that.
fn insert_late(ctx: &mut Ctx) -> Result<()> {
    let churn = memfd::create(400 << 20)?;
    memfd::fallocate(&churn, 0, 0, 400 << 20)?;
    data::fill(&churn, 3, data::whole(64 << 20))?;
    drop(churn);
    ctx.insmod("")?;
    let session = Device::open()?.retrieve_session("waits")?;
    let file = session.retrieve(1)?;
    data::check(&file, 2, SIZE, &[data::whole(SIZE)])?;
    session.finish()?;
    drop((session, file));
    ctx.rmmod().context("with all retrieved")?;
    ctx.insmod("").context("inserting it again")?;
    let device = Device::open()?;
    ensure!(
        device.retrieve_session("waits").is_err(),
        "it is there again"
    );
    still_works(&device.create_session("waits")?)
}

fn remove_at_end(ctx: &mut Ctx) -> Result<()> {
    needs_module(ctx)?;
    ctx.insmod("")?;
    use_it(ctx)?;
    ctx.rmmod()
}

fn nothing_arrives(ctx: &mut Ctx) -> Result<()> {
    ctx.insmod("")?;
    use_it(ctx)
}

/// Calls reboot(KEXEC), does something in its midst, and lets it go on.
fn in_kexec(ctx: &mut Ctx, act: impl FnOnce(&mut Ctx) -> Result<()>) -> Result<()> {
    modules::insert("luo_holder")?;
    let parameters = Path::new("/sys/module/luo_holder/parameters");
    ctx.kexec_load()?;
    let rebooter = Doer::new(|| Err(kexec::execute()))?;
    ctx.wait_for("a kexec that has begun", LONG, || {
        std::fs::read(parameters.join("held")).is_ok_and(|held| held == b"Y\n")
    })?;
    if let Err(err) = act(ctx) {
        ctx.give_up(&format!("in a kexec: {err:#}"));
    }
    ctx.jump(|| {
        std::fs::write(parameters.join("go"), "1")?;
        rebooter.says("reboot()", "nothing, as it does not fail")
    })
}

/// Once a kexec has begun, what is made would not be handed over.
fn insert_in_kexec(ctx: &mut Ctx) -> Result<()> {
    needs_module(ctx)?;
    in_kexec(ctx, |ctx| refused(ctx, "", &[Errno::EAGAIN], &["kexec"]))
}

/// Once it has agreed to a kexec, the next kernel is to find what it says.
fn remove_in_kexec(ctx: &mut Ctx) -> Result<()> {
    needs_module(ctx)?;
    ctx.insmod("")?;
    in_kexec(ctx, |ctx| stays(ctx))
}

fn has_arrived(ctx: &mut Ctx) -> Result<()> {
    ctx.insmod("")?;
    let number = Device::open()?.info()?.liveupdate_num;
    ensure!(number == 1, "live update number {number}");
    Ok(())
}

/// Name and version of the module that is there.
fn implementation() -> Result<String> {
    Ok(ext::text(&Device::open()?.info()?.implementation))
}

/// Two sessions with a memfd and a file of the recorder each.
fn hand_on_two(ctx: &mut Ctx) -> Result<()> {
    needs_module(ctx)?;
    ctx.insmod("")?;
    ctx.set("version", implementation()?);
    let recorder = Recorder::new(ctx)?;
    let device = Device::open()?;
    for (seed, name) in [(1, "one"), (2, "two")] {
        let session = device.create_session(name)?;
        let file = memfd::create(SIZE)?;
        data::fill(&file, seed, data::whole(SIZE))?;
        session.preserve(&file, 1)?;
        session.preserve(&recorder.open(Kind::A, seed)?, 2)?;
        ctx.keep(session);
    }
    ctx.keep(recorder);
    Ok(())
}

/// A newer luo.ko takes over from the one that was there, between two live updates and without a reboot.
fn replace(ctx: &mut Ctx) -> Result<()> {
    ctx.insmod("")?;
    ensure!(implementation()? == ctx.get("version")?);
    let recorder = Recorder::new(ctx)?;
    let device = Device::open()?;
    let one = device.retrieve_session("one")?;
    let first = one.retrieve(1)?;
    one.finish()?;
    drop((one, device));
    recorder.remove()?;
    // It goes, and the file that it gave stays what it is.
    ctx.rmmod().context("with one session of two finished")?;
    data::check(&first, 1, SIZE, &[data::whole(SIZE)])?;

    modules::insert("luo").context("the newer build")?;
    let newer = implementation()?;
    ensure!(newer == format!("{}+newer", ctx.get("version")?), "{newer}");
    let recorder = Recorder::new(ctx)?;
    let device = Device::open()?;
    ensure!(device.info()?.liveupdate_num == 1);
    ensure!(
        device.retrieve_session("one").is_err(),
        "one is there again"
    );
    recorder.value("incoming").context("the FLB")?;
    let two = device.retrieve_session("two")?;
    let second = two.retrieve(1)?;
    data::check(&second, 2, SIZE, &[data::whole(SIZE)])?;
    let recorded = two.retrieve(2)?;
    ensure!(id_of(&recorded)? == 2);
    two.finish()?;
    // What either of them gave goes on with the newer one.
    let session = device.create_session("three")?;
    for (token, file) in [&first, &second, &recorded].into_iter().enumerate() {
        session.preserve(file, token as u64)?;
    }
    ctx.keep((session, recorder));
    Ok(())
}

fn take_third(ctx: &mut Ctx) -> Result<()> {
    ctx.insmod("")?;
    let recorder = Recorder::new(ctx)?;
    let device = Device::open()?;
    ensure!(device.info()?.liveupdate_num == 2);
    let session = device.retrieve_session("three")?;
    for seed in [1, 2] {
        let file = session.retrieve(seed - 1)?;
        data::check(&file, seed, SIZE, &[data::whole(SIZE)])?;
    }
    ensure!(id_of(&session.retrieve(2)?)? == 2);
    session.finish()?;
    drop((session, device));
    recorder.remove()?;
    ctx.rmmod()
}

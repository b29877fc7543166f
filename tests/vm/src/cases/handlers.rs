// SPDX-License-Identifier: GPL-2.0

//! Handlers in modules of their own: the samples through a kexec, and what becomes of files whose handler is missing.

use super::common::command::Command;
use super::common::luo::{Device, Session};
use super::common::modules::{self, id_of, text_of, Inserted, Kind, Recorder};
use super::common::scene::references;
use super::common::{data, memfd, refused};
use super::races::LONG;
use super::writeback;
use crate::ctx::Ctx;
use crate::kexec;
use crate::process::{Child, Said};
use crate::test::{Config, Orchestrator, Test};
use anyhow::{ensure, Context, Result};
use nix::errno::Errno;
use std::fs::{File, OpenOptions};
use std::io::Write;

/// The cases.
pub const TESTS: &[Test] = &[
    Test::new(
        "sample_rust",
        Config::new(),
        &[preserve_rust, pass_on_rust, retrieve_rust],
    ),
    Test::new(
        "sample_c",
        Config::new(),
        &[preserve_c, pass_on_c, retrieve_c],
    ),
    Test::new("sample_not_ready", Config::new(), &[not_ready]),
    Test::new("missing", Config::new(), &[hand_on, missing]),
    Test::new("the_same", Config::new(), &[hand_on_same, the_same]),
    Test::new("in_use", Config::new(), &[in_use]),
    Test::new("still_coming", Config::new(), &[still_coming]),
    Test::new(
        "in_use_after_kexec",
        Config::new(),
        &[hand_on, in_use_after_kexec],
    ),
    Test::new(
        "luo_reloaded",
        Config::new()
            .orchestrators(&[Orchestrator::Rust, Orchestrator::None])
            .look_for_leaks(),
        &[hand_on, luo_reloaded],
    ),
];

/// A sample: its module and its device.
struct Sample {
    module: &'static str,
    device: &'static str,
}

const RUST: Sample = Sample {
    module: "luo_sample_rust",
    device: "/dev/luo-sample-rust",
};
const C: Sample = Sample {
    module: "luo_sample_c",
    device: "/dev/luo-sample-c",
};

impl Sample {
    fn open(&self) -> Result<File> {
        let file = OpenOptions::new().read(true).write(true).open(self.device);
        file.context(self.device)
    }

    /// A file that was written to so many times, and says this.
    fn noted(&self, writes: u64, note: &str) -> Result<File> {
        let mut file = self.open()?;
        for _ in 1..writes {
            file.write_all(b"not yet")?;
        }
        file.write_all(note.as_bytes())?;
        Ok(file)
    }
}

/// Fails unless the file says this.
fn says(file: &File, wanted: &str) -> Result<()> {
    let text = text_of(file)?;
    ensure!(text == wanted, "{text:?} instead of {wanted:?}");
    Ok(())
}

fn preserve(ctx: &mut Ctx, sample: &Sample) -> Result<()> {
    let module = Inserted::new(ctx, sample.module)?;
    let (one, two) = (sample.noted(1, "one")?, sample.noted(3, "two")?);
    says(&one, "1 4 one")?;
    let device = Device::open()?;
    let first = device.create_session("first")?;
    let second = device.create_session("second")?;
    first.preserve(&one, 1)?;
    second.preserve(&two, 2)?;
    refused("twice", second.preserve(&one, 3), Errno::EBUSY)?;
    // What is written later goes along; and what is not preserved counts.
    (&one).write_all(b"one, later")?;
    sample.noted(2, "not preserved")?;
    ctx.keep((module, first, second));
    Ok(())
}

/// Hands on what was handed over, a file more, and one of them changed.
fn pass_on(ctx: &mut Ctx, sample: &Sample) -> Result<()> {
    let module = Inserted::new(ctx, sample.module)?;
    // Before anything is retrieved the driver knows the sum.
    says(&sample.noted(1, "new")?, "1 8 new")?;
    let device = Device::open()?;
    let mut kept = Vec::new();
    for (name, token, text) in [("first", 1, "2 8 one, later"), ("second", 2, "3 8 two")] {
        let session = device.retrieve_session(name)?;
        let file = session.retrieve(token)?;
        says(&file, text)?;
        session.finish()?;
        kept.push(file);
    }
    let session = device.create_session("again")?;
    kept.push(sample.noted(1, "third")?);
    (&kept[1]).write_all(b"two, again")?;
    for (token, file) in kept.iter().enumerate() {
        session.preserve(file, token as u64)?;
    }
    ctx.keep((module, session));
    Ok(())
}

fn retrieve(ctx: &mut Ctx, sample: &Sample) -> Result<()> {
    let module = Inserted::new(ctx, sample.module)?;
    let session = Device::open()?.retrieve_session("again")?;
    let texts = ["2 10 one, later", "4 10 two, again"];
    let mut files = Vec::new();
    for (token, text) in texts.into_iter().enumerate() {
        let file = session.retrieve(token as u64)?;
        says(&file, text)?;
        files.push(file);
    }
    // The third is never retrieved.
    session.finish()?;
    drop(session);
    // An ordinary file from now on, with which the module is in use.
    refused("in use", modules::remove(sample.module), Errno::EAGAIN)?;
    (&files[0]).write_all(b"an ordinary file")?;
    drop(files);
    module.remove()?;
    // It starts anew: nothing of what was handed over is there any more.
    let module = Inserted::new(ctx, sample.module)?;
    says(&sample.noted(1, "anew")?, "1 1 anew")?;
    module.remove()
}

fn preserve_rust(ctx: &mut Ctx) -> Result<()> {
    preserve(ctx, &RUST)
}

fn pass_on_rust(ctx: &mut Ctx) -> Result<()> {
    pass_on(ctx, &RUST)
}

fn retrieve_rust(ctx: &mut Ctx) -> Result<()> {
    retrieve(ctx, &RUST)
}

fn preserve_c(ctx: &mut Ctx) -> Result<()> {
    preserve(ctx, &C)
}

fn pass_on_c(ctx: &mut Ctx) -> Result<()> {
    pass_on(ctx, &C)
}

fn retrieve_c(ctx: &mut Ctx) -> Result<()> {
    retrieve(ctx, &C)
}

/// A handler that says no to PREPARE, or for want of it to the kexec.
fn not_ready(ctx: &mut Ctx) -> Result<()> {
    let module = Inserted::new(ctx, RUST.module)?;
    let device = Device::open()?;
    let session = device.create_session("busy")?;
    let other = memfd::create(5000)?;
    let file = RUST.noted(1, "fine")?;
    session.preserve(&other, 7)?;
    session.preserve(&file, 8)?;
    ctx.kexec_load()?;
    for _ in 0..2 {
        (&file).write_all(b"busy")?;
        let result = session.prepare();
        ensure!(result == Err((Errno::EBUSY, 8)), "{result:?}");
        ensure!(session.state()? == (1, 2, 0), "{:?}", session.state());
        let errno = kexec::execute();
        ensure!(errno == Errno::EBUSY, "reboot() says {errno:?}");
        // The memfd before it was frozen and is not any more.
        memfd::write_at(&other, 0, b"works").context("the memfd")?;
        session.preserve(&memfd::create(0)?, 9)?;
        session.unpreserve(9)?;
        (&file).write_all(b"fine")?;
        session.prepare().map_err(|(errno, _)| errno)?;
        session.cancel()?;
    }
    drop((session, file));
    module.remove()
}

const SIZE: u64 = 10_000;

/// Two sessions of a memfd and two files of the recorder each.
fn hand_on(ctx: &mut Ctx) -> Result<()> {
    let recorder = Recorder::new(ctx)?;
    let device = Device::open()?;
    for name in ["one", "two"] {
        let session = device.create_session(name)?;
        session.preserve(&recorder.open(Kind::A, 1)?, 1)?;
        let file = memfd::create(SIZE)?;
        data::fill(&file, 5, data::whole(SIZE))?;
        session.preserve(&file, 2)?;
        session.preserve(&recorder.open(Kind::B, 3)?, 3)?;
        ctx.keep(session);
    }
    ctx.keep(recorder);
    Ok(())
}

fn take_memfd(session: &Session) -> Result<()> {
    let file = session.retrieve(2).context("the memfd")?;
    data::check(&file, 5, SIZE, &[data::whole(SIZE)])
}

fn missing(ctx: &mut Ctx) -> Result<()> {
    let device = Device::open()?;
    let one = device.retrieve_session("one")?;
    for _ in 0..2 {
        for token in [1, 3] {
            refused("no handler", one.retrieve(token), Errno::ENOENT)?;
        }
        take_memfd(&one)?;
        refused("not without it", one.finish(), Errno::EBUSY)?;
    }
    ensure!(one.state()?.1 == 3, "{:?}", one.state());
    // It can be retrieved again, with all that it had; until then only luo.ko knows what was taken out of it.
    drop(one);
    ensure!(
        ctx.rmmod().is_err(),
        "removed with a session half retrieved"
    );
    writeback::unanswerable(&Command::retrieve_session(&device, "one"))?;
    drop(device);
    ensure!(ctx.rmmod().is_err(), "removed after a failed retrieval");
    let device = Device::open()?;
    let one = device.retrieve_session("one")?;
    take_memfd(&one)?;
    let recorder = Recorder::new(ctx)?;
    for token in [3, 1] {
        let file = one.retrieve(token).context("with the handler there")?;
        ensure!(id_of(&file)? == token);
    }
    one.finish()?;
    drop(one);
    let two = device.retrieve_session("two")?;
    take_memfd(&two)?;
    two.finish()?;
    drop(two);
    let record = recorder.take()?;
    ensure!(record.iter().any(|line| line == "x.finish"), "{record:?}");
    recorder.remove()
}

fn stays(ctx: &Ctx, what: &str) -> Result<()> {
    let removed = modules::remove(Recorder::NAME);
    refused(what, removed, Errno::EAGAIN)?;
    ensure!(ctx.rmmod().is_err(), "luo.ko below it was removed");
    Ok(())
}

fn in_use(ctx: &mut Ctx) -> Result<()> {
    let recorder = Recorder::new(ctx)?;
    let file = recorder.open(Kind::A, 1)?;
    stays(ctx, "with a file open")?;
    let session = Device::open()?.create_session("holds")?;
    session.preserve(&file, 1)?;
    drop(file);
    stays(ctx, "with a file preserved")?;
    recorder.get("outgoing")?;
    drop(session);
    stays(ctx, "with the FLB held")?;
    recorder.put("outgoing")?;
    ensure!(recorder.live()? == 0);
    recorder.remove()?;
    ensure!(!modules::is_inserted(Recorder::NAME));
    Recorder::new(ctx)?.remove()
}

/// The init of a module may fail after it has registered all that it has. Until it is done nobody is led there: the module
/// would go without a look at who still needs it.
fn still_coming(ctx: &mut Ctx) -> Result<()> {
    modules::need(ctx, Recorder::NAME)?;
    let session = Device::open()?.create_session("early")?;
    let before = references()?;
    let mut insmod = Child::spawn(|pipe| {
        let _ = writeln!(pipe, "{:?}", Recorder::insert_to_fail());
    })?;
    ctx.wait_for("the end of its init", LONG, Recorder::is_about_to_fail)?;
    let file = Recorder::open_file(Kind::A, 1)?;
    refused("its file", session.preserve(&file, 1), Errno::ENOENT)?;
    // What it needs for an answer may not be there yet.
    ensure!(Recorder::asked()? == "0\n", "it was asked");
    // Its module would go with it being open.
    drop(file);
    let flbs = std::fs::read_to_string("/sys/kernel/debug/luo/flbs")?;
    ensure!(!flbs.contains("recorder"), "{flbs:?}");
    Recorder::let_fail()?;
    let said = insmod.listen(LONG)?;
    ensure!(said == Said::Line("Err(EIO)".into()), "{said:?}");
    ensure!(references()? == before);
    drop(session);
    Recorder::new(ctx)?.remove()
}

fn in_use_after_kexec(ctx: &mut Ctx) -> Result<()> {
    let device = Device::open()?;
    let one = device.retrieve_session("one")?;
    // Nothing is the handler's as long as it was not asked.
    Recorder::new(ctx)?.remove()?;
    // Nor when all that it said was that this is no time to finish.
    let recorder = Recorder::new(ctx)?;
    recorder.fail("can_finish", 2, Errno::EBUSY)?;
    refused("not yet", one.finish(), Errno::EBUSY)?;
    recorder.expect("can_finish", "can_finish a1 0, can_finish b3 0")?;
    recorder.remove()?;
    let recorder = Recorder::new(ctx)?;
    recorder.value("incoming")?;
    stays(ctx, "with the FLB made")?;
    drop(one.retrieve(1)?);
    stays(ctx, "with a file that is not finished")?;
    drop((one, device.retrieve_session("two")?));
    recorder.remove()
}

/// A handler says of two files with this id that they are the same.
const SAME: u64 = 1000;

fn hand_on_same(ctx: &mut Ctx) -> Result<()> {
    let recorder = Recorder::new(ctx)?;
    let session = Device::open()?.create_session("same")?;
    session.preserve(&recorder.open(Kind::A, SAME)?, 1)?;
    let again = session.preserve(&recorder.open(Kind::A, SAME)?, 2);
    refused("the same again", again, Errno::EBUSY)?;
    ctx.keep((recorder, session));
    Ok(())
}

/// One that arrives is not lost because another one was preserved before.
fn the_same(ctx: &mut Ctx) -> Result<()> {
    let recorder = Recorder::new(ctx)?;
    let device = Device::open()?;
    let outgoing = device.create_session("outgoing")?;
    outgoing.preserve(&recorder.open(Kind::A, SAME)?, 1)?;
    let session = device.retrieve_session("same")?;
    let file = session.retrieve(1)?;
    ensure!(id_of(&file)? == SAME);
    let again = outgoing.preserve(&file, 2);
    refused("the same while it is preserved", again, Errno::EBUSY)?;
    session.finish()?;
    outgoing.unpreserve(1)?;
    Ok(outgoing.preserve(&file, 2)?)
}

/// What nobody has retrieved outlives the module that found it.
fn luo_reloaded(ctx: &mut Ctx) -> Result<()> {
    for _ in 0..2 {
        ctx.insmod("")?;
        let device = Device::open()?;
        ensure!(device.list_sessions(0, 0)?.1 == 2);
        ensure!(device.info()?.liveupdate_num == 1);
        drop(device);
        ctx.rmmod()?;
    }
    ctx.insmod("")?;
    let recorder = Recorder::new(ctx)?;
    let one = Device::open()?.retrieve_session("one")?;
    ensure!(ctx.rmmod().is_err(), "it was removed under a session");
    ensure!(id_of(&one.retrieve(1)?)? == 1);
    take_memfd(&one)?;
    one.finish()?;
    drop(one);
    recorder.remove()?;
    ctx.rmmod().context("with one of two finished")?;
    ctx.insmod("")?;
    let device = Device::open()?;
    let gone = device.retrieve_session("one");
    refused("finished before", gone, Errno::ENOENT)?;
    let recorder = Recorder::new(ctx)?;
    ensure!(recorder.value("incoming").is_ok(), "the FLB");
    let two = device.retrieve_session("two")?;
    take_memfd(&two)?;
    ensure!(id_of(&two.retrieve(3)?)? == 3);
    two.finish()?;
    drop(two);
    let record = recorder.take()?;
    ensure!(record.iter().any(|line| line == "x.finish"), "{record:?}");
    recorder.remove()?;
    drop(device);
    ctx.rmmod()?;
    ctx.insmod("")?;
    ensure!(Device::open()?.list_sessions(0, 0)?.1 == 0);
    Ok(())
}

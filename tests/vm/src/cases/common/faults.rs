// SPDX-License-Identifier: GPL-2.0

//! The kernel's fault injection: each step of a system call that may fail does so once, in turn
//! (Documentation/fault-injection in the kernel's sources).

use super::held::{self, Held};
use super::modules;
use crate::ctx::Ctx;
use crate::kmsg::Log;
use anyhow::{bail, ensure, Context, Result};
use nix::errno::Errno;
use nix::kmod::{finit_module, ModuleInitFlags};
use std::fmt;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// What was made to fail.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// An allocation of an object.
    Slab,
    /// An allocation from a pool, which has a reserve for that.
    Pool,
    /// An allocation of pages.
    Pages,
    /// A copy from or to user space.
    Copy,
    /// A fault point of luo.ko: any other step that may fail.
    Own,
}

impl Kind {
    const ALL: [(Kind, &'static str); 6] = [
        (Kind::Slab, "failslab"),
        (Kind::Pool, "fail_mempool_alloc"),
        (Kind::Pool, "fail_mempool_alloc_bulk"),
        (Kind::Pages, "fail_page_alloc"),
        (Kind::Copy, "fail_usercopy"),
        (Kind::Own, "fail_luo"),
    ];

    /// Whether an error tells honestly of such a failure.
    pub fn explains(self, errno: Errno) -> bool {
        match self {
            Kind::Slab | Kind::Pool | Kind::Pages => errno == Errno::ENOMEM,
            Kind::Copy => errno == Errno::EFAULT,
            // As the step itself; and as where a module is just being unloaded.
            Kind::Own => matches!(
                errno,
                Errno::EIO | Errno::ENODEV | Errno::ENOENT | Errno::EBUSY
            ),
        }
    }
}

/// How many points of each kind were made to fail.
#[derive(Clone, Copy, Debug, Default)]
pub struct Points {
    slab: u32,
    pages: u32,
    copies: u32,
    own: u32,
    /// Those after which the call went well all the same.
    absorbed: u32,
}

impl Points {
    /// One more.
    pub fn count(&mut self, kind: Kind, is_absorbed: bool) {
        *match kind {
            Kind::Slab | Kind::Pool => &mut self.slab,
            Kind::Pages => &mut self.pages,
            Kind::Copy => &mut self.copies,
            Kind::Own => &mut self.own,
        } += 1;
        self.absorbed += u32::from(is_absorbed);
    }

    /// Shows how many there were of this call, and how long it took since then. Fails if there was none.
    pub fn report(&self, ctx: &Ctx, what: &str, start: Instant) -> Result<()> {
        let seconds = start.elapsed().as_secs_f64();
        ctx.figure(&format!("{what}: {self} ({seconds:.1} s)"));
        ensure!(self.total() > 0, "{what}: nothing of it can fail");
        Ok(())
    }

    /// Those after which the call went well all the same.
    pub fn absorbed(&self) -> u32 {
        self.absorbed
    }

    /// All of them.
    pub fn total(&self) -> u32 {
        self.slab + self.pages + self.copies + self.own
    }
}

impl fmt::Display for Points {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(
            f,
            "{} points failed once: objects {}, pages {}, copies {}, luo.ko's own {}; {} of them absorbed",
            self.total(),
            self.slab,
            self.pages,
            self.copies,
            self.own,
            self.absorbed
        )
    }
}

/// How often something may fail before the kernel would stop it: never.
const TIMES: u32 = 1 << 30;

/// The fault injection, for this thread.
#[derive(Debug)]
pub struct Faults {
    nth: File,
}

impl Faults {
    /// Makes it ready: all kinds, and quietly.
    pub fn new() -> Result<Self> {
        for (_, name) in Kind::ALL {
            // That of luo.ko comes and goes with it, and is quiet by itself.
            if folder(name).exists() {
                set(name, "verbose", "0")?;
            }
        }
        for name in ["failslab", "fail_page_alloc"] {
            set(name, "ignore-gfp-wait", "N")?;
        }
        set("fail_page_alloc", "ignore-gfp-highmem", "N")?;
        set("fail_page_alloc", "min-order", "0")?;
        let nth = OpenOptions::new()
            .read(true)
            .write(true)
            .open("/proc/thread-self/fail-nth")
            .context("/proc/thread-self/fail-nth: is this kernel one of `make check-faults`?")?;
        Ok(Self { nth })
    }

    /// Fails unless luo.ko has fault points of its own.
    pub fn need_own(&self) -> Result<()> {
        ensure!(
            folder("fail_luo").exists(),
            "luo.ko has no fault points: build it with FAULTS=1"
        );
        Ok(())
    }

    /// Makes a call of which the `nth` point fails, from 1 on. Says what has failed: nothing, if there are not so many.
    pub fn inject<T>(&self, nth: u32, call: impl FnOnce() -> T) -> Result<(T, Option<Kind>)> {
        for (_, name) in Kind::ALL {
            if folder(name).exists() {
                set(name, "times", &TIMES.to_string())?;
            }
        }
        self.nth
            .write_all_at(nth.to_string().as_bytes(), 0)
            .context("fail-nth")?;
        let value = call();
        let mut text = [0; 16];
        // Where this fails it is the nth point itself, which is beyond the call.
        let left = self.nth.read_at(&mut text, 0);
        while self.nth.write_all_at(b"0", 0).is_err() {}
        let hit = left.is_ok() && text.starts_with(b"0\n");
        Ok((value, if hit { Some(last_failed()?) } else { None }))
    }
}

/// For those who say so, no object can be allocated, until this is dropped. For this thread, all is as before.
#[derive(Debug)]
pub struct Starvation(());

impl Starvation {
    /// So it is once they have allocated this many bytes.
    pub fn after(bytes: u64) -> Result<Self> {
        let begun = Self(());
        set("failslab", "verbose", "0")?;
        set("failslab", "ignore-gfp-wait", "N")?;
        set("failslab", "task-filter", "Y")?;
        set("failslab", "times", "-1")?;
        set("failslab", "space", &bytes.to_string())?;
        set("failslab", "probability", "100")?;
        Ok(begun)
    }

    /// Says so, for the calling process.
    pub fn is_mine() -> Result<()> {
        let path = "/proc/self/make-it-fail";
        std::fs::write(path, "1").context(path)
    }
}

impl Drop for Starvation {
    fn drop(&mut self) {
        for (file, value) in [("probability", "0"), ("space", "0"), ("task-filter", "N")] {
            let _ = set("failslab", file, value);
        }
    }
}

/// The kind of the one failure since the counters were set.
fn last_failed() -> Result<Kind> {
    for (kind, name) in Kind::ALL {
        if !folder(name).exists() {
            ensure!(kind == Kind::Own, "{name} is not there");
            // luo.ko is not there any more, or was not yet.
            return Ok(kind);
        }
        let path = folder(name).join("times");
        let times = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        if times.trim() != TIMES.to_string() {
            return Ok(kind);
        }
    }
    bail!("a point failed, and nobody has let it")
}

fn folder(name: &str) -> std::path::PathBuf {
    Path::new("/sys/kernel/debug").join(name)
}

fn set(name: &str, file: &str, value: &str) -> Result<()> {
    let path = folder(name).join(file);
    std::fs::write(&path, value).with_context(|| path.display().to_string())
}

/// Lets each point of a call fail, as `each_point` does it, and fails if the kernel holds a page more then. `first` is a
/// call before: it finds things to be made that stay.
pub fn leaving_nothing<T>(
    ctx: &Ctx,
    what: &str,
    first: impl FnOnce() -> Result<()>,
    each_point: impl FnOnce() -> Result<T>,
) -> Result<T> {
    held::charged(|cgroup| {
        first().context("before any fault")?;
        let held = Held::now(cgroup)?;
        let points = each_point()?;
        held.expect_no_more(ctx, what)?;
        Ok(points)
    })
}

type Check<'a, T> = Box<dyn Fn(&T) -> Result<()> + 'a>;

/// A call, each point of which is to fail once.
pub struct Sweep<'a, T> {
    what: &'a str,
    call: Box<dyn Fn() -> Result<T, Errno> + 'a>,
    check: Check<'a, T>,
    undo: Box<dyn Fn(T) -> Result<()> + 'a>,
}

impl<'a, T> Sweep<'a, T> {
    /// This call, undone when what it gives is dropped.
    pub fn new(what: &'a str, call: impl Fn() -> Result<T, Errno> + 'a) -> Self {
        Self {
            what,
            call: Box::new(call),
            check: Box::new(|_| Ok(())),
            undo: Box::new(|_| Ok(())),
        }
    }

    /// Whether the call did what it is for.
    pub fn check(self, check: impl Fn(&T) -> Result<()> + 'a) -> Self {
        let check = Box::new(check);
        Self { check, ..self }
    }

    /// Brings back what was before the call.
    pub fn undo(self, undo: impl Fn(T) -> Result<()> + 'a) -> Self {
        let undo = Box::new(undo);
        Self { undo, ..self }
    }

    /// Does it. `state` is all that can be seen, and must be as before when the call has failed or was undone. Nor may the
    /// kernel hold more than before.
    pub fn run(
        self,
        ctx: &Ctx,
        faults: &Faults,
        state: impl Fn() -> Result<String>,
    ) -> Result<Points> {
        let first = || self.plain();
        leaving_nothing(ctx, self.what, first, || {
            let start = Instant::now();
            let points = self.each_point(faults, state)?;
            points.report(ctx, self.what, start)?;
            Ok(points)
        })
    }

    /// Each point fails once.
    fn each_point(&self, faults: &Faults, state: impl Fn() -> Result<String>) -> Result<Points> {
        let before = state()?;
        let same = || -> Result<()> {
            let now = state()?;
            ensure!(now == before, "{now} instead of {before}");
            Ok(())
        };
        let mut points = Points::default();
        for nth in 1.. {
            let injected = faults.inject(nth, &self.call);
            let (result, failed) =
                injected.with_context(|| format!("{}, point {nth}", self.what))?;
            let at = || format!("{}, point {nth}, {failed:?}", self.what);
            if let Some(kind) = failed {
                points.count(kind, result.is_ok());
            }
            match (result, failed) {
                (Ok(value), _) => self.finish(value).with_context(at)?,
                (Err(errno), None) => bail!("{}: {errno:?}, and nothing has failed", at()),
                (Err(errno), Some(kind)) => {
                    ensure!(kind.explains(errno), "{}: {errno:?}", at());
                    same().with_context(at)?;
                    self.plain().with_context(at)?;
                }
            }
            same().with_context(|| format!("{}, undone", at()))?;
            if failed.is_none() {
                break;
            }
        }
        Ok(points)
    }

    /// The call without a fault, and back.
    fn plain(&self) -> Result<()> {
        let value = (self.call)().with_context(|| format!("{} without a fault", self.what))?;
        self.finish(value)
    }

    fn finish(&self, value: T) -> Result<()> {
        (self.check)(&value)?;
        (self.undo)(value)
    }
}

/// What the kernel itself warns of when there is no memory for it while a module comes in: a field of a tracepoint, and
/// a file in KHO's debugfs.
pub const INSMOD_LOG: &[&str] = &["at event_define_fields", "at kho_add_subtree"];

/// A module, each point of whose insmod is to fail once.
pub struct Insmod<'a> {
    name: &'a str,
    path: PathBuf,
}

impl<'a> Insmod<'a> {
    /// The module that all of this is about.
    pub fn luo() -> Self {
        Self {
            name: "luo",
            path: "/luo.ko".into(),
        }
    }

    /// One on top of it.
    pub fn of(name: &'a str) -> Self {
        Self {
            name,
            path: modules::file_of(name),
        }
    }

    /// Inserts it, again and again; it stays inserted. Whenever it came in, `check` is called, and whenever it did not,
    /// `same`: whether all is as before.
    pub fn run(
        &self,
        ctx: &Ctx,
        faults: &Faults,
        check: impl Fn() -> Result<()>,
        same: impl Fn() -> Result<()>,
    ) -> Result<Points> {
        let file = File::open(&self.path).with_context(|| self.path.display().to_string())?;
        let mut points = Points::default();
        let start = Instant::now();
        let mut log = Log::from_now()?;
        for nth in 1.. {
            let insert = || finit_module(&file, c"", ModuleInitFlags::empty());
            let (result, failed) = faults.inject(nth, insert)?;
            let at = || format!("insmod {}, point {nth}, {failed:?}: {result:?}", self.name);
            if let Some(kind) = failed {
                points.count(kind, result.is_ok());
            }
            // That there was no memory is no fault of what the previous kernel left.
            let lines = log.lines()?;
            let refused = lines.iter().find(|line| line.contains("refused"));
            ensure!(refused.is_none(), "{}: {refused:?}", at());
            match (result, failed) {
                (Ok(()), None) => {
                    check().with_context(at)?;
                    break;
                }
                (Ok(()), Some(_)) => {
                    check().with_context(at)?;
                    modules::remove(self.name).with_context(at)?;
                }
                (Err(errno), Some(kind)) => {
                    ensure!(kind.explains(errno), "{}", at());
                    let is_there = modules::is_inserted(self.name);
                    ensure!(!is_there, "{}: it is still there", at());
                }
                (Err(_), None) => bail!("{}", at()),
            }
            same().with_context(|| format!("{}, undone", at()))?;
        }
        points.report(ctx, &format!("insmod {}", self.name), start)?;
        Ok(points)
    }
}

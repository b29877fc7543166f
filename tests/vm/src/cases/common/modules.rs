// SPDX-License-Identifier: GPL-2.0

//! Modules on top of luo.ko, and what there is to do with the recorder (see tests/modules/recorder/recorder.h).

use super::io_errno;
use super::luo::DEVICE;
use crate::ctx::Ctx;
use anyhow::{ensure, Context, Result};
use nix::errno::Errno;
use nix::kmod::{delete_module, finit_module, DeleteModuleFlags, ModuleInitFlags};
use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where the VM has a module. Of luo.ko it is another build, which takes over from the first.
pub fn file_of(name: &str) -> PathBuf {
    Path::new("/modules").join(name).with_extension("ko")
}

/// True if the module is inserted.
pub fn is_inserted(name: &str) -> bool {
    Path::new("/sys/module").join(name).exists()
}

/// Inserts a module; on top of a luo.ko that is there.
pub fn insert(name: &str) -> Result<()> {
    let path = file_of(name);
    let file = File::open(&path).with_context(|| path.display().to_string())?;
    finit_module(&file, c"", ModuleInitFlags::empty()).with_context(|| format!("insmod {name}"))
}

/// Removes a module, unless it is in use.
pub fn remove(name: &str) -> Result<(), Errno> {
    let name = CString::new(name).map_err(|_| Errno::EINVAL)?;
    delete_module(&name, DeleteModuleFlags::O_NONBLOCK)
}

/// Skips a case if luo.ko is not what serves the device, or this module was not built.
pub fn need(ctx: &Ctx, name: &str) -> Result<()> {
    super::only_ours(ctx, "takes no handlers from modules")?;
    match file_of(name).exists() {
        true => Ok(()),
        false => ctx.skip(&format!("there is no {name}.ko in this VM")),
    }
}

/// Inserts a module until this is dropped.
#[derive(Debug)]
pub struct Inserted(&'static str);

impl Inserted {
    /// Inserts it; one that a failed case left is removed before.
    pub fn new(ctx: &Ctx, name: &'static str) -> Result<Self> {
        need(ctx, name)?;
        Self::again(name)
    }

    /// The same where it is known to be there.
    pub fn again(name: &'static str) -> Result<Self> {
        ensure!(Path::new(DEVICE).exists(), "there is no {DEVICE}");
        if is_inserted(name) {
            remove(name).with_context(|| format!("an old {name} is in use"))?;
        }
        insert(name)?;
        Ok(Self(name))
    }

    /// Removes it, and fails if it is in use.
    pub fn remove(self) -> Result<()> {
        let name = self.0;
        std::mem::forget(self);
        remove(name).with_context(|| format!("rmmod {name}"))
    }
}

impl Drop for Inserted {
    fn drop(&mut self) {
        let _ = remove(self.0);
    }
}

/// A kind of file of the recorder.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// Depends on both FLBs.
    A,
    /// Depends on FLB x.
    B,
    /// Has a handler in Rust, and depends on FLB z. Needs [`Recorder::with_rust`].
    C,
}

/// The recorder, inserted.
#[derive(Debug)]
pub struct Recorder {
    /// Its part in Rust, which goes first.
    rust: Option<Inserted>,
    /// `None` where it is in the kernel itself, for the orchestrator in C.
    module: Option<Inserted>,
    /// What KHO had preserved before; its debugfs only tells so in the first kernel.
    before: Option<(u64, u64)>,
}

impl Recorder {
    /// Its name as a module.
    pub const NAME: &'static str = "luo_recorder";
    /// The name of its part in Rust.
    const RUST: &'static str = "luo_recorder_rust";

    /// Inserts it.
    pub fn new(ctx: &Ctx) -> Result<Self> {
        if is_inserted(Self::RUST) {
            remove(Self::RUST).context("an old part in Rust is in use")?;
        }
        // One that is built in is there with the orchestrator in C only.
        let module = match Self::debugfs("log").exists() && !is_inserted(Self::NAME) {
            true => None,
            false => Some(Inserted::new(ctx, Self::NAME)?),
        };
        Ok(Self {
            rust: None,
            module,
            before: super::kho::root()
                .is_ok()
                .then(Self::preserved)
                .transpose()?,
        })
    }

    /// Inserts it together with its part in Rust.
    pub fn with_rust(ctx: &Ctx) -> Result<Self> {
        let mut recorder = Self::new(ctx)?;
        recorder.rust = Some(Inserted::new(ctx, Self::RUST)?);
        Ok(recorder)
    }

    /// Removes it, and fails if it is in use.
    pub fn remove(self) -> Result<()> {
        self.rust.map_or(Ok(()), Inserted::remove)?;
        self.module.map_or(Ok(()), Inserted::remove)
    }

    /// Fails if anything is preserved that was not when this was inserted. Without any session, whose list is preserved,
    /// too.
    pub fn nothing_left(&self) -> Result<()> {
        let live = self.live()?;
        ensure!(live == 0, "{live} pages are still preserved");
        if let Some(before) = self.before {
            let now = Self::preserved()?;
            ensure!(now == before, "KHO preserves {now:?} instead of {before:?}");
        }
        Ok(())
    }

    /// A new file with this id.
    pub fn open(&self, kind: Kind, id: u64) -> Result<File> {
        Self::open_file(kind, id)
    }

    /// The same for a process that knows that the recorder is there.
    pub fn open_file(kind: Kind, id: u64) -> Result<File> {
        let path = match kind {
            Kind::A => "/dev/luo-recorder-a",
            Kind::B => "/dev/luo-recorder-b",
            Kind::C => "/dev/luo-recorder-c",
        };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .context(path)?;
        // In one piece.
        file.write_all(id.to_string().as_bytes())?;
        Ok(file)
    }

    /// Inserts it with an init that fails after all else, once [`Self::let_fail`] is called. Waits for that.
    pub fn insert_to_fail() -> Result<(), Errno> {
        let file = File::open(file_of(Self::NAME)).map_err(|_| Errno::ENOENT)?;
        finit_module(&file, c"fails=1", ModuleInitFlags::empty())
    }

    /// Whether all that [`Self::insert_to_fail`] has to do is to fail.
    pub fn is_about_to_fail() -> bool {
        std::fs::read_to_string(Self::param("fails")).is_ok_and(|text| text == "2\n")
    }

    /// How often its handlers were asked whether they take a file: `0\n` at first.
    pub fn asked() -> Result<String> {
        std::fs::read_to_string(Self::param("asked")).context("asked")
    }

    /// Lets the init fail.
    pub fn let_fail() -> Result<()> {
        std::fs::write(Self::param("go"), "1").context("go")
    }

    fn param(name: &str) -> String {
        format!("/sys/module/{}/parameters/{name}", Self::NAME)
    }

    fn debugfs(file: &str) -> PathBuf {
        Path::new("/sys/kernel/debug/luo-recorder").join(file)
    }

    fn read(file: &str) -> std::io::Result<String> {
        // Some of these files change when they are read: so once only.
        let mut bytes = vec![0; 1 << 18];
        let len = File::open(Self::debugfs(file))?.read(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes[..len]).trim().to_string())
    }

    fn write(file: &str, text: &str) -> std::io::Result<()> {
        let mut file = OpenOptions::new().write(true).open(Self::debugfs(file))?;
        file.write_all(text.as_bytes())
    }

    /// Takes the record.
    pub fn take(&self) -> Result<Vec<String>> {
        let text = Self::read("log").context("the record")?;
        Self::write("log", "\n")?;
        Ok(text.lines().map(String::from).collect())
    }

    /// Takes the record, and fails unless it is this: callbacks separated by commas.
    pub fn expect(&self, what: &str, wanted: &str) -> Result<()> {
        let record = self.take()?;
        let wanted: Vec<_> = wanted
            .split(',')
            .map(str::trim)
            .filter(|line| !line.is_empty())
            .collect();
        ensure!(record == wanted, "{what}: {record:?} instead of {wanted:?}");
        Ok(())
    }

    /// Lets the k-th call of a callback from now on fail.
    pub fn fail(&self, callback: &str, k: usize, errno: Errno) -> Result<()> {
        let line = format!("{callback} {k} {}", errno as i32);
        Self::write("fail", &line).context("fail")
    }

    /// Lets the k-th call of a callback from now on wait, until [`Self::open_gate`] or [`Self::fail`].
    pub fn hold(&self, callback: &str, k: usize) -> Result<()> {
        Self::write("fail", &format!("{callback} {k} 0")).context("fail")
    }

    /// Lets the k-th call of one callback from now on fail, and that of another one wait. Opens the gate before.
    pub fn fail_and_hold(
        &self,
        (fails, k, errno): (&str, usize, Errno),
        (waits, l): (&str, usize),
    ) -> Result<()> {
        let lines = format!("{fails} {k} {}\n{waits} {l} 0", errno as i32);
        Self::write("fail", &lines).context("fail")
    }

    /// Lets a callback that waits go on.
    pub fn open_gate(&self) -> Result<()> {
        Self::write("fail", "\n").context("fail")
    }

    /// Waits until the record ends with this callback.
    pub fn wait_for(&self, ctx: &Ctx, callback: &str) -> Result<()> {
        let there = || {
            let text = Self::read("log").unwrap_or_default();
            text.lines().last() == Some(callback)
        };
        ctx.wait_for(callback, Duration::from_secs(60), there)
    }

    /// Number of preserved pages of this kernel.
    pub fn live(&self) -> Result<usize> {
        Ok(Self::read("live").context("live")?.parse()?)
    }

    /// What KHO preserves for the next kernel, where its debugfs tells: number, and pages.
    pub fn kept(&self) -> Result<Option<(u64, u64)>> {
        self.before.map(|_| Self::preserved()).transpose()
    }

    /// What KHO has preserved for the next kernel: number, and pages. The one list that KHO's debugfs leads to.
    fn preserved() -> Result<(u64, u64)> {
        let root = super::kho::root().context("KHO's debugfs")?;
        Self::write("preserved", &root.to_string())?;
        Self::sum("preserved")
    }

    /// What the previous kernel preserved and nobody has restored yet: number, and pages.
    pub fn unrestored(&self) -> Result<(u64, u64)> {
        Self::sum("unrestored")
    }

    fn sum(file: &str) -> Result<(u64, u64)> {
        let text = Self::read(file).context(file.to_string())?;
        let (count, pages) = text.split_once(' ').context(text.clone())?;
        Ok((count.parse()?, pages.parse()?))
    }

    /// Unregisters the FLBs, or registers them again.
    pub fn link(&self, linked: bool) -> Result<()> {
        Self::write("linked", if linked { "1" } else { "0" }).context("linked")
    }

    /// Unregisters the handlers and the FLBs, and registers them again.
    pub fn register_again(&self) -> Result<()> {
        Self::write("linked", "2").context("linked")
    }

    /// Unregisters the FLB of the part in Rust, or registers it again, for no handler.
    pub fn link_rust(&self, linked: bool) -> Result<(), Errno> {
        let mut file = OpenOptions::new()
            .write(true)
            .open("/dev/luo-recorder-c")
            .map_err(io_errno)?;
        let word = if linked { "link" } else { "unlink" };
        file.write_all(word.as_bytes()).map_err(io_errno)
    }

    /// Lets a callback ask for FLB "x" or "y" in the new kernel, and note what it was told.
    pub fn ask(&self, callback: &str, flb: &str) -> Result<()> {
        Self::write("ask", &format!("{callback} {flb}")).context("ask")
    }

    /// The value of FLB x, in the file "incoming" or "outgoing"; or of y, in "incoming-y" or "outgoing-y".
    pub fn value(&self, side: &str) -> Result<u64, Errno> {
        let text = Self::read(side).map_err(io_errno)?;
        text.parse().map_err(|_| Errno::EBADMSG)
    }

    /// Gets FLB x, until it is put.
    pub fn get(&self, side: &str) -> Result<(), Errno> {
        Self::write(side, "1").map_err(io_errno)
    }

    /// Puts FLB x.
    pub fn put(&self, side: &str) -> Result<(), Errno> {
        Self::write(side, "0").map_err(io_errno)
    }
}

/// What a file has to say, from its position on.
pub fn text_of(mut file: &File) -> Result<String> {
    let mut text = [0; 256];
    let len = file.read(&mut text)?;
    Ok(String::from_utf8_lossy(&text[..len]).trim().to_string())
}

/// The id of a file of the recorder, asked for once.
pub fn id_of(file: &File) -> Result<u64> {
    Ok(text_of(file)?.parse()?)
}

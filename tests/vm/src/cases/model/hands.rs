// SPDX-License-Identifier: GPL-2.0

//! Does what the model's commands say, in the process that it is called in.

use super::call::{done, errno, Call};
use crate::cases::common::ext::{
    text, FdEntry, FlagsArg, InfoArg, ListArg, SessionEntry, StateArg, TokenArg, CANCEL, GET_INFO,
    GET_STATE, LIST_FDS, LIST_SESSIONS, PREPARE, SET_FLAGS, UNPRESERVE_FD,
};
use crate::cases::common::luo::{
    ioctl, FdArg, FinishArg, NameArg, SessionArg, CREATE_SESSION, DEVICE, FINISH, GET_NAME,
    NAME_LEN, PRESERVE_FD, RETRIEVE_FD, RETRIEVE_SESSION,
};
use crate::cases::common::memfd;
use crate::cases::common::modules::{Kind, Recorder};
use crate::cases::common::passing;
use luo_model::{
    Answer, Command, DeviceRequest, Errno, FileEntry, FileKind, Name, Request, SessionState, Shape,
    Slot, Told,
};
use nix::sys::socket::MsgFlags;
use std::fs::{File, OpenOptions};
use std::io::Read;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixDatagram;
use std::sync::atomic::{AtomicI32, Ordering::SeqCst};

/// A file on tmpfs that has a name.
const NAMED: &str = "/tmp/named";
const PAGE: u64 = 4096;
/// Most entries that a list is given room for.
const ROOM: u64 = 64;

/// The socket that all processes have, by which descriptors go from one to another.
#[derive(Debug)]
pub struct Mailbox {
    into: UnixDatagram,
    out_of: UnixDatagram,
}

impl Mailbox {
    /// An empty one.
    pub fn new() -> std::io::Result<Self> {
        let (into, out_of) = UnixDatagram::pair()?;
        Ok(Self { into, out_of })
    }
}

/// What a process has and is: shared by its threads.
#[derive(Debug)]
pub struct Hands<'a> {
    /// The device's descriptor.
    pub device: RawFd,
    /// Where descriptors go through.
    pub mailbox: &'a Mailbox,
    /// The first byte of all names of this owner.
    pub owner: u8,
    /// Whether there is nobody else, whose sessions are to be left out of lists.
    pub alone: bool,
    /// The descriptors; -1 for none.
    slots: Vec<AtomicI32>,
}

fn io_errno(error: std::io::Error) -> Errno {
    Errno::from(error.raw_os_error().unwrap_or(0))
}

fn state(raw: u32) -> SessionState {
    match raw {
        1 => SessionState::Normal,
        2 => SessionState::Prepared,
        3 => SessionState::Frozen,
        4 => SessionState::Updated,
        other => SessionState::Other(other),
    }
}

impl<'a> Hands<'a> {
    /// A process without descriptors.
    pub fn new(device: RawFd, mailbox: &'a Mailbox, layout: &luo_model::Layout) -> Self {
        Self {
            device,
            mailbox,
            owner: layout.owner,
            alone: layout.alone,
            slots: (0..layout.slots).map(|_| AtomicI32::new(-1)).collect(),
        }
    }

    /// Does it, and gives the answer. Commands that are not one process's alone are not done here.
    pub fn perform(&self, command: &Command) -> Answer {
        match *command {
            Command::Device(ref request, shape) => self.on_device(request, shape),
            Command::Session(slot, ref request, shape) => self.on_session(slot, request, shape),
            Command::Strange(slot, number) => {
                let fd = slot.map_or(self.device, |slot| self.fd(slot));
                // As long as the longest argument there is, and zero: nothing to object to but the number.
                let mut arg = [0u32; 64];
                arg[0] = 256;
                done(ioctl(fd, number, &mut arg)).map(|()| Told::Nothing)
            }
            Command::OpenDevice => {
                let opened = OpenOptions::new().read(true).write(true).open(DEVICE);
                opened.map(|_| Told::Nothing).map_err(io_errno)
            }
            Command::FdInfo(slot) => self.fdinfo(slot),
            Command::NewFile(kind, id, slot) => {
                self.put(slot, new_file(kind, id)?);
                Ok(Told::Nothing)
            }
            Command::Write { file, page, value } => {
                let file = self.memfd(file)?;
                let written = memfd::write_at(&file, page * PAGE, &value.to_le_bytes());
                done(written).map(|()| Told::Nothing)
            }
            Command::Read(slot) => self.read(slot),
            Command::Resize(slot, pages) => {
                let file = self.memfd(slot)?;
                done(memfd::truncate(&file, pages * PAGE)).map(|()| Told::Nothing)
            }
            Command::Close(slot) => {
                let fd = self.slot(slot).swap(-1, SeqCst);
                done(nix::unistd::close(fd)).map(|()| Told::Nothing)
            }
            Command::Dup(from, to) => {
                // SAFETY: a number, that may or may not be a descriptor.
                let fd = unsafe { libc::fcntl(self.fd(from), libc::F_DUPFD_CLOEXEC, 0) };
                let fd = nix::errno::Errno::result(fd).map_err(errno)?;
                // SAFETY: the kernel just made this descriptor for us.
                self.put(to, unsafe { OwnedFd::from_raw_fd(fd) });
                Ok(Told::Nothing)
            }
            Command::Send(slot) => self.send(slot),
            Command::Receive(slot) => self.receive(slot),
            Command::Kill(_) | Command::FailNext(_) | Command::RefusedKexec | Command::Kexec => {
                Err(Errno::Other(0))
            }
        }
    }

    fn slot(&self, slot: Slot) -> &AtomicI32 {
        &self.slots[usize::from(slot)]
    }

    fn fd(&self, slot: Slot) -> RawFd {
        self.slot(slot).load(SeqCst)
    }

    fn put(&self, slot: Slot, fd: impl Into<OwnedFd>) {
        let before = self.slot(slot).swap(fd.into().into_raw_fd(), SeqCst);
        if before >= 0 {
            // SAFETY: a descriptor of ours, which nobody else closes: its slot has another by now.
            drop(unsafe { OwnedFd::from_raw_fd(before) });
        }
    }

    /// The file in a slot.
    fn file(&self, slot: Slot) -> Result<ManuallyDrop<File>, Errno> {
        match self.fd(slot) {
            -1 => Err(Errno::EBADF),
            // SAFETY: a descriptor of ours; it is not closed here, nor by anybody else while a command uses the slot.
            fd => Ok(ManuallyDrop::new(unsafe { File::from_raw_fd(fd) })),
        }
    }

    /// The same if it is a memfd.
    fn memfd(&self, slot: Slot) -> Result<ManuallyDrop<File>, Errno> {
        let file = self.file(slot)?;
        match is_memfd(&file)? {
            true => Ok(file),
            false => Err(Errno::EINVAL),
        }
    }

    fn read(&self, slot: Slot) -> Answer {
        contents(&*self.file(slot)?)
    }

    fn fdinfo(&self, slot: Slot) -> Answer {
        if !link_of(self.file(slot)?.as_raw_fd())?.contains("[luo_session]") {
            return Err(Errno::EINVAL);
        }
        let path = format!("/proc/self/fdinfo/{}", self.fd(slot));
        let all = std::fs::read_to_string(path).map_err(io_errno)?;
        let value = |key: &str| {
            let mut values = all.lines().filter_map(|line| line.strip_prefix(key));
            values.next().map_or("", str::trim)
        };
        Ok(Told::FdInfo {
            state: match value("state:") {
                "normal" => SessionState::Normal,
                "prepared" => SessionState::Prepared,
                "frozen" => SessionState::Frozen,
                "updated" => SessionState::Updated,
                _ => SessionState::Other(0),
            },
            ordered: value("ordered:") == "1",
            files: value("files:").parse().unwrap_or(u64::MAX),
        })
    }

    fn send(&self, slot: Slot) -> Answer {
        let sent = passing::send(&self.mailbox.into, self.fd(slot));
        done(sent).map(|()| Told::Nothing)
    }

    fn receive(&self, slot: Slot) -> Answer {
        let received = passing::receive(&self.mailbox.out_of, MsgFlags::MSG_DONTWAIT);
        self.put(slot, received.map_err(errno)?);
        Ok(Told::Nothing)
    }

    fn on_device(&self, request: &DeviceRequest, shape: Shape) -> Answer {
        let call = Call {
            shape,
            has_reserved: request.has_reserved(),
            answers: request.answers(),
        };
        let fd = self.device;
        let session = |number, name: Name, slot| {
            let mut arg = SessionArg::new("");
            arg.name = name.field(self.owner);
            call.ioctl(fd, number, &mut arg)?;
            // SAFETY: the kernel just made this descriptor for us.
            self.put(slot, unsafe { OwnedFd::from_raw_fd(arg.fd) });
            Ok(Told::Nothing)
        };
        match *request {
            DeviceRequest::Create(name, slot) => session(CREATE_SESSION, name, slot),
            DeviceRequest::Retrieve(name, slot) => session(RETRIEVE_SESSION, name, slot),
            DeviceRequest::Info => {
                let mut arg = InfoArg::new();
                call.ioctl(fd, GET_INFO, &mut arg)?;
                Ok(Told::LiveUpdates(arg.liveupdate_num))
            }
            DeviceRequest::List { start, room } => {
                let mut entries = vec![SessionEntry::NONE; room.min(ROOM) as usize];
                let mut arg = ListArg::new(start, &mut entries);
                call.ioctl(fd, LIST_SESSIONS, &mut arg)?;
                entries.truncate(arg.count as usize);
                let entries = entries.iter().map(|entry| luo_model::SessionEntry {
                    name: name_of(&entry.name),
                    state: state(entry.state),
                    ordered: entry.flags == 1,
                    files: entry.nr_files,
                });
                let mut entries: Vec<_> = entries.collect();
                if !self.alone {
                    entries.retain(|entry| entry.name.first() == Some(&self.owner));
                    arg.total = entries.len() as u64;
                }
                let total = arg.total;
                Ok(Told::Sessions { entries, total })
            }
        }
    }

    fn on_session(&self, slot: Slot, request: &Request, shape: Shape) -> Answer {
        let call = Call {
            shape,
            has_reserved: request.has_reserved(),
            answers: request.answers(),
        };
        let fd = self.fd(slot);
        let plain = |number| {
            let size = size_of::<FinishArg>() as u32;
            call.ioctl(fd, number, &mut FinishArg { size, reserved: 0 })
        };
        match *request {
            Request::Preserve { file, token } => {
                call.ioctl(fd, PRESERVE_FD, &mut FdArg::new(self.fd(file), token))?;
            }
            Request::Unpreserve(token) => {
                call.ioctl(fd, UNPRESERVE_FD, &mut TokenArg::new(token))?;
            }
            Request::Retrieve { token, to } => {
                let mut arg = FdArg::new(-1, token);
                call.ioctl(fd, RETRIEVE_FD, &mut arg)?;
                // SAFETY: the kernel just made this descriptor for us.
                self.put(to, unsafe { OwnedFd::from_raw_fd(arg.fd) });
            }
            Request::Prepare => call.ioctl(fd, PREPARE, &mut TokenArg::new(0))?,
            Request::Cancel => plain(CANCEL)?,
            Request::Finish => plain(FINISH)?,
            Request::SetFlags(flags) => call.ioctl(fd, SET_FLAGS, &mut FlagsArg::new(flags))?,
            Request::Name => {
                let size = size_of::<NameArg>() as u32;
                let mut arg = NameArg {
                    size,
                    reserved: 0,
                    name: [0xff; NAME_LEN],
                };
                call.ioctl(fd, GET_NAME, &mut arg)?;
                return Ok(Told::Name(name_of(&arg.name)));
            }
            Request::State => {
                let mut arg = StateArg {
                    size: size_of::<StateArg>() as u32,
                    state: !0,
                    nr_files: !0,
                    nr_retrieved: !0,
                };
                call.ioctl(fd, GET_STATE, &mut arg)?;
                return Ok(Told::State {
                    state: state(arg.state),
                    files: arg.nr_files,
                    retrieved: arg.nr_retrieved,
                });
            }
            Request::List { start, room } => {
                let mut entries = vec![FdEntry::NONE; room.min(ROOM) as usize];
                let mut arg = ListArg::new(start, &mut entries);
                call.ioctl(fd, LIST_FDS, &mut arg)?;
                entries.truncate(arg.count as usize);
                let entries = entries.iter().map(|entry| FileEntry {
                    token: entry.token,
                    compatible: text(&entry.compatible),
                    state: state(entry.state),
                });
                let (entries, total) = (entries.collect(), arg.total);
                return Ok(Told::Files { entries, total });
            }
        }
        Ok(Told::Nothing)
    }
}

/// What is in a file: all of a memfd, and of a file of the recorder what is behind its position.
pub fn contents(mut file: &File) -> Answer {
    if is_memfd(file)? {
        let size = file.metadata().map_err(io_errno)?.len();
        let words = (0..).take_while(|page| page * PAGE + 8 <= size);
        let words = words.map(|page| {
            let mut word = [0; 8];
            file.read_exact_at(&mut word, page * PAGE)?;
            Ok(u64::from_le_bytes(word))
        });
        let words: std::io::Result<_> = words.collect();
        let words = words.map_err(io_errno)?;
        return Ok(Told::Contents { size, words });
    }
    if !link_of(file.as_raw_fd())?.contains("luo-recorder") {
        return Err(Errno::EINVAL);
    }
    let mut line = [0; 32];
    let len = file.read(&mut line).map_err(io_errno)?;
    let line = String::from_utf8_lossy(&line[..len]);
    Ok(Told::Id(line.trim().parse().ok()))
}

/// A memfd is told from other files by its not having a name.
fn is_memfd(file: &File) -> Result<bool, Errno> {
    let stat = nix::sys::stat::fstat(file).map_err(errno)?;
    Ok(stat.st_nlink == 0)
}

/// What the link of a descriptor says.
fn link_of(fd: RawFd) -> Result<String, Errno> {
    let link = std::fs::read_link(format!("/proc/self/fd/{fd}")).map_err(io_errno)?;
    Ok(link.to_string_lossy().into_owned())
}

/// The bytes of a name. If it does not end, or there is something behind its end: all of the field.
fn name_of(field: &[u8; NAME_LEN]) -> Vec<u8> {
    let len = field.iter().position(|&byte| byte == 0);
    let ended = len.filter(|&len| field[len..].iter().all(|&byte| byte == 0));
    field[..ended.unwrap_or(NAME_LEN)].to_vec()
}

fn new_file(kind: FileKind, id: u32) -> Result<OwnedFd, Errno> {
    let open = |path: &str| {
        OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
    };
    let opened = match kind {
        FileKind::Memfd => memfd::create(0).map_err(|_| Errno::Other(0))?.into(),
        FileKind::Null => open("/dev/null").map_err(io_errno)?.into(),
        FileKind::Named => open(NAMED).map_err(io_errno)?.into(),
        FileKind::Event => {
            // SAFETY: numbers.
            let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
            let fd = nix::errno::Errno::result(fd).map_err(errno)?;
            // SAFETY: the kernel just made this descriptor for us.
            unsafe { OwnedFd::from_raw_fd(fd) }
        }
        FileKind::RecorderA | FileKind::RecorderB => {
            let kind = match kind {
                FileKind::RecorderA => Kind::A,
                _ => Kind::B,
            };
            Recorder::open_file(kind, id.into())
                .map_err(|_| Errno::Other(0))?
                .into()
        }
    };
    Ok(opened)
}

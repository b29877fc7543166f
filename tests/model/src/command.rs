// SPDX-License-Identifier: GPL-2.0

//! What a process can do. Each command makes sense in any situation, so that any part of a sequence is one, too.

use crate::world::World;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Where a process has a descriptor, or none.
pub type Slot = u8;

/// A thread of a process.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Worker {
    /// The process, from 0.
    pub process: u8,
    /// The thread of it, from 0.
    pub thread: u8,
}

/// A command, and who issues it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Step {
    /// Who.
    pub by: Worker,
    /// What.
    pub command: Command,
}

impl Step {
    /// What it is called in this world, without its arguments: close(2) is another thing where it ends a session.
    pub fn name(&self, world: &World) -> &'static str {
        if let Command::Close(_) = self.command {
            let mut after = world.clone();
            let _ = after.apply(self);
            if after.sessions() < world.sessions() {
                return "close a session";
            }
        }
        self.command.name()
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Worker { process, thread } = self.by;
        write!(f, "process {process}, thread {thread}: {:?}", self.command)
    }
}

/// How the argument of a command is passed.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Shape {
    /// As it should be.
    Good,
    /// Longer than the kernel knows it, with zeros behind.
    Longer,
    /// The same with something behind.
    Newer,
    /// A byte too short.
    Short,
    /// With the reserved field set, if there is one; else good.
    Reserved,
    /// At an address where there is nothing.
    Unreadable,
    /// Where nothing can be written, if the command answers; else good.
    ReadOnly,
}

/// A session's name.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Name {
    /// A short one.
    Plain(u8),
    /// The same with other bytes behind its zero.
    Dirty(u8),
    /// The longest there is, of bytes that are no text.
    Long,
    /// None.
    Empty,
    /// One that does not end.
    Unterminated,
}

impl Name {
    /// Size of the field.
    pub const SIZE: usize = 64;

    /// The field, for one who has `owner` before all names.
    pub fn field(self, owner: u8) -> [u8; Self::SIZE] {
        let mut field = [0; Self::SIZE];
        match self {
            Self::Plain(number) | Self::Dirty(number) => {
                field[..2].copy_from_slice(&[owner, b'0' + number]);
                if matches!(self, Self::Dirty(_)) {
                    field[3..].fill(b'x');
                }
            }
            Self::Long => field[..63].fill(0xfe),
            Self::Empty => field[1..].fill(b'x'),
            Self::Unterminated => field.fill(b'x'),
        }
        if self == Self::Long {
            field[0] = owner;
        }
        field
    }

    /// The name; `None` if it is not one.
    pub fn bytes(self, owner: u8) -> Option<Vec<u8>> {
        let field = self.field(owner);
        let len = field.iter().position(|&byte| byte == 0)?;
        (len > 0).then(|| field[..len].to_vec())
    }
}

/// A kind of file.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum FileKind {
    /// A memfd, empty.
    Memfd,
    /// One of the recorder's, which depends on the FLBs x and y.
    RecorderA,
    /// One of the recorder's, which depends on the FLB x.
    RecorderB,
    /// /dev/null, which no handler takes.
    Null,
    /// An eventfd, likewise.
    Event,
    /// A file on tmpfs that has a name, likewise.
    Named,
}

/// What can be made to fail: a callback of the recorder.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Callback {
    /// preserve() of a file.
    Preserve,
    /// preserve() of the FLB x.
    PreserveX,
    /// preserve() of the FLB y.
    PreserveY,
    /// retrieve() of a file.
    Retrieve,
    /// can_finish() of a file.
    CanFinish,
}

/// A command to the device.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum DeviceRequest {
    /// CREATE_SESSION, to be put into a slot.
    Create(Name, Slot),
    /// RETRIEVE_SESSION, likewise.
    Retrieve(Name, Slot),
    /// GET_INFO
    Info,
    /// LIST_SESSIONS
    List {
        /// Where to begin.
        start: u64,
        /// Room for so many.
        room: u64,
    },
}

/// A command to a session.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Request {
    /// PRESERVE_FD
    Preserve {
        /// Where the file is.
        file: Slot,
        /// What to call it.
        token: u64,
    },
    /// UNPRESERVE_FD
    Unpreserve(u64),
    /// RETRIEVE_FD
    Retrieve {
        /// What it is called.
        token: u64,
        /// Where to put it.
        to: Slot,
    },
    /// PREPARE
    Prepare,
    /// CANCEL
    Cancel,
    /// FINISH
    Finish,
    /// SET_FLAGS
    SetFlags(u32),
    /// GET_NAME
    Name,
    /// GET_STATE
    State,
    /// LIST_FDS
    List {
        /// Where to begin.
        start: u64,
        /// Room for so many.
        room: u64,
    },
}

impl DeviceRequest {
    /// Whether its argument has a reserved field.
    pub fn has_reserved(&self) -> bool {
        matches!(self, Self::List { .. })
    }

    /// Whether it is refused without any effect if the answer cannot be written.
    ///
    /// A listing is left out: it is remembered before it is answered.
    pub fn answers(&self) -> bool {
        !matches!(self, Self::List { .. })
    }
}

impl Request {
    /// As [`DeviceRequest::has_reserved`].
    pub fn has_reserved(&self) -> bool {
        !matches!(
            self,
            Self::Preserve { .. } | Self::Retrieve { .. } | Self::SetFlags(_) | Self::State
        )
    }

    /// As [`DeviceRequest::answers`].
    pub fn answers(&self) -> bool {
        matches!(
            self,
            Self::Preserve { .. }
                | Self::Retrieve { .. }
                | Self::Prepare
                | Self::Finish
                | Self::Name
                | Self::State
        )
    }
}

/// Anything that can be done.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Command {
    /// A command to the device.
    Device(DeviceRequest, Shape),
    /// A command to what is in a slot.
    Session(Slot, Request, Shape),
    /// A number that is not one of the commands of what is in the slot; `None`: of the device.
    Strange(Option<Slot>, u32),
    /// Opens the device, which is open already.
    OpenDevice,
    /// Reads /proc/self/fdinfo of a session.
    FdInfo(Slot),
    /// Makes a file, with this number if it is one of the recorder's.
    NewFile(FileKind, u32, Slot),
    /// Writes eight bytes to the start of a page of a memfd.
    Write {
        /// Where the file is.
        file: Slot,
        /// Which page.
        page: u64,
        /// What.
        value: u64,
    },
    /// Reads a file.
    Read(Slot),
    /// Makes a memfd so many pages long.
    Resize(Slot, u64),
    /// close(2)
    Close(Slot),
    /// dup(2) from one slot to another.
    Dup(Slot, Slot),
    /// Puts a descriptor into the one socket that all processes have.
    Send(Slot),
    /// Takes the first one out of it.
    Receive(Slot),
    /// SIGKILL, and a new process in that one's place.
    Kill(u8),
    /// The next call of a callback fails with EIO.
    FailNext(Callback),
    /// reboot(KEXEC), which a file of the recorder refuses with EIO; nothing if there is none in any session.
    RefusedKexec,
    /// reboot(KEXEC), and new processes in the new kernel.
    Kexec,
}

impl Command {
    /// What it is called, without its arguments.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Device(DeviceRequest::Create(..), _) => "CREATE_SESSION",
            Self::Device(DeviceRequest::Retrieve(..), _) => "RETRIEVE_SESSION",
            Self::Device(DeviceRequest::Info, _) => "GET_INFO",
            Self::Device(DeviceRequest::List { .. }, _) => "LIST_SESSIONS",
            Self::Session(_, Request::Preserve { .. }, _) => "PRESERVE_FD",
            Self::Session(_, Request::Unpreserve(_), _) => "UNPRESERVE_FD",
            Self::Session(_, Request::Retrieve { .. }, _) => "RETRIEVE_FD",
            Self::Session(_, Request::Prepare, _) => "PREPARE",
            Self::Session(_, Request::Cancel, _) => "CANCEL",
            Self::Session(_, Request::Finish, _) => "FINISH",
            Self::Session(_, Request::SetFlags(_), _) => "SET_FLAGS",
            Self::Session(_, Request::Name, _) => "GET_NAME",
            Self::Session(_, Request::State, _) => "GET_STATE",
            Self::Session(_, Request::List { .. }, _) => "LIST_FDS",
            Self::Strange(..) => "unknown ioctl",
            Self::OpenDevice => "open the device",
            Self::FdInfo(_) => "read fdinfo",
            Self::NewFile(..) => "make a file",
            Self::Write { .. } => "write",
            Self::Read(_) => "read",
            Self::Resize(..) => "truncate",
            Self::Close(_) => "close",
            Self::Dup(..) => "dup",
            Self::Send(_) => "send a descriptor",
            Self::Receive(_) => "receive a descriptor",
            Self::Kill(_) => "kill",
            Self::FailNext(_) => "make a callback fail",
            Self::RefusedKexec => "refused kexec",
            Self::Kexec => "kexec",
        }
    }
}

//! The user ABI as the kernel sees it: command numbers, argument structs, and one function per way
//! of issuing a command.
//!
//! The rest of the crate is built on this module. Use it directly only for what the safe types
//! refuse to do, such as testing how a kernel answers a malformed command.
//!
//! Every argument struct begins with its own size. A kernel that knows a shorter struct accepts a
//! longer one whose surplus bytes are zero, and one that knows a longer struct takes the missing
//! bytes as zero, so both sides may grow independently.

use std::ffi::c_void;
use std::mem::size_of;
use std::os::fd::AsFd;

use rustix::ioctl::{opcode, Ioctl, IoctlOutput, Opcode};

use crate::Errno;

/// The ioctl type byte of all commands.
pub const IOCTL_TYPE: u8 = 0xBA;

/// Room for a session name, its terminating NUL included.
pub const NAME_LENGTH: usize = 64;

/// Room for the name of a file format, its terminating NUL included.
pub const COMPATIBLE_LENGTH: usize = 48;

/// Room for the name of the implementation, its terminating NUL included.
pub const IMPLEMENTATION_LENGTH: usize = 32;

/// [`SessionSetFlags::flags`]: files are retrieved in the order of preservation only.
pub const SESSION_F_ORDERED: u32 = 1;

/// An argument struct: integers and byte arrays, the struct's own size first.
///
/// # Safety
///
/// The type must be `repr(C)`, free of padding and valid for every bit pattern. If
/// [`Command::CONTAINED`] is true, the kernel must not write elsewhere than to the struct.
pub unsafe trait Command: Sized {
    /// The ioctl number.
    const OPCODE: Opcode;

    /// Whether the argument is all that the kernel looks at, and so holds no address.
    const CONTAINED: bool;

    /// Sets the size field to the size of the struct.
    fn set_size(&mut self);
}

macro_rules! contained {
    (command) => {
        true
    };
    (lists) => {
        false
    };
}

macro_rules! commands {
    ($($(#[$doc:meta])* $nr:literal $reach:ident $name:ident {
        $($(#[$field_doc:meta])* $field:ident: $type:ty,)*
    })*) => {$(
        $(#[$doc])*
        #[repr(C)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $name {
            /// In: size of this struct.
            pub size: u32,
            $($(#[$field_doc])* pub $field: $type,)*
        }

        impl Default for $name {
            /// All zero, except for the size.
            fn default() -> Self {
                // SAFETY: Zero is a valid value of integers and byte arrays.
                let mut command: Self = unsafe { std::mem::zeroed() };
                command.set_size();
                command
            }
        }

        // SAFETY: The struct is `repr(C)` with integers and byte arrays only; the unit tests check
        // its size, and with it the absence of padding, against the kernel's.
        unsafe impl Command for $name {
            const OPCODE: Opcode = opcode::none(IOCTL_TYPE, $nr);
            const CONTAINED: bool = contained!($reach);

            fn set_size(&mut self) {
                self.size = size_of::<Self>() as u32;
            }
        }
    )*};
}

commands! {
    /// Device: create an outgoing session.
    0x00 command CreateSession {
        /// Out: the session.
        fd: i32,
        /// In: its name, terminated by NUL.
        name: [u8; NAME_LENGTH],
    }
    /// Device: take over a session that the previous kernel handed on.
    0x01 command RetrieveSession {
        /// Out: the session.
        fd: i32,
        /// In: its name, terminated by NUL.
        name: [u8; NAME_LENGTH],
    }
    /// Outgoing session: preserve a file.
    0x40 command SessionPreserveFd {
        /// In: the file.
        fd: i32,
        /// In: the number to retrieve it by.
        token: u64,
    }
    /// Incoming session: retrieve a file.
    0x41 command SessionRetrieveFd {
        /// Out: the file.
        fd: i32,
        /// In: the number it was preserved by.
        token: u64,
    }
    /// Incoming session: release what the session holds.
    0x42 command SessionFinish {
        /// Zero.
        reserved: u32,
    }
    /// Session: its full name.
    0x43 command SessionGetName {
        /// Zero.
        reserved: u32,
        /// Out: the name, terminated by NUL.
        name: [u8; NAME_LENGTH],
    }
    /// Device, extension: what this orchestrator is.
    0xA0 command GetInfo {
        /// Out: none so far.
        flags: u32,
        /// Out: what it can do.
        features: u64,
        /// Out: how many live updates this machine has gone through.
        liveupdate_num: u64,
        /// Out: name of the implementation, terminated by NUL.
        implementation: [u8; IMPLEMENTATION_LENGTH],
        /// Out: the format it writes memfds in, terminated by NUL.
        memfd_format: [u8; COMPATIBLE_LENGTH],
    }
    /// Device, extension: list all sessions.
    0xA1 lists ListSessions {
        /// Zero.
        reserved: u32,
        /// In: index of the first session to list.
        start: u64,
        /// In: room in `entries`; out: entries written.
        count: u64,
        /// In: address of an array of [`SessionEntry`].
        entries: u64,
        /// Out: number of sessions there are.
        total: u64,
    }
    /// Outgoing session, extension: take a file out of the session.
    0xC0 command SessionUnpreserveFd {
        /// Zero.
        reserved: u32,
        /// In: the number it was preserved by.
        token: u64,
    }
    /// Outgoing session, extension: check that everything can be handed on.
    0xC1 command SessionPrepare {
        /// Zero.
        reserved: u32,
        /// Out, on failure: the file that refused.
        failed_token: u64,
    }
    /// Outgoing session, extension: undo [`SessionPrepare`].
    0xC2 command SessionCancel {
        /// Zero.
        reserved: u32,
    }
    /// Session, extension: its state.
    0xC3 command SessionGetState {
        /// Out: a [`State`](crate::State).
        state: u32,
        /// Out: number of files it holds.
        nr_files: u64,
        /// Out: how many of them were retrieved.
        nr_retrieved: u64,
    }
    /// Session, extension: list its files.
    0xC4 lists SessionListFds {
        /// Zero.
        reserved: u32,
        /// In: index of the first file to list.
        start: u64,
        /// In: room in `entries`; out: entries written.
        count: u64,
        /// In: address of an array of [`FdEntry`].
        entries: u64,
        /// Out: number of files there are.
        total: u64,
    }
    /// Session, extension: set its flags.
    0xC5 command SessionSetFlags {
        /// In: all flags that are to be set, such as [`SESSION_F_ORDERED`].
        flags: u32,
    }
}

/// What [`ListSessions`] writes for a session.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionEntry {
    /// Name, terminated by NUL.
    pub name: [u8; NAME_LENGTH],
    /// A [`State`](crate::State).
    pub state: u32,
    /// Flags such as [`SESSION_F_ORDERED`].
    pub flags: u32,
    /// Number of files it holds.
    pub nr_files: u64,
}

/// What [`SessionListFds`] writes for a file.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FdEntry {
    /// The number it was preserved by.
    pub token: u64,
    /// Name of the format it is handed on in, terminated by NUL.
    pub compatible: [u8; COMPATIBLE_LENGTH],
    /// A [`State`](crate::State).
    pub state: u32,
    /// Zero.
    pub reserved: u32,
}

impl SessionEntry {
    /// An entry that nothing has been written to.
    pub const EMPTY: Self = Self {
        name: [0; NAME_LENGTH],
        state: 0,
        flags: 0,
        nr_files: 0,
    };
}

impl FdEntry {
    /// An entry that nothing has been written to.
    pub const EMPTY: Self = Self {
        token: 0,
        compatible: [0; COMPATIBLE_LENGTH],
        state: 0,
        reserved: 0,
    };
}

/// Issues a command, with the size field set to what the struct has.
///
/// It does not compile for the listing commands, whose argument holds an address:
/// [`Device::sessions`](crate::Device::sessions) and
/// [`OutgoingSession::files`](crate::OutgoingSession::files) issue those.
///
/// # Errors
///
/// The kernel's errno.
pub fn call<C: Command>(fd: impl AsFd, argument: &mut C) -> Result<(), Errno> {
    const { assert!(C::CONTAINED, "the argument holds an address") };
    argument.set_size();
    let address = std::ptr::from_mut(argument).cast();
    // SAFETY: `Command` promises that the kernel stays within the struct, of this size.
    unsafe { call_at(fd, C::OPCODE, address) }
}

/// Issues any ioctl with any argument, be they right or wrong.
///
/// # Errors
///
/// The kernel's errno.
///
/// # Safety
///
/// Whatever the kernel writes for `opcode` at `argument` must be memory that the caller may let it
/// write to. (An address that is not mapped is fine: the kernel answers `EFAULT`.)
pub unsafe fn call_at(fd: impl AsFd, opcode: Opcode, argument: *mut c_void) -> Result<(), Errno> {
    // SAFETY: As promised by the caller.
    unsafe { rustix::ioctl::ioctl(fd, AnyIoctl { opcode, argument }) }
}

struct AnyIoctl {
    opcode: Opcode,
    argument: *mut c_void,
}

// SAFETY: Opcode and pointer are passed on as given; `call_at` makes the caller answer for them.
unsafe impl Ioctl for AnyIoctl {
    type Output = ();

    const IS_MUTATING: bool = true;

    fn opcode(&self) -> Opcode {
        self.opcode
    }

    fn as_ptr(&mut self) -> *mut c_void {
        self.argument
    }

    unsafe fn output_from_ptr(_: IoctlOutput, _: *mut c_void) -> rustix::io::Result<()> {
        Ok(())
    }
}

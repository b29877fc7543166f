//! Keeps file descriptors across a kexec of the Linux kernel, by `/dev/liveupdate`.
//!
//! A live update replaces the running kernel without the memory of a workload being lost. Whoever
//! runs the workload puts file descriptors (such as the memfd that is a virtual machine's RAM) into
//! named sessions; the kernel hands the sessions on when it is replaced by kexec; in the new kernel
//! the same sessions give the files back.
//!
//! # Before the kexec
//!
//! ```no_run
//! use liveupdate::Device;
//!
//! # fn guest_ram() -> std::fs::File { unimplemented!() }
//! let ram = guest_ram(); // a memfd
//! let session = Device::open()?.create_session("guest-7")?;
//! session.preserve(&ram, 1)?;
//! // Keep `session` open until the kexec: to drop it is to take everything back.
//! # Ok::<(), liveupdate::Error>(())
//! ```
//!
//! # After the kexec
//!
//! ```no_run
//! use liveupdate::{Device, Error};
//!
//! let device = Device::open()?;
//! match device.retrieve_session("guest-7") {
//!     Ok(session) => {
//!         let ram = std::fs::File::from(session.retrieve(1)?);
//!         session.finish()?;
//!         println!("the guest's RAM is back: {} bytes", ram.metadata()?.len());
//!     }
//!     Err(Error::NoSuchSession(_)) => println!("a fresh start"),
//!     Err(error) => return Err(error.into()),
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! `examples/counter.rs` does both in one program, and can be run as it is.
//!
//! # Which orchestrators it works with
//!
//! Any that speaks the user ABI of Linux 7.3. Commands that only some have are marked "an
//! extension" here. Where one is missing, the call fails with [`Error::Unsupported`], so that a
//! caller can go on without:
//!
//! ```no_run
//! # let session = liveupdate::Device::open()?.create_session("guest-7")?;
//! match session.prepare() {
//!     Err(error) if error.is_unsupported() => {} // the kexec checks the same, only later
//!     result => result?,
//! }
//! # Ok::<(), liveupdate::Error>(())
//! ```

mod any;
mod device;
mod error;
mod incoming;
mod list;
mod name;
mod outgoing;
pub mod raw;
mod session;

pub use any::Session;
pub use device::{Device, Info};
pub use error::{Error, Result};
pub use incoming::IncomingSession;
pub use list::{FileInfo, SessionInfo};
pub use name::{NameError, SessionName};
pub use outgoing::OutgoingSession;
pub use rustix::io::Errno;
pub use session::{SessionFlags, SessionState, State};

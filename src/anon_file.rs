// SPDX-License-Identifier: GPL-2.0

//! Files without a name: the shim between `file_operations` and a Rust object.
//!
//! C header: `include/linux/anon_inodes.h`.

use core::marker::PhantomData;
use kernel::{
    bindings,
    error::from_err_ptr,
    fs::{file::LocalFile, File},
    prelude::*,
    seq_file::SeqFile,
    sync::{aref::ARef, Arc},
    types::ForeignOwnable,
};

/// An object behind an anonymous file.
pub(crate) trait AnonFile: Send + Sync + Sized + 'static {
    /// Serves ioctl(2).
    fn ioctl(&self, cmd: u32, arg: usize) -> Result;

    /// Shows the object in /proc/PID/fdinfo.
    fn show(&self, out: &SeqFile);

    /// The last descriptor of the file was closed.
    fn release(&self);
}

/// Makes a file of `object`, called `anon_inode:NAME` under /proc/PID/fd. The module stays loaded
/// while the file is open.
///
/// Context: may sleep.
pub(crate) fn new<T: AnonFile>(name: &CStr, object: Arc<T>) -> Result<ARef<File>> {
    let private = object.into_foreign();
    // SAFETY: `name` ends with a zero. The table of operations is static, and each of its functions
    // takes the private data for what it is: an `Arc<T>` that belongs to the file.
    let file = from_err_ptr(unsafe {
        bindings::anon_inode_getfile(
            name.as_char_ptr(),
            Operations::<T>::table(),
            private,
            bindings::O_RDWR as c_int,
        )
    });
    let file = file.inspect_err(|_| {
        // SAFETY: No file was made that could have taken it over.
        drop(unsafe { Arc::<T>::from_foreign(private) });
    })?;
    // SAFETY: The file is new, with one reference, which becomes that of the `ARef`. No descriptor
    // leads to it, so nobody is inside fdget_pos().
    Ok(unsafe { ARef::from_raw(core::ptr::NonNull::new(file).ok_or(ENOMEM)?.cast()) })
}

/// The file behind the descriptor `fd` of the caller of an ioctl.
///
/// Fails with `EBADF` if there is none.
pub(crate) fn get(fd: i32) -> Result<ARef<File>> {
    let file = LocalFile::fget(u32::try_from(fd).map_err(|_| EBADF)?)?;
    // SAFETY: An ioctl does not hold the file position of any file.
    Ok(unsafe { LocalFile::assume_no_fdget_pos(file) })
}

/// The table of operations for files of `T`.
struct Operations<T>(PhantomData<T>);

impl<T: AnonFile> Operations<T> {
    const TABLE: bindings::file_operations = bindings::file_operations {
        owner: kernel::module::this_module::<crate::LuoModule>().as_ptr(),
        unlocked_ioctl: Some(Self::ioctl),
        compat_ioctl: bindings::compat_ptr_ioctl,
        release: Some(Self::release),
        show_fdinfo: Some(Self::show_fdinfo),
        ..pin_init::zeroed()
    };

    /// The table, at an address that lasts as long as the module.
    const fn table() -> &'static bindings::file_operations {
        &Self::TABLE
    }

    /// # Safety
    ///
    /// `file` is an open file made by [`new`] for `T`.
    unsafe extern "C" fn ioctl(file: *mut bindings::file, cmd: c_uint, arg: c_ulong) -> c_long {
        // SAFETY: By the function's contract; release() cannot run before this returns.
        let object = unsafe { Arc::<T>::borrow((*file).private_data) };
        match object.ioctl(cmd, arg) {
            Ok(()) => 0,
            Err(err) => err.to_errno() as c_long,
        }
    }

    /// # Safety
    ///
    /// `file` is an open file made by [`new`] for `T`, and `out` a file that is being written to.
    unsafe extern "C" fn show_fdinfo(out: *mut bindings::seq_file, file: *mut bindings::file) {
        // SAFETY: By the function's contract; release() cannot run before this returns.
        let object = unsafe { Arc::<T>::borrow((*file).private_data) };
        // SAFETY: By the function's contract.
        object.show(unsafe { SeqFile::from_raw(out) });
    }

    /// # Safety
    ///
    /// `file` is the last reference to a file made by [`new`] for `T`.
    unsafe extern "C" fn release(_inode: *mut bindings::inode, file: *mut bindings::file) -> c_int {
        // SAFETY: By the function's contract nobody uses the private data after this.
        let object = unsafe { Arc::<T>::from_foreign((*file).private_data) };
        object.release();
        0
    }
}

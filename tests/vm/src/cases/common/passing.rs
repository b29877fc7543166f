// SPDX-License-Identifier: GPL-2.0

//! Descriptors that go from one process to another, by a socket: SCM_RIGHTS.

use nix::errno::Errno;
use nix::sys::socket::{recvmsg, sendmsg, ControlMessage, ControlMessageOwned, MsgFlags};
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixDatagram;

/// Sends one. It is in the socket then, whatever becomes of the sender's.
pub fn send(socket: &UnixDatagram, fd: RawFd) -> Result<(), Errno> {
    let fd = [fd];
    let rights = [ControlMessage::ScmRights(&fd)];
    let byte = [IoSlice::new(&[0])];
    let flags = MsgFlags::MSG_DONTWAIT;
    sendmsg::<()>(socket.as_raw_fd(), &byte, &rights, flags, None).map(drop)
}

/// Takes the first one out of a socket. EBADMSG if a message has none.
pub fn receive(socket: &UnixDatagram, flags: MsgFlags) -> Result<OwnedFd, Errno> {
    let mut byte = [0];
    let mut bytes = [IoSliceMut::new(&mut byte)];
    let mut room = nix::cmsg_space!(RawFd);
    let flags = flags | MsgFlags::MSG_CMSG_CLOEXEC;
    let got = recvmsg::<()>(socket.as_raw_fd(), &mut bytes, Some(&mut room), flags)?;
    let mut fds = got.cmsgs()?.filter_map(|message| match message {
        ControlMessageOwned::ScmRights(fds) => fds.first().copied(),
        _ => None,
    });
    let fd = fds.next().ok_or(Errno::EBADMSG)?;
    // SAFETY: the kernel just made this descriptor for us; there is room for no other.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

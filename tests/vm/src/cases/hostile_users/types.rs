// SPDX-License-Identifier: GPL-2.0

//! Descriptors of every type there is: those that nobody handles are refused, and nothing is done to them.

use super::super::common::luo::{Device, Session};
use super::super::common::modules::Inserted;
use super::super::common::{io_errno, is_ours, open_fds, preserve_number, refused, still_works};
use crate::ctx::Ctx;
use anyhow::{ensure, Context, Result};
use nix::errno::Errno;
use nix::mount::{mount, umount2, MntFlags, MsFlags};
use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// A token that is free before and after.
const TOKEN: u64 = 77;

/// What is not to be opened for nothing: the machine would be reset, or sleep, or lose its trace.
const LEFT_OUT: &[&str] = &["/dev/watchdog", "/dev/snapshot", "/free_buffer"];
/// What has handlers of its own, beside that of memfds, and devices whose files these take.
const HANDLERS: [&str; 2] = ["luo_sample_rust", "luo_sample_c"];
const TAKEN: &str = "/dev/luo-sample-";
/// How many files of one name are enough: there are thousands, most of them one for each process, device or event.
const MOST: usize = 20;

/// What there is in a tree, links not followed.
#[derive(Default)]
struct Tree {
    /// So much of it that every name is there, but none too often.
    found: Vec<PathBuf>,
    /// How often there was each name.
    names: HashMap<OsString, usize>,
    folders: usize,
}

impl Tree {
    /// Adds everything below a folder.
    fn below(&mut self, folder: &Path) {
        self.folders += 1;
        // Some of /proc is gone before it is read.
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let count = self.names.entry(entry.file_name()).or_default();
            *count += 1;
            if *count <= MOST {
                self.found.push(path.clone());
            }
            // Whatever it is called: the files in it may be of a kind that is nowhere else.
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                self.below(&path);
            }
        }
    }
}

fn open(path: &Path) -> std::io::Result<File> {
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    let read = OpenOptions::new().read(true).custom_flags(flags).open(path);
    let write = || {
        OpenOptions::new()
            .write(true)
            .custom_flags(flags)
            .open(path)
    };
    read.or_else(|_| write())
}

fn is_device(path: &Path) -> bool {
    let kind = path.symlink_metadata().map(|it| it.file_type());
    kind.is_ok_and(|kind| kind.is_char_device() || kind.is_block_device())
}

/// All of a folder that can be opened is refused. Tells how much that was, and of how many folders, and which devices
/// cannot be opened.
fn all_of(session: &Session, folder: &str) -> Result<String> {
    let mut tree = Tree::default();
    tree.found.push(folder.into());
    tree.below(Path::new(folder));
    let mut refused_files = 0;
    let mut closed: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for path in tree.found {
        let name = path.display().to_string();
        if name.starts_with(TAKEN) || LEFT_OUT.iter().any(|left_out| name.contains(left_out)) {
            continue;
        }
        // What is in a file system with names of its own is tried below, and a link leads anywhere.
        let is_regular = |path: &Path| path.symlink_metadata().is_ok_and(|it| it.is_file());
        if folder == "/dev" && is_regular(&path) {
            continue;
        }
        let file = match open(&path) {
            Ok(file) => file,
            Err(err) => {
                if folder == "/dev" && is_device(&path) {
                    closed.entry(io_errno(err) as i32).or_default().push(name);
                }
                continue;
            }
        };
        let result = preserve_number(session, file.as_raw_fd(), TOKEN);
        refused(&name, result, Errno::ENOENT)?;
        refused_files += 1;
    }
    ensure!(refused_files > 10, "only {refused_files} of {folder}");
    let folders = tree.folders;
    let mut figure = format!("{refused_files} in {folders} folders of {folder}");
    for (errno, names) in closed {
        let (errno, count) = (Errno::from_raw(errno), names.len());
        let some = names[..count.min(2)].join(", ");
        figure += &format!(" ({count} not opened as {errno:?}: {some})");
    }
    Ok(figure)
}

/// What a system call made, if it did.
fn made(fd: libc::c_long) -> Option<OwnedFd> {
    // SAFETY: the kernel just made this descriptor for us.
    (fd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Descriptors without a path. The kernel of the tests has all of them: see tools/kernel/luo.config.
fn anonymous() -> Result<Vec<(&'static str, OwnedFd)>> {
    let mut all = Vec::new();
    let mut lacked = Vec::new();
    let mut add = |what, fd| match made(fd) {
        Some(fd) => all.push((what, fd)),
        None => lacked.push((what, Errno::last())),
    };
    const NONE: *const u8 = std::ptr::null();
    // SAFETY: these take numbers, or strings and structs of ours that outlive the call.
    unsafe {
        let mut signals: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut signals);
        add("eventfd", libc::eventfd(0, libc::EFD_CLOEXEC).into());
        add(
            "timerfd",
            libc::timerfd_create(libc::CLOCK_MONOTONIC, 0).into(),
        );
        add("signalfd", libc::signalfd(-1, &signals, 0).into());
        add("epoll", libc::epoll_create1(libc::EPOLL_CLOEXEC).into());
        add("inotify", libc::inotify_init1(0).into());
        add(
            "fanotify",
            libc::syscall(libc::SYS_fanotify_init, 0, libc::O_RDONLY),
        );
        add(
            "pidfd",
            libc::syscall(libc::SYS_pidfd_open, libc::getpid(), 0),
        );
        add(
            "userfaultfd",
            libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC),
        );
        add("memfd_secret", libc::syscall(libc::SYS_memfd_secret, 0));
        add(
            "fsopen",
            libc::syscall(libc::SYS_fsopen, c"tmpfs".as_ptr(), 0),
        );
        // A regular file of a file system of its own, which loses its name, too.
        add(
            "a message queue",
            libc::syscall(
                libc::SYS_mq_open,
                c"hostile".as_ptr(),
                libc::O_CREAT | libc::O_RDWR,
                0o600,
                NONE,
            ),
        );
        libc::syscall(libc::SYS_mq_unlink, c"hostile".as_ptr());
        // BPF_MAP_CREATE of an array of one: type, sizes of key and value, number.
        let map = [2u32, 4, 4, 1];
        add(
            "bpf",
            libc::syscall(libc::SYS_bpf, 0, map.as_ptr(), size_of_val(&map)),
        );
        // PERF_TYPE_SOFTWARE, 64 bytes of attributes.
        let mut event = [0u32; 16];
        (event[0], event[1]) = (1, 64);
        add(
            "perf",
            libc::syscall(libc::SYS_perf_event_open, event.as_ptr(), 0, -1, -1, 0),
        );
        for (what, family, kind) in [
            ("a unix socket", libc::AF_UNIX, libc::SOCK_STREAM),
            ("a unix datagram socket", libc::AF_UNIX, libc::SOCK_DGRAM),
            ("a TCP socket", libc::AF_INET, libc::SOCK_STREAM),
            ("a UDP socket", libc::AF_INET, libc::SOCK_DGRAM),
            ("a netlink socket", libc::AF_NETLINK, libc::SOCK_RAW),
            ("a packet socket", libc::AF_PACKET, libc::SOCK_RAW),
            ("a vsock socket", libc::AF_VSOCK, libc::SOCK_STREAM),
        ] {
            add(what, libc::socket(family, kind, 0).into());
        }
    }
    ensure!(lacked.is_empty(), "not made: {lacked:?}");
    let ring = io_uring::IoUring::new(2).context("io_uring")?;
    // SAFETY: a descriptor of ours.
    let copy = made(unsafe { libc::dup(ring.as_raw_fd()) }.into());
    all.extend(copy.map(|fd| ("io_uring", fd)));
    let (reader, writer) = nix::unistd::pipe()?;
    all.extend([("a pipe's end", reader), ("a pipe's other end", writer)]);
    Ok(all)
}

/// Files that have lost their names: a regular one is taken, but on tmpfs only.
fn nameless() -> Result<Vec<(&'static str, OwnedFd)>> {
    use nix::sys::stat::{makedev, mknod, Mode, SFlag};
    const NONE: Option<&str> = None;
    let mode = Mode::from_bits_truncate(0o600);
    let mut all = Vec::new();
    let path = Path::new("/tmp/hostile-node");
    for (what, kind, number) in [
        ("a FIFO", SFlag::S_IFIFO, 0),
        ("a character device", SFlag::S_IFCHR, makedev(1, 3)),
    ] {
        mknod(path, kind, mode, number).context(what)?;
        all.push((what, open(path).context(what)?.into()));
        std::fs::remove_file(path)?;
    }
    std::fs::create_dir(path)?;
    all.push(("a folder", open(path).context("a folder")?.into()));
    // Its pages are in memory as well, but shmem knows nothing of them.
    mount(NONE, path, Some("ramfs"), MsFlags::empty(), NONE).context("ramfs")?;
    let file = path.join("regular");
    let regular = File::create_new(&file).context("a regular file")?;
    std::fs::remove_file(&file)?;
    umount2(path, MntFlags::MNT_DETACH)?;
    ensure!(regular.metadata()?.nlink() == 0, "it has a name");
    all.push(("a regular file of ramfs", regular.into()));
    std::fs::remove_dir(path)?;
    Ok(all)
}

/// What was opened for its path alone is no file.
fn path_only(session: &Session) -> Result<()> {
    std::os::unix::fs::symlink("/", "/tmp/hostile-link")?;
    for path in ["/", "/dev/null", "/proc/self/exe", "/tmp/hostile-link"] {
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_PATH | libc::O_NOFOLLOW)
            .open(path)?;
        refused(
            path,
            preserve_number(session, file.as_raw_fd(), TOKEN),
            Errno::EBADF,
        )?;
    }
    Ok(std::fs::remove_file("/tmp/hostile-link")?)
}

/// Descriptors of every type there is.
pub fn every_type(ctx: &mut Ctx) -> Result<()> {
    let handlers = match is_ours(ctx) {
        true => HANDLERS.as_slice(),
        // It takes none from modules.
        false => &[],
    };
    let inserted = handlers.iter().map(|name| Inserted::new(ctx, name));
    let _inserted = inserted.collect::<Result<Vec<_>>>()?;
    let device = Device::open()?;
    let session = device.create_session("every type")?;
    // What /dev/ptmx leads to.
    let terminals = Path::new("/dev/pts");
    std::fs::create_dir_all(terminals)?;
    mount(
        None::<&str>,
        terminals,
        Some("devpts"),
        MsFlags::empty(),
        None::<&str>,
    )
    .context("devpts")?;
    let before = open_fds()?;
    let mut figure = Vec::new();
    for folder in ["/dev", "/proc", "/sys"] {
        figure.push(all_of(&session, folder)?);
    }
    let terminal = open(Path::new("/dev/ptmx")).context("a terminal")?;
    ensure!(terminal.metadata()?.file_type().is_char_device());
    drop(terminal);
    let others: Vec<_> = anonymous()?.into_iter().chain(nameless()?).collect();
    for (what, fd) in &others {
        refused(
            what,
            preserve_number(&session, fd.as_raw_fd(), TOKEN),
            Errno::ENOENT,
        )?;
    }
    figure.push(format!("{} others", others.len()));
    drop(others);
    path_only(&session)?;
    ctx.figure(&format!("refused: {}", figure.join(", ")));
    ensure!(open_fds()? == before, "a descriptor leaked");
    umount2(terminals, MntFlags::MNT_DETACH)?;
    if is_ours(ctx) {
        ensure!(session.tokens()?.is_empty(), "something was preserved");
    }
    drop(session);
    still_works(&device.create_session("every type")?)
}

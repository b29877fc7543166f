/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * User interface of the Live Update Orchestrator: /dev/liveupdate and the
 * session files that it makes.
 *
 * The first part is that of Linux 7.3, number for number. The second part,
 * from LIVEUPDATE_IOCTL_GET_INFO on, are the extensions of luo.ko.
 */
#ifndef _UAPI_LIVEUPDATE_H
#define _UAPI_LIVEUPDATE_H

#include <linux/ioctl.h>
#include <linux/types.h>

/**
 * DOC: Conventions
 *
 * Each command takes a pointer to a structure whose first field, @size, is the
 * size of the structure as the caller was compiled with it. A caller that is
 * newer than the kernel has a longer structure: it works as long as what the
 * kernel does not know is zero. Fields named @reserved must be zero.
 *
 * Errors of every command:
 *
 * * %EINVAL: the file has no command of this number, which is below 0xA0; or it is
 *   not one for this kind of session, the structure is too short, or a reserved
 *   field is set.
 * * %ENOTTY: the file has no command of this number, which is 0xA0 or more; or it has
 *   one, but was asked with another type, direction or size than those of
 *   _IO(%LIVEUPDATE_IOCTL_TYPE, number).
 * * %E2BIG: the structure has something that this kernel does not know.
 * * %EFAULT: the structure cannot be read, or the answer cannot be written. Then
 *   the command has had no effect.
 * * %ENOMEM: no memory, or no room for it in the memory cgroup.
 *
 * Whether there is a command of 0xA0 or more can be told without an effect. Where
 * %LIVEUPDATE_IOCTL_GET_INFO, on the device, gives %EINVAL, there are none. Else
 * call it with a @size of 0: it gives %EINVAL if it is there, %ENOTTY if not.
 *
 * Each command has its other errors with it. Documentation/abi.rst has all of them
 * in a table, with what to do.
 */

/* The ioctl type, see Documentation/userspace-api/ioctl/ioctl-number.rst */
#define LIVEUPDATE_IOCTL_TYPE		0xBA

/* The size of a session's name, with the terminating zero */
#define LIVEUPDATE_SESSION_NAME_LENGTH	64

/* Commands of the device */
enum {
	LIVEUPDATE_CMD_BASE = 0x00,
	LIVEUPDATE_CMD_CREATE_SESSION = LIVEUPDATE_CMD_BASE,
	LIVEUPDATE_CMD_RETRIEVE_SESSION = 0x01,
};

/* Commands of a session */
enum {
	LIVEUPDATE_CMD_SESSION_BASE = 0x40,
	LIVEUPDATE_CMD_SESSION_PRESERVE_FD = LIVEUPDATE_CMD_SESSION_BASE,
	LIVEUPDATE_CMD_SESSION_RETRIEVE_FD = 0x41,
	LIVEUPDATE_CMD_SESSION_FINISH = 0x42,
	LIVEUPDATE_CMD_SESSION_GET_NAME = 0x43,
};

/**
 * struct liveupdate_ioctl_create_session - make a session
 * @size:	in: size of this structure
 * @fd:		out: the session
 * @name:	in: its name, 1 to 63 bytes and a zero
 *
 * Everything that is put into the session goes to the next kernel, if the
 * descriptor is open when reboot(LINUX_REBOOT_CMD_KEXEC) is called. Closing it
 * undoes all that was done by it.
 *
 * Errors: %EINVAL for a bad name, %EEXIST for one that another session of this
 * kernel has, %EMFILE, %ENFILE, %ENOSPC for too many sessions.
 */
struct liveupdate_ioctl_create_session {
	__u32		size;
	__s32		fd;
	__u8		name[LIVEUPDATE_SESSION_NAME_LENGTH];
};

#define LIVEUPDATE_IOCTL_CREATE_SESSION					\
	_IO(LIVEUPDATE_IOCTL_TYPE, LIVEUPDATE_CMD_CREATE_SESSION)

/**
 * struct liveupdate_ioctl_retrieve_session - take a session of the previous kernel
 * @size:	in: size of this structure
 * @fd:		out: the session
 * @name:	in: the name that it was made with
 *
 * Closing the descriptor finishes the session, as %LIVEUPDATE_SESSION_FINISH
 * does; if it cannot be finished, it can be retrieved again.
 *
 * Errors: %ENOENT if there is none of that name, %EINVAL if somebody has it,
 * %EMFILE, %ENFILE.
 */
struct liveupdate_ioctl_retrieve_session {
	__u32		size;
	__s32		fd;
	__u8		name[LIVEUPDATE_SESSION_NAME_LENGTH];
};

#define LIVEUPDATE_IOCTL_RETRIEVE_SESSION				\
	_IO(LIVEUPDATE_IOCTL_TYPE, LIVEUPDATE_CMD_RETRIEVE_SESSION)

/**
 * struct liveupdate_session_preserve_fd - put a file into a session
 * @size:	in: size of this structure
 * @fd:		in: the file
 * @token:	in: what it is to be found by; any number, once a session
 *
 * The heavy work is done here, while the file is in use: this may take long, and
 * ends early only if the task is killed. Files are handed over in the order in
 * which they were put into the session; what one file depends on is to be put
 * there before it.
 *
 * Errors: %EEXIST if the token is used, %EBADF, %ENOENT for a file of a type
 * that no handler takes, %EBUSY for a file that is preserved already or a session
 * that is prepared, %ENOSPC for too many files, %ENODEV while the module of an FLB
 * that the file depends on is being loaded or removed, %EINTR, and those of the file's
 * handler. For a memfd: %EFBIG if it has 2^32 pages or more, %EOPNOTSUPP for an
 * unknown seal, %EIO if a page that is swapped out cannot be read, %EHWPOISON if
 * the hardware has lost one, %ENOMEM also if
 * a page is in the way of the next kernel, and somebody uses it and does not let go
 * of it for about half a second.
 */
struct liveupdate_session_preserve_fd {
	__u32		size;
	__s32		fd;
	__aligned_u64	token;
};

#define LIVEUPDATE_SESSION_PRESERVE_FD					\
	_IO(LIVEUPDATE_IOCTL_TYPE, LIVEUPDATE_CMD_SESSION_PRESERVE_FD)

/**
 * struct liveupdate_session_retrieve_fd - take a file out of a session
 * @size:	in: size of this structure
 * @fd:		out: the file
 * @token:	in: what it was called
 *
 * May be asked for again, and gives another descriptor of the same file then. An
 * error of the file's handler is final, and given again, too, unless the handler
 * has touched nothing: a memfd that could not be made can be asked for again.
 *
 * Errors: %ENOENT if there is no such token, or no handler for the file is
 * loaded (then it can be asked for again later), %EBUSY if the session is ordered
 * and it is another file's turn, %EMFILE, %ENFILE, and those of the handler. For a
 * memfd: %ENOMEM, %ENOSPC or %ENFILE if it could not be made (these can be asked for
 * again); and, final, %EINVAL if what was handed over is damaged, %EOPNOTSUPP if it
 * has a seal that this kernel does not know, %ENOMEM if there was no memory for half
 * a minute.
 */
struct liveupdate_session_retrieve_fd {
	__u32		size;
	__s32		fd;
	__aligned_u64	token;
};

#define LIVEUPDATE_SESSION_RETRIEVE_FD					\
	_IO(LIVEUPDATE_IOCTL_TYPE, LIVEUPDATE_CMD_SESSION_RETRIEVE_FD)

/**
 * struct liveupdate_session_finish - end the life of a session's files as preserved ones
 * @size:	in: size of this structure
 * @reserved:	in: zero
 *
 * Files that were retrieved are ordinary ones from then on; those that were not
 * are gone.
 *
 * Errors: %EBUSY if one of the files is not ready: its handler says so, or is not
 * loaded. Then nothing was finished.
 */
struct liveupdate_session_finish {
	__u32		size;
	__u32		reserved;
};

#define LIVEUPDATE_SESSION_FINISH					\
	_IO(LIVEUPDATE_IOCTL_TYPE, LIVEUPDATE_CMD_SESSION_FINISH)

/**
 * struct liveupdate_session_get_name - tell a session's name
 * @size:	in: size of this structure
 * @reserved:	in: zero
 * @name:	out: the whole name, with a zero
 *
 * /proc/PID/fd shows it, too, but may cut it short.
 */
struct liveupdate_session_get_name {
	__u32		size;
	__u32		reserved;
	__u8		name[LIVEUPDATE_SESSION_NAME_LENGTH];
};

#define LIVEUPDATE_SESSION_GET_NAME					\
	_IO(LIVEUPDATE_IOCTL_TYPE, LIVEUPDATE_CMD_SESSION_GET_NAME)

/*
 * Extensions of luo.ko. The kernel's own orchestrator answers %EINVAL to all of
 * these.
 */

/**
 * DOC: Lists
 *
 * LIST_SESSIONS and LIST_FDS write, from index @start on, as many entries as there
 * are and as @count says there is room for, and say in @count how many that were.
 * Whoever has not got all goes on with a @start that is larger by that @count, until
 * it has come to @total, or @count is 0.
 *
 * Such a sequence of calls lists everything that was there from the first to the
 * last of them, and nothing twice, whatever others add or take away meanwhile; what
 * was added since the first of them is not listed. For that, the kernel remembers
 * behind which entry a call ended: the index that comes next means the entries
 * behind that one, even if some before it are gone by now, and @total is that index
 * plus the number of entries behind it. It remembers the last 4 calls of a thread by
 * one open file, for up to 16 threads; a call with a @start of 0 begins anew. Any
 * other @start counts from the beginning of the list as it is at the moment of the
 * call.
 *
 * What one call lists was there at one moment; the sessions of this kernel and those
 * of the previous one at a moment each.
 */

/* Extensions of the device */
enum {
	LIVEUPDATE_CMD_GET_INFO = 0xA0,
	LIVEUPDATE_CMD_LIST_SESSIONS = 0xA1,
};

/* Extensions of a session */
enum {
	LIVEUPDATE_CMD_SESSION_UNPRESERVE_FD = 0xC0,
	LIVEUPDATE_CMD_SESSION_PREPARE = 0xC1,
	LIVEUPDATE_CMD_SESSION_CANCEL = 0xC2,
	LIVEUPDATE_CMD_SESSION_GET_STATE = 0xC3,
	LIVEUPDATE_CMD_SESSION_LIST_FDS = 0xC4,
	LIVEUPDATE_CMD_SESSION_SET_FLAGS = 0xC5,
};

/**
 * enum liveupdate_state - what a session, or a file of it, has come to
 * @LIVEUPDATE_STATE_NORMAL:	it will be handed over; files come and go
 * @LIVEUPDATE_STATE_PREPARED:	it will be handed over, and was checked for it
 * @LIVEUPDATE_STATE_FROZEN:	the kexec is under way
 * @LIVEUPDATE_STATE_UPDATED:	the previous kernel handed it over
 */
enum liveupdate_state {
	LIVEUPDATE_STATE_NORMAL = 1,
	LIVEUPDATE_STATE_PREPARED = 2,
	LIVEUPDATE_STATE_FROZEN = 3,
	LIVEUPDATE_STATE_UPDATED = 4,
};

/* The session is ordered, see LIVEUPDATE_SESSION_SET_FLAGS */
#define LIVEUPDATE_SESSION_F_ORDERED	1

/**
 * struct liveupdate_ioctl_get_info - tell what orchestrator this is
 * @size:		in: size of this structure
 * @flags:		out: none are defined
 * @features:		out: none are defined: all extensions of this header are there
 * @liveupdate_num:	out: how many live updates there have been since the cold boot
 * @implementation:	out: name and version of the orchestrator, with a zero
 * @memfd_format:	out: compatible string that memfds are handed over with
 */
struct liveupdate_ioctl_get_info {
	__u32		size;
	__u32		flags;
	__aligned_u64	features;
	__aligned_u64	liveupdate_num;
	__u8		implementation[32];
	__u8		memfd_format[48];
};

#define LIVEUPDATE_IOCTL_GET_INFO					\
	_IO(LIVEUPDATE_IOCTL_TYPE, LIVEUPDATE_CMD_GET_INFO)

/**
 * struct liveupdate_session_entry - a session in a list
 * @name:	its name, with a zero
 * @state:	one of &enum liveupdate_state
 * @flags:	LIVEUPDATE_SESSION_F_*
 * @nr_files:	number of files in it
 */
struct liveupdate_session_entry {
	__u8		name[LIVEUPDATE_SESSION_NAME_LENGTH];
	__u32		state;
	__u32		flags;
	__aligned_u64	nr_files;
};

/**
 * struct liveupdate_ioctl_list_sessions - list all sessions
 * @size:	in: size of this structure
 * @reserved:	in: zero
 * @start:	in: index to begin at
 * @count:	in: how many there is room for; out: how many were written
 * @entries:	in: address of an array of &struct liveupdate_session_entry
 * @total:	out: how many there are
 *
 * First those of this kernel, then those of the previous one, each in the order
 * in which they were made. See "Lists" for how to take them in parts. Nobody is
 * waited for: a session to which something is being done is listed as it was before.
 */
struct liveupdate_ioctl_list_sessions {
	__u32		size;
	__u32		reserved;
	__aligned_u64	start;
	__aligned_u64	count;
	__aligned_u64	entries;
	__aligned_u64	total;
};

#define LIVEUPDATE_IOCTL_LIST_SESSIONS					\
	_IO(LIVEUPDATE_IOCTL_TYPE, LIVEUPDATE_CMD_LIST_SESSIONS)

/**
 * struct liveupdate_session_unpreserve_fd - take a file back out of a session
 * @size:	in: size of this structure
 * @reserved:	in: zero
 * @token:	in: what it was called
 *
 * Errors: %ENOENT if there is no such token, %EBUSY if the session is prepared, or
 * if it is ordered and the file is not the last one.
 */
struct liveupdate_session_unpreserve_fd {
	__u32		size;
	__u32		reserved;
	__aligned_u64	token;
};

#define LIVEUPDATE_SESSION_UNPRESERVE_FD				\
	_IO(LIVEUPDATE_IOCTL_TYPE, LIVEUPDATE_CMD_SESSION_UNPRESERVE_FD)

/**
 * struct liveupdate_session_prepare - check that a session can be handed over
 * @size:		in: size of this structure
 * @reserved:		in: zero
 * @failed_token:	out: the file that said no, if one did
 *
 * A light check, before the workload is paused. No file can be put into the
 * session or taken out of it from then on, until %LIVEUPDATE_SESSION_CANCEL. A
 * kexec does not need it: the same is checked then.
 *
 * Errors: those of the file's handler. Then nothing has changed. For a memfd:
 * %ENOMEM, %EIO, %EHWPOISON and %EINTR, as %LIVEUPDATE_SESSION_PRESERVE_FD gives them, for pages
 * that came into holes since.
 */
struct liveupdate_session_prepare {
	__u32		size;
	__u32		reserved;
	__aligned_u64	failed_token;
};

#define LIVEUPDATE_SESSION_PREPARE					\
	_IO(LIVEUPDATE_IOCTL_TYPE, LIVEUPDATE_CMD_SESSION_PREPARE)

/**
 * struct liveupdate_session_cancel - undo LIVEUPDATE_SESSION_PREPARE
 * @size:	in: size of this structure
 * @reserved:	in: zero
 */
struct liveupdate_session_cancel {
	__u32		size;
	__u32		reserved;
};

#define LIVEUPDATE_SESSION_CANCEL					\
	_IO(LIVEUPDATE_IOCTL_TYPE, LIVEUPDATE_CMD_SESSION_CANCEL)

/**
 * struct liveupdate_session_get_state - tell what a session has come to
 * @size:		in: size of this structure
 * @state:		out: one of &enum liveupdate_state
 * @nr_files:		out: number of files in it
 * @nr_retrieved:	out: how many of them were retrieved
 */
struct liveupdate_session_get_state {
	__u32		size;
	__u32		state;
	__aligned_u64	nr_files;
	__aligned_u64	nr_retrieved;
};

#define LIVEUPDATE_SESSION_GET_STATE					\
	_IO(LIVEUPDATE_IOCTL_TYPE, LIVEUPDATE_CMD_SESSION_GET_STATE)

/**
 * struct liveupdate_fd_entry - a file in a list
 * @token:	what it is called
 * @compatible:	compatible string of its handler, with a zero
 * @state:	that of the session, but %LIVEUPDATE_STATE_NORMAL for a file that was
 *		retrieved
 * @reserved:	zero
 */
struct liveupdate_fd_entry {
	__aligned_u64	token;
	__u8		compatible[48];
	__u32		state;
	__u32		reserved;
};

/**
 * struct liveupdate_session_list_fds - list the files of a session
 * @size:	in: size of this structure
 * @reserved:	in: zero
 * @start:	in: index to begin at
 * @count:	in: how many there is room for; out: how many were written
 * @entries:	in: address of an array of &struct liveupdate_fd_entry
 * @total:	out: how many there are
 *
 * In the order in which they were preserved. See "Lists" for how to take them in
 * parts.
 */
struct liveupdate_session_list_fds {
	__u32		size;
	__u32		reserved;
	__aligned_u64	start;
	__aligned_u64	count;
	__aligned_u64	entries;
	__aligned_u64	total;
};

#define LIVEUPDATE_SESSION_LIST_FDS					\
	_IO(LIVEUPDATE_IOCTL_TYPE, LIVEUPDATE_CMD_SESSION_LIST_FDS)

/**
 * struct liveupdate_session_set_flags - change how a session behaves
 * @size:	in: size of this structure
 * @flags:	in: LIVEUPDATE_SESSION_F_*
 *
 * %LIVEUPDATE_SESSION_F_ORDERED: RETRIEVE_FD takes only the next file in the order
 * of preservation, and UNPRESERVE_FD only the last. Not handed over: the next
 * kernel's user sets it again.
 *
 * Errors: %EOPNOTSUPP for a flag that this kernel does not know.
 */
struct liveupdate_session_set_flags {
	__u32		size;
	__u32		flags;
};

#define LIVEUPDATE_SESSION_SET_FLAGS					\
	_IO(LIVEUPDATE_IOCTL_TYPE, LIVEUPDATE_CMD_SESSION_SET_FLAGS)

#endif /* _UAPI_LIVEUPDATE_H */

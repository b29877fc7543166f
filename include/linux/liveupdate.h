/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The in-kernel interface of live update, for handlers in C.
 *
 * It is that of Linux 7.3: the same structures and functions, so that a handler
 * written against the kernel's own header compiles against this one without a
 * change. It is for modules on top of luo.ko, and is needed where the kernel has
 * CONFIG_LIVEUPDATE=n: the functions of the kernel's header do nothing there.
 * With CONFIG_LIVEUPDATE=y either header will do.
 *
 * The folder `include` of this repository has to come before those of the kernel:
 * in the module's Kbuild, LINUXINCLUDE := -I<repository>/include $(LINUXINCLUDE)
 */
#if defined(_LINUX_LIVEUPDATE_H) && !defined(_LUO_LIVEUPDATE_H) && !defined(CONFIG_LIVEUPDATE)
#error "the kernel's own <linux/liveupdate.h> came first, which does nothing in this configuration"
#endif

#ifndef _LINUX_LIVEUPDATE_H
#define _LINUX_LIVEUPDATE_H
#define _LUO_LIVEUPDATE_H

#include <linux/bug.h>
#include <linux/compiler.h>
#include <linux/kho/abi/luo.h>
#include <linux/list.h>
#include <linux/mutex.h>
#include <linux/refcount.h>
#include <linux/rwsem.h>
#include <linux/types.h>
#include <uapi/linux/liveupdate.h>

struct file;
struct liveupdate_file_handler;
struct liveupdate_flb;
struct liveupdate_session;
struct module;

/**
 * struct liveupdate_file_op_args - what a callback of a handler is called with
 * @handler:		in: the handler
 * @retrieve_status:	in for can_finish and finish: 0 if nobody asked for the
 *			file, positive if it was retrieved, else the error with
 *			which retrieve failed
 * @file:		out for retrieve: the new file, whose reference is passed
 *			on. In for all others; for can_finish and finish it is NULL
 *			unless the file was retrieved
 * @serialized_data:	what the next kernel gets: out for preserve and freeze; in
 *			for all others, and for freeze what preserve gave, or the
 *			freeze of a kexec that failed
 * @private_data:	out for preserve: anything; in for unpreserve, freeze and
 *			unfreeze. It is not handed over
 */
struct liveupdate_file_op_args {
	struct liveupdate_file_handler *handler;
	int retrieve_status;
	struct file *file;
	u64 serialized_data;
	void *private_data;
};

/**
 * struct liveupdate_file_ops - how files of a type are preserved
 * @can_preserve:	tells whether the handler is for a file: cheap, without side
 *			effects
 * @preserve:		does the heavy work, while the file is in use; on failure
 *			leaves nothing behind
 * @unpreserve:		undoes @preserve
 * @freeze:		does the last of it in reboot(KEXEC), light; may be NULL
 * @unfreeze:		undoes @freeze, as the reboot failed; may be NULL
 * @retrieve:		makes the file in the next kernel; called once
 * @can_finish:		tells whether @finish may be called, which then happens to
 *			all files of the session or to none; may be NULL. Of a handler with
 *			an FLB: not before that is registered, which would not be told
 * @finish:		frees what was handed over and is not needed any more
 * @get_id:		tells what is the same for two files that must not both be
 *			preserved; may be NULL: then that is the &struct file
 * @owner:		the module, which stays loaded while a file is preserved, or
 *			was asked for and is not finished
 *
 * All of them may sleep, and none of them may call back into a session. All but
 * @finish are called with the session locked, so that its other commands wait, and
 * @can_preserve also with a lock held that all handlers share.
 */
struct liveupdate_file_ops {
	bool (*can_preserve)(struct liveupdate_file_handler *handler,
			     struct file *file);
	int (*preserve)(struct liveupdate_file_op_args *args);
	void (*unpreserve)(struct liveupdate_file_op_args *args);
	int (*freeze)(struct liveupdate_file_op_args *args);
	void (*unfreeze)(struct liveupdate_file_op_args *args);
	int (*retrieve)(struct liveupdate_file_op_args *args);
	bool (*can_finish)(struct liveupdate_file_op_args *args);
	void (*finish)(struct liveupdate_file_op_args *args);
	unsigned long (*get_id)(struct file *file);
	struct module *owner;
};

/**
 * struct liveupdate_file_handler - a handler for a type of files
 * @ops:	what it does
 * @compatible:	what the next kernel finds it by; stands for the layout of the
 *		data, too
 */
struct liveupdate_file_handler {
	const struct liveupdate_file_ops *ops;
	const char compatible[LIVEUPDATE_HNDL_COMPAT_LENGTH];

	/* private: for the kernel's own orchestrator; luo.ko leaves it alone */
	struct list_head __private list;
	struct list_head __private flb_list;
};

/**
 * struct liveupdate_flb_op_args - what a callback of an FLB is called with
 * @flb:	in: the FLB
 * @data:	out for preserve: what the next kernel gets; in for unpreserve and
 *		retrieve
 * @obj:	out for preserve and retrieve: the object; in for unpreserve and
 *		finish
 */
struct liveupdate_flb_op_args {
	struct liveupdate_flb *flb;
	u64 data;
	void *obj;
};

/**
 * struct liveupdate_flb_ops - how state that files share is preserved
 * @preserve:	makes the object, with the first file
 * @unpreserve:	undoes @preserve, with the last file, if there was no kexec
 * @retrieve:	makes the object in the next kernel, when it is first asked for
 * @finish:	ends it there, with the last file
 * @owner:	the module, which stays loaded while there is an object
 *
 * They may sleep, and are called with a lock of the FLB held: they must not ask
 * for the same FLB.
 */
struct liveupdate_flb_ops {
	int (*preserve)(struct liveupdate_flb_op_args *argp);
	void (*unpreserve)(struct liveupdate_flb_op_args *argp);
	int (*retrieve)(struct liveupdate_flb_op_args *argp);
	void (*finish)(struct liveupdate_flb_op_args *argp);
	struct module *owner;
};

/* One side of an FLB, for the kernel's own orchestrator. */
struct luo_flb_private_state {
	refcount_t count;
	u64 data;
	void *obj;
	struct mutex lock;
	bool finished;
	int retrieve_status;
};

/* Both sides of an FLB, for the kernel's own orchestrator. */
struct luo_flb_private {
	struct list_head list;
	struct luo_flb_private_state outgoing;
	struct luo_flb_private_state incoming;
	int users;
	bool initialized;
};

/**
 * struct liveupdate_flb - a File-Lifecycle-Bound object: state that files share
 * @ops:	what it does
 * @compatible:	what the next kernel finds it by; stands for the layout of the
 *		data, too
 */
struct liveupdate_flb {
	const struct liveupdate_flb_ops *ops;
	const char compatible[LIVEUPDATE_FLB_COMPAT_LENGTH];

	/* private: for the kernel's own orchestrator; luo.ko leaves it alone */
	struct luo_flb_private __private private;
};

/* Whether there is an orchestrator in operation. */
bool liveupdate_enabled(void);

/*
 * Registers a handler, until it is unregistered, which happens before its module
 * goes. No file leads to it before the init of its module is done. It and its
 * callbacks stay what they are until then, and until none of its files is preserved
 * or yet to be finished. -EINVAL if a callback is missing, -EEXIST if the compatible
 * string is taken, -EOPNOTSUPP without an orchestrator, -ENOMEM.
 */
int liveupdate_register_file_handler(struct liveupdate_file_handler *fh);
void liveupdate_unregister_file_handler(struct liveupdate_file_handler *fh);

/*
 * Makes the files of a registered handler depend on an FLB, which any number of
 * handlers may share. -EINVAL if the handler is not registered or a callback is
 * missing, -EEXIST if the files depend on the FLB already or another one has its
 * compatible string, -ENOSPC for too many FLBs, -EOPNOTSUPP, -ENOMEM.
 *
 * What was made before an FLB is unregistered is handed over, and ends, as ever:
 * so @flb stays until it is unregistered, has no object, and every file that was
 * retrieved while it was registered is finished, as it does in a module, which
 * stays loaded as long. No callback registers or unregisters anything.
 */
int liveupdate_register_flb(struct liveupdate_file_handler *fh,
			    struct liveupdate_flb *flb);
void liveupdate_unregister_flb(struct liveupdate_file_handler *fh,
			       struct liveupdate_flb *flb);

/*
 * The object that the previous kernel handed over: made if nobody has asked
 * before, and not finished before it is put back. The FLB need not be registered
 * yet. -ENODATA if nothing was handed over or it is finished, -ENOENT if this FLB
 * was not, -EOPNOTSUPP, the error of retrieve, -ENODEV if the module is going, or
 * as liveupdate_register_flb(). That it is finished and the error of retrieve are
 * final for as long as luo.ko is loaded, whatever is registered anew.
 *
 * The object refers to the module. So when a module has asked for it in its init,
 * nothing may fail any more there: the kernel frees a module whose init fails at
 * once, whoever refers to it.
 */
int liveupdate_flb_get_incoming(struct liveupdate_flb *flb, void **objp);
void liveupdate_flb_put_incoming(struct liveupdate_flb *flb);

/*
 * The object of this kernel, which is not unpreserved before it is put back.
 * -ENOENT while no file is preserved that depends on it, -EOPNOTSUPP.
 */
int liveupdate_flb_get_outgoing(struct liveupdate_flb *flb, void **objp);
void liveupdate_flb_put_outgoing(struct liveupdate_flb *flb);

#endif /* _LINUX_LIVEUPDATE_H */

// SPDX-License-Identifier: GPL-2.0
/*
 * A device whose open files survive a live update, in C.
 *
 * A file of /dev/luo-sample-c holds a note: writing replaces it, and reading
 * gives how often this file was written to, how often all files together were,
 * and the note. Put into a session of /dev/liveupdate, the file arrives in the
 * next kernel with all of that.
 *
 * The interface is that of the kernel's own orchestrator, too.
 */

#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/anon_inodes.h>
#include <linux/atomic.h>
#include <linux/cleanup.h>
#include <linux/err.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/io.h>
#include <linux/kexec_handover.h>
#include <linux/liveupdate.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#define NAME		"luo-sample-c"
#define NOTE_SIZE	48

/* How often all files together were written to: handed over as an FLB. */
static atomic64_t total = ATOMIC64_INIT(0);

/*
 * What is handed over for a file. Whoever changes it gives it another compatible
 * string.
 */
struct note_ser {
	u64 writes;
	char note[NOTE_SIZE];
};

/* What is behind a file. */
struct note {
	struct mutex lock;
	struct note_ser content;
};

/* ---- The device, which knows nothing of live update ---------------------- */

static struct note *note_new(void)
{
	struct note *note = kzalloc(sizeof(*note), GFP_KERNEL_ACCOUNT);

	if (note)
		mutex_init(&note->lock);
	return note;
}

static void note_free(struct note *note)
{
	mutex_destroy(&note->lock);
	kfree(note);
}

static int note_open(struct inode *inode, struct file *file)
{
	file->private_data = note_new();
	return file->private_data ? 0 : -ENOMEM;
}

static int note_release(struct inode *inode, struct file *file)
{
	note_free(file->private_data);
	return 0;
}

static struct note_ser note_content(struct file *file)
{
	struct note *note = file->private_data;

	guard(mutex)(&note->lock);
	return note->content;
}

static ssize_t note_read(struct file *file, char __user *to, size_t size, loff_t *pos)
{
	struct note_ser content = note_content(file);
	char line[NOTE_SIZE + 48];
	int len = scnprintf(line, sizeof(line), "%llu %lld %.*s\n", content.writes,
			    atomic64_read(&total), NOTE_SIZE, content.note);

	return simple_read_from_buffer(to, size, pos, line, len);
}

static ssize_t note_write(struct file *file, const char __user *from, size_t size, loff_t *pos)
{
	struct note *note = file->private_data;
	char text[NOTE_SIZE] = {};

	if (size > sizeof(text))
		return -EMSGSIZE;
	if (copy_from_user(text, from, size))
		return -EFAULT;
	guard(mutex)(&note->lock);
	memcpy(note->content.note, text, sizeof(text));
	note->content.writes++;
	atomic64_inc(&total);
	return size;
}

static const struct file_operations note_fops = {
	.owner = THIS_MODULE,
	.open = note_open,
	.release = note_release,
	.read = note_read,
	.write = note_write,
};

static struct miscdevice device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = NAME,
	.fops = &note_fops,
};

/* ---- Memory of the previous kernel --------------------------------------- */

/*
 * Takes over the page that the previous kernel preserved at @phys, for the caller
 * to free: NULL, and a warning of KHO's, if there is none or it was taken before.
 * The address is input, and may be anything: only KHO knows what is there.
 */
static struct folio *take_page(u64 phys)
{
	/* KHO looks at the page that an address lies in. */
	return PAGE_ALIGNED(phys) ? kho_restore_folio(phys) : NULL;
}

/* ---- What all files share ------------------------------------------------ */

/* With the first file. The address is all that C's interface hands over. */
static int flb_preserve(struct liveupdate_flb_op_args *args)
{
	u64 *ser = kho_alloc_preserve(sizeof(*ser));

	if (IS_ERR(ser))
		return PTR_ERR(ser);
	args->data = virt_to_phys(ser);
	args->obj = ser;
	return 0;
}

static void flb_unpreserve(struct liveupdate_flb_op_args *args)
{
	kho_unpreserve_free(args->obj);
}

/* When somebody asks for the first time. */
static int flb_retrieve(struct liveupdate_flb_op_args *args)
{
	struct folio *folio = take_page(args->data);

	if (!folio)
		return -EINVAL;
	args->obj = folio_address(folio);
	return 0;
}

/* With the last file. */
static void flb_finish(struct liveupdate_flb_op_args *args)
{
	folio_put(virt_to_folio(args->obj));
}

static const struct liveupdate_flb_ops flb_ops = {
	.preserve = flb_preserve,
	.unpreserve = flb_unpreserve,
	.retrieve = flb_retrieve,
	.finish = flb_finish,
	.owner = THIS_MODULE,
};

static struct liveupdate_flb flb = {
	.ops = &flb_ops,
	.compatible = "luo-sample-c-total-v1",
};

/* ---- The files' handler -------------------------------------------------- */

/* Whether init has made all that it is to make: see there. */
static bool is_complete;

static bool handler_can_preserve(struct liveupdate_file_handler *handler, struct file *file)
{
	return file->f_op == &note_fops && READ_ONCE(is_complete);
}

/* The heavy work, while the workload runs: here, only memory is allocated. */
static int handler_preserve(struct liveupdate_file_op_args *args)
{
	struct note_ser *ser = kho_alloc_preserve(sizeof(*ser));

	if (IS_ERR(ser))
		return PTR_ERR(ser);
	args->serialized_data = virt_to_phys(ser);
	args->private_data = ser;
	return 0;
}

static void handler_unpreserve(struct liveupdate_file_op_args *args)
{
	kho_unpreserve_free(args->private_data);
}

/*
 * In the kexec. The workload is paused: nothing here keeps it from writing, but what
 * it writes after this does not go along.
 */
static int handler_freeze(struct liveupdate_file_op_args *args)
{
	struct note_ser *ser = args->private_data;
	void *shared;
	int err = liveupdate_flb_get_outgoing(&flb, &shared);

	if (err)
		return err;
	*ser = note_content(args->file);
	/* An FLB has no freeze of its own. */
	*(u64 *)shared = atomic64_read(&total);
	liveupdate_flb_put_outgoing(&flb);
	return 0;
}

/* Takes the page last: where this fails the page is still there, for finish. */
static int handler_retrieve(struct liveupdate_file_op_args *args)
{
	struct note *note = note_new();
	struct folio *folio;
	struct file *file;

	if (!note)
		return -ENOMEM;
	file = anon_inode_getfile(NAME, &note_fops, note, O_RDWR);
	if (IS_ERR(file)) {
		note_free(note);
		return PTR_ERR(file);
	}
	folio = take_page(args->serialized_data);
	if (!folio) {
		/* Which frees the note. */
		fput(file);
		return -EINVAL;
	}
	note->content = *(struct note_ser *)folio_address(folio);
	folio_put(folio);
	args->file = file;
	return 0;
}

/* Whether the FLB is linked to the handler, or never will be. */
static bool is_linked;

/* Before, the FLB would not be told that a file that depends on it is finished. */
static bool handler_can_finish(struct liveupdate_file_op_args *args)
{
	return READ_ONCE(is_linked);
}

/* Frees what retrieve did not take, as nobody asked for the file or it failed. */
static void handler_finish(struct liveupdate_file_op_args *args)
{
	struct folio *folio;

	if (args->retrieve_status > 0)
		return;
	folio = take_page(args->serialized_data);
	if (folio)
		folio_put(folio);
}

static const struct liveupdate_file_ops handler_ops = {
	.can_preserve = handler_can_preserve,
	.preserve = handler_preserve,
	.unpreserve = handler_unpreserve,
	.freeze = handler_freeze,
	.retrieve = handler_retrieve,
	.can_finish = handler_can_finish,
	.finish = handler_finish,
	.owner = THIS_MODULE,
};

static struct liveupdate_file_handler handler = {
	.ops = &handler_ops,
	.compatible = "luo-sample-c-v1",
};

/* ---- Coming and going ---------------------------------------------------- */

/*
 * Goes on from what the previous kernel handed over, without waiting for user space.
 * Where that is not to be had the handler is wanted all the same: who else finishes
 * the files?
 */
static void resume_total(void)
{
	void *shared;
	int err = liveupdate_flb_get_incoming(&flb, &shared);

	if (!err) {
		atomic64_add(*(u64 *)shared, &total);
		liveupdate_flb_put_incoming(&flb);
	} else if (err != -ENODATA && err != -ENOENT) {
		/* Those are a cold boot, and one without any file. */
		pr_warn("what the previous kernel counted is lost: %d\n", err);
	}
}

static int __init sample_init(void)
{
	int err = liveupdate_register_file_handler(&handler);

	if (err)
		return err;
	/*
	 * From here on files may be retrieved, and they refer to the module. The kernel
	 * frees a module whose init fails at once, whoever refers to it: so init does not
	 * fail any more, whatever does. Then there are only the files of the previous
	 * kernel, which nobody else could finish.
	 */
	err = liveupdate_register_flb(&handler, &flb);
	WRITE_ONCE(is_linked, true);
	if (!err) {
		resume_total();
		err = misc_register(&device);
	}
	if (err)
		pr_err("no new files, and none can be preserved: %d\n", err);
	else
		WRITE_ONCE(is_complete, true);
	return 0;
}
module_init(sample_init);

static void __exit sample_exit(void)
{
	if (is_complete)
		misc_deregister(&device);
	liveupdate_unregister_flb(&handler, &flb);
	liveupdate_unregister_file_handler(&handler);
}
module_exit(sample_exit);

MODULE_DESCRIPTION("A device whose open files survive a live update");
MODULE_LICENSE("GPL");

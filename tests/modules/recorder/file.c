// SPDX-License-Identifier: GPL-2.0
/*
 * The files and their handlers.
 */

#include "recorder.h"

#include <linux/anon_inodes.h>
#include <linux/cleanup.h>
#include <linux/err.h>
#include <linux/io.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

static const char *const names[REC_KINDS] = { "luo-recorder-a", "luo-recorder-b" };

static struct miscdevice devices[REC_KINDS];

static int rec_open(struct inode *inode, struct file *file)
{
	struct rec_file *rec = kzalloc(sizeof(*rec), GFP_KERNEL);

	if (!rec)
		return -ENOMEM;
	rec->kind = iminor(inode) == devices[1].minor;
	file->private_data = rec;
	return 0;
}

static int rec_release(struct inode *inode, struct file *file)
{
	kfree(file->private_data);
	return 0;
}

static ssize_t rec_read(struct file *file, char __user *to, size_t size, loff_t *pos)
{
	struct rec_file *rec = file->private_data;
	char line[24];
	int len = scnprintf(line, sizeof(line), "%llu\n", rec->id);

	return simple_read_from_buffer(to, size, pos, line, len);
}

static ssize_t rec_write(struct file *file, const char __user *from, size_t size, loff_t *pos)
{
	struct rec_file *rec = file->private_data;
	int err = kstrtou64_from_user(from, size, 0, &rec->id);

	return err ?: size;
}

static const struct file_operations rec_fops = {
	.owner = THIS_MODULE,
	.open = rec_open,
	.release = rec_release,
	.read = rec_read,
	.write = rec_write,
};

static struct rec_file *rec_of(struct file *file)
{
	return file->private_data;
}

static char kind_char(u64 kind)
{
	return 'a' + kind;
}

static unsigned int asked;
module_param(asked, uint, 0444);
MODULE_PARM_DESC(asked, "how often its handlers were asked whether they take a file");

static bool rec_can_preserve(struct liveupdate_file_handler *handler, struct file *file)
{
	/* One is asked at a time. */
	asked++;
	if (file->f_op != &rec_fops || rec_handler(rec_of(file)->kind) != handler)
		return false;
	rec_ask("can_preserve");
	return true;
}

static unsigned long rec_get_id(struct file *file)
{
	u64 id = rec_of(file)->id;

	return id >= REC_SAME ? id : (unsigned long)file;
}

static int rec_preserve(struct liveupdate_file_op_args *args)
{
	struct rec_file *rec = rec_of(args->file);
	struct rec_page *page;
	int err;

	rec_log("preserve %c%llu\n", kind_char(rec->kind), rec->id);
	err = rec_fails("preserve");
	if (err)
		return err;
	page = rec_page_new(rec->id, rec->kind);
	if (IS_ERR(page))
		return PTR_ERR(page);
	args->serialized_data = virt_to_phys(page);
	args->private_data = page;
	return 0;
}

/* The page of a preserved file; everything must be as preserve() left it. */
static struct rec_page *rec_page_of(struct liveupdate_file_op_args *args)
{
	struct rec_file *rec = rec_of(args->file);
	struct rec_page *page = args->private_data;

	WARN_ON(virt_to_phys(page) != args->serialized_data);
	WARN_ON(page->id != rec->id || rec_handler(page->kind) != args->handler);
	return page;
}

static void rec_unpreserve(struct liveupdate_file_op_args *args)
{
	struct rec_page *page = rec_page_of(args);

	rec_log("unpreserve %c%llu\n", kind_char(page->kind), page->id);
	WARN_ON(page->frozen);
	rec_page_unpreserve(page);
}

static int rec_freeze(struct liveupdate_file_op_args *args)
{
	struct rec_page *page = rec_page_of(args);
	int err;

	rec_log("freeze %c%llu\n", kind_char(page->kind), page->id);
	WARN_ON(page->frozen);
	err = rec_fails("freeze");
	if (!err)
		page->frozen = 1;
	return err;
}

static void rec_unfreeze(struct liveupdate_file_op_args *args)
{
	struct rec_page *page = rec_page_of(args);

	rec_log("unfreeze %c%llu\n", kind_char(page->kind), page->id);
	WARN_ON(!page->frozen);
	/* It cannot fail, but take long. */
	rec_fails("unfreeze");
	page->frozen = 0;
}

static int rec_retrieve(struct liveupdate_file_op_args *args)
{
	struct rec_page *page = rec_page_find(args->serialized_data);
	struct rec_file *rec __free(kfree) = NULL;
	struct file *file;
	int err;

	if (!page || page->frozen != 1 || page->kind >= REC_KINDS)
		return -EBADMSG;
	WARN_ON(rec_handler(page->kind) != args->handler);
	rec_log("retrieve %c%llu\n", kind_char(page->kind), page->id);
	err = rec_fails("retrieve");
	if (err)
		return err;
	rec = kzalloc(sizeof(*rec), GFP_KERNEL);
	if (!rec)
		return -ENOMEM;
	rec->kind = page->kind;
	rec->id = page->id;
	file = anon_inode_getfile(names[rec->kind], &rec_fops, rec, O_RDWR);
	if (IS_ERR(file))
		return PTR_ERR(file);
	retain_and_null_ptr(rec);
	args->file = file;
	return 0;
}

static bool rec_can_finish(struct liveupdate_file_op_args *args)
{
	struct rec_page *page = rec_page_find(args->serialized_data);

	rec_log("can_finish %c%llu %d\n", kind_char(page->kind), page->id, args->retrieve_status);
	WARN_ON((args->retrieve_status > 0) != !!args->file);
	return !rec_fails("can_finish");
}

static void rec_finish(struct liveupdate_file_op_args *args)
{
	struct rec_page *page = rec_page_find(args->serialized_data);

	rec_log("finish %c%llu %d\n", kind_char(page->kind), page->id, args->retrieve_status);
	WARN_ON((args->retrieve_status > 0) != !!args->file);
	/* It cannot fail, but take long. */
	rec_fails("finish");
	rec_page_free(page);
}

static const struct liveupdate_file_ops ops = {
	.can_preserve = rec_can_preserve,
	.preserve = rec_preserve,
	.unpreserve = rec_unpreserve,
	.freeze = rec_freeze,
	.unfreeze = rec_unfreeze,
	.retrieve = rec_retrieve,
	.can_finish = rec_can_finish,
	.finish = rec_finish,
	.get_id = rec_get_id,
	.owner = THIS_MODULE,
};

static struct liveupdate_file_handler handlers[REC_KINDS] = {
	{ .ops = &ops, .compatible = "luo-recorder-a-v1" },
	{ .ops = &ops, .compatible = "luo-recorder-b-v1" },
};

struct liveupdate_file_handler *rec_handler(unsigned int kind)
{
	return &handlers[kind];
}

static void exit_first(unsigned int count)
{
	while (count--) {
		misc_deregister(&devices[count]);
		liveupdate_unregister_file_handler(&handlers[count]);
	}
}

int rec_handlers_again(void)
{
	for (unsigned int i = 0; i < REC_KINDS; i++) {
		int err;

		liveupdate_unregister_file_handler(&handlers[i]);
		err = liveupdate_register_file_handler(&handlers[i]);
		if (err)
			return err;
	}
	return 0;
}

int rec_files_init(void)
{
	int err;

	for (unsigned int i = 0; i < REC_KINDS; i++) {
		err = liveupdate_register_file_handler(&handlers[i]);
		if (err) {
			exit_first(i);
			return err;
		}
		devices[i].minor = MISC_DYNAMIC_MINOR;
		devices[i].name = names[i];
		devices[i].fops = &rec_fops;
		err = misc_register(&devices[i]);
		if (err) {
			liveupdate_unregister_file_handler(&handlers[i]);
			exit_first(i);
			return err;
		}
	}
	return 0;
}

void rec_files_exit(void)
{
	exit_first(REC_KINDS);
}

// SPDX-License-Identifier: GPL-2.0
/*
 * The FLBs: "x" of both kinds of files, "y" of kind a only.
 */

#include "recorder.h"

#include <linux/debugfs.h>
#include <linux/err.h>
#include <linux/io.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/string.h>
#include <linux/uaccess.h>

#define NR_FLBS	2

static struct liveupdate_flb flbs[NR_FLBS];
static u64 next_value = 100;

static unsigned int number_of(struct liveupdate_flb *flb)
{
	return flb - flbs;
}

/* Which callback asks for which FLB. */
static DEFINE_MUTEX(ask_lock);
static struct {
	char callback[32];
	unsigned int number;
} ask;

void rec_ask(const char *callback)
{
	struct liveupdate_flb *flb = NULL;
	void *obj;
	int err;

	mutex_lock(&ask_lock);
	if (!strcmp(ask.callback, callback))
		flb = &flbs[ask.number];
	mutex_unlock(&ask_lock);
	if (!flb)
		return;
	err = liveupdate_flb_get_incoming(flb, &obj);
	rec_log("%s asks %c %d\n", callback, 'x' + number_of(flb), err);
	if (!err)
		liveupdate_flb_put_incoming(flb);
}

/* Notes "x.CALLBACK", and says with what it fails. */
static int note(struct liveupdate_flb *flb, const char *callback)
{
	char name[32];

	snprintf(name, sizeof(name), "%c.%s", 'x' + number_of(flb), callback);
	rec_log("%s\n", name);
	rec_ask(name);
	return rec_fails(name);
}

static int flb_preserve(struct liveupdate_flb_op_args *args)
{
	struct rec_page *page;
	int err = note(args->flb, "preserve");

	if (err)
		return err;
	page = rec_page_new(next_value++, number_of(args->flb));
	if (IS_ERR(page))
		return PTR_ERR(page);
	args->data = virt_to_phys(page);
	/* "y" has its data only. */
	if (!number_of(args->flb))
		args->obj = page;
	return 0;
}

static void flb_unpreserve(struct liveupdate_flb_op_args *args)
{
	struct rec_page *page = phys_to_virt(args->data);

	note(args->flb, "unpreserve");
	WARN_ON(args->obj != (number_of(args->flb) ? NULL : page));
	rec_page_unpreserve(page);
}

static int flb_retrieve(struct liveupdate_flb_op_args *args)
{
	struct rec_page *page = rec_page_find(args->data);
	int err = note(args->flb, "retrieve");

	if (err)
		return err;
	if (!page || page->kind != number_of(args->flb))
		return -EBADMSG;
	args->obj = page;
	return 0;
}

static void flb_finish(struct liveupdate_flb_op_args *args)
{
	note(args->flb, "finish");
	rec_page_free(args->obj);
}

static const struct liveupdate_flb_ops ops = {
	.preserve = flb_preserve,
	.unpreserve = flb_unpreserve,
	.retrieve = flb_retrieve,
	.finish = flb_finish,
	.owner = THIS_MODULE,
};

static struct liveupdate_flb flbs[NR_FLBS] = {
	{ .ops = &ops, .compatible = "luo-recorder-x-v1" },
	{ .ops = &ops, .compatible = "luo-recorder-y-v1" },
};

/* A side of an FLB: how it is taken, and given back. */
struct side {
	struct liveupdate_flb *flb;
	int (*get)(struct liveupdate_flb *flb, void **objp);
	void (*put)(struct liveupdate_flb *flb);
};

static const struct side incoming_x = {
	&flbs[0], liveupdate_flb_get_incoming, liveupdate_flb_put_incoming
};
static const struct side incoming_y = {
	&flbs[1], liveupdate_flb_get_incoming, liveupdate_flb_put_incoming
};
static const struct side outgoing_x = {
	&flbs[0], liveupdate_flb_get_outgoing, liveupdate_flb_put_outgoing
};

static const struct side outgoing_y = {
	&flbs[1], liveupdate_flb_get_outgoing, liveupdate_flb_put_outgoing
};

static ssize_t value_read(struct file *file, char __user *to, size_t size, loff_t *pos)
{
	const struct side *side = file->private_data;
	struct rec_page *page;
	char line[24];
	void *obj;
	int len;
	int err = side->get(side->flb, &obj);

	if (err)
		return err;
	page = obj;
	len = scnprintf(line, sizeof(line), "%llu\n", page->id);
	side->put(side->flb);
	return simple_read_from_buffer(to, size, pos, line, len);
}

static ssize_t value_write(struct file *file, const char __user *from, size_t size, loff_t *pos)
{
	const struct side *side = file->private_data;
	unsigned int take;
	void *obj;
	int err = kstrtouint_from_user(from, size, 0, &take);

	if (err)
		return err;
	if (!take) {
		side->put(side->flb);
		return size;
	}
	err = side->get(side->flb, &obj);
	return err ?: size;
}

static const struct file_operations value_fops = {
	.owner = THIS_MODULE,
	.open = simple_open,
	.read = value_read,
	.write = value_write,
};

static int link_all(void)
{
	for (unsigned int kind = 0; kind < REC_KINDS; kind++) {
		/* Kind a has both, kind b the first. */
		for (unsigned int i = 0; i < NR_FLBS - kind; i++) {
			int err = liveupdate_register_flb(rec_handler(kind), &flbs[i]);

			if (err) {
				rec_flbs_exit();
				return err;
			}
		}
	}
	return 0;
}

static ssize_t linked_write(struct file *file, const char __user *from, size_t size, loff_t *pos)
{
	unsigned int link;
	int err = kstrtouint_from_user(from, size, 0, &link);

	if (err)
		return err;
	if (link != 1)
		rec_flbs_exit();
	if (link > 1)
		err = rec_handlers_again();
	if (link && !err)
		err = link_all();
	return err ?: size;
}

static const struct file_operations linked_fops = {
	.owner = THIS_MODULE,
	.write = linked_write,
};

static ssize_t ask_write(struct file *file, const char __user *from, size_t size, loff_t *pos)
{
	char line[64] = {}, callback[32], flb;

	if (size >= sizeof(line))
		return -EINVAL;
	if (copy_from_user(line, from, size))
		return -EFAULT;
	if (sscanf(line, "%31s %c", callback, &flb) != 2 || flb < 'x' || flb >= 'x' + NR_FLBS)
		return -EINVAL;
	mutex_lock(&ask_lock);
	strscpy(ask.callback, callback);
	ask.number = flb - 'x';
	mutex_unlock(&ask_lock);
	return size;
}

static const struct file_operations ask_fops = {
	.owner = THIS_MODULE,
	.write = ask_write,
};

int rec_flbs_init(struct dentry *dir)
{
	int err = link_all();

	if (err)
		return err;
	debugfs_create_file("linked", 0200, dir, NULL, &linked_fops);
	debugfs_create_file("ask", 0200, dir, NULL, &ask_fops);
	debugfs_create_file("incoming", 0600, dir, (void *)&incoming_x, &value_fops);
	debugfs_create_file("incoming-y", 0600, dir, (void *)&incoming_y, &value_fops);
	debugfs_create_file("outgoing", 0600, dir, (void *)&outgoing_x, &value_fops);
	debugfs_create_file("outgoing-y", 0600, dir, (void *)&outgoing_y, &value_fops);
	return 0;
}

void rec_flbs_exit(void)
{
	for (unsigned int kind = 0; kind < REC_KINDS; kind++)
		for (unsigned int i = NR_FLBS - kind; i--;)
			liveupdate_unregister_flb(rec_handler(kind), &flbs[i]);
}

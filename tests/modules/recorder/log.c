// SPDX-License-Identifier: GPL-2.0
/*
 * The record, and what is to fail.
 */

#include "recorder.h"

#include <linux/debugfs.h>
#include <linux/export.h>
#include <linux/minmax.h>
#include <linux/mutex.h>
#include <linux/stdarg.h>
#include <linux/uaccess.h>
#include <linux/vmalloc.h>
#include <linux/wait.h>

#define SIZE	(256 * 1024)

static DEFINE_MUTEX(lock);
static char *text;
static size_t len;
static struct {
	char callback[32];
	unsigned int calls;
	int err;
} fail;

/* Those who wait at the gate, and how often it was opened. */
static DECLARE_WAIT_QUEUE_HEAD(gate);
static unsigned int opened;

void rec_log(const char *fmt, ...)
{
	va_list args;

	mutex_lock(&lock);
	va_start(args, fmt);
	len += vscnprintf(text + len, SIZE - len, fmt, args);
	va_end(args);
	mutex_unlock(&lock);
}

int rec_fails(const char *callback)
{
	unsigned int seen = READ_ONCE(opened);
	bool wait = false;
	int err = 0;

	mutex_lock(&lock);
	if (fail.calls && !strcmp(fail.callback, callback) && !--fail.calls) {
		err = -fail.err;
		wait = !fail.err;
	}
	mutex_unlock(&lock);
	if (wait && wait_event_killable(gate, READ_ONCE(opened) != seen))
		err = -EINTR;
	return err;
}

static ssize_t log_read(struct file *file, char __user *to, size_t size, loff_t *pos)
{
	ssize_t ret;

	mutex_lock(&lock);
	ret = simple_read_from_buffer(to, size, pos, text, len);
	mutex_unlock(&lock);
	return ret;
}

static ssize_t log_write(struct file *file, const char __user *from, size_t size, loff_t *pos)
{
	mutex_lock(&lock);
	len = 0;
	mutex_unlock(&lock);
	return size;
}

static const struct file_operations log_fops = {
	.owner = THIS_MODULE,
	.read = log_read,
	.write = log_write,
};

static ssize_t fail_write(struct file *file, const char __user *from, size_t size, loff_t *pos)
{
	char line[64] = {}, callback[32] = {};
	unsigned int calls = 0;
	int err = 0;

	if (size >= sizeof(line))
		return -EINVAL;
	if (copy_from_user(line, from, size))
		return -EFAULT;
	if (*strim(line) && sscanf(line, "%31s %u %d", callback, &calls, &err) != 3)
		return -EINVAL;
	mutex_lock(&lock);
	memcpy(fail.callback, callback, sizeof(callback));
	fail.calls = calls;
	fail.err = err;
	WRITE_ONCE(opened, opened + 1);
	mutex_unlock(&lock);
	wake_up_all(&gate);
	return size;
}

static const struct file_operations fail_fops = {
	.owner = THIS_MODULE,
	.write = fail_write,
};

int rec_log_init(struct dentry *dir)
{
	text = vzalloc(SIZE);
	if (!text)
		return -ENOMEM;
	debugfs_create_file("log", 0600, dir, NULL, &log_fops);
	debugfs_create_file("fail", 0200, dir, NULL, &fail_fops);
	return 0;
}

void rec_log_exit(void)
{
	vfree(text);
}

/* For the recorder in Rust, which is on top of the module only. */
#ifdef MODULE
EXPORT_SYMBOL_GPL(rec_log);
EXPORT_SYMBOL_GPL(rec_fails);
#endif

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
#include <linux/string.h>
#include <linux/uaccess.h>
#include <linux/vmalloc.h>
#include <linux/wait.h>

#define SIZE	(256 * 1024)

static DEFINE_MUTEX(lock);
static char *text;
static size_t len;

/* Which call is to fail, or to wait. */
struct rule {
	char callback[32];
	unsigned int calls;
	int err;
};

#define NR_RULES	2

static struct rule rules[NR_RULES];

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
	for (struct rule *rule = rules; rule < rules + NR_RULES; rule++) {
		if (rule->calls && !strcmp(rule->callback, callback) && !--rule->calls) {
			err = -rule->err;
			wait = !rule->err;
		}
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
	char text[128] = {}, *rest = text, *line;
	struct rule new[NR_RULES] = {};
	unsigned int count = 0;

	if (size >= sizeof(text))
		return -EINVAL;
	if (copy_from_user(text, from, size))
		return -EFAULT;
	while ((line = strsep(&rest, "\n"))) {
		struct rule *rule = &new[count];

		if (!*strim(line))
			continue;
		if (count++ == NR_RULES)
			return -EINVAL;
		if (sscanf(line, "%31s %u %d", rule->callback, &rule->calls, &rule->err) != 3)
			return -EINVAL;
	}
	mutex_lock(&lock);
	memcpy(rules, new, sizeof(rules));
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

// SPDX-License-Identifier: GPL-2.0
/*
 * The files of /sys/kernel/debug/luo. The kernel crate has such files, too, but they have no owner:
 * luo.ko could be removed while one is open, and to close it then would call what is gone. See
 * Documentation/known-kernel-issues.rst.
 */
#include <linux/debugfs.h>
#include <linux/module.h>
#include <linux/seq_file.h>

/* In debugfs.rs. */
int luo_show_handlers(struct seq_file *out);
int luo_show_flbs(struct seq_file *out);

void luo_debugfs_create(void);
void luo_debugfs_remove(void);

static struct dentry *dir;

static int luo_handlers_show(struct seq_file *out, void *unused)
{
	return luo_show_handlers(out);
}
DEFINE_SHOW_ATTRIBUTE(luo_handlers);

static int luo_flbs_show(struct seq_file *out, void *unused)
{
	return luo_show_flbs(out);
}
DEFINE_SHOW_ATTRIBUTE(luo_flbs);

/* That there is no debugfs is an error in "dir", which all of these take. */
void luo_debugfs_create(void)
{
	dir = debugfs_create_dir("luo", NULL);
	debugfs_create_file("handlers", 0400, dir, NULL, &luo_handlers_fops);
	debugfs_create_file("flbs", 0400, dir, NULL, &luo_flbs_fops);
}

void luo_debugfs_remove(void)
{
	debugfs_remove(dir);
}

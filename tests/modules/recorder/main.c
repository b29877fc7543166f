// SPDX-License-Identifier: GPL-2.0
/*
 * luo_recorder: comes and goes, and looks after preserved pages.
 */

#include "recorder.h"

#include <linux/completion.h>
#include <linux/debugfs.h>
#include <linux/err.h>
#include <linux/io.h>
#include <linux/kexec_handover.h>
#include <linux/module.h>

atomic_t rec_live = ATOMIC_INIT(0);

static struct dentry *dir;

static int fails;
module_param(fails, int, 0444);
MODULE_PARM_DESC(fails, "1: its init fails after all else, for which this is 2, once somebody writes to \"go\"");

static DECLARE_COMPLETION(may_fail);

static int go(const char *value, const struct kernel_param *param)
{
	complete_all(&may_fail);
	return 0;
}

static const struct kernel_param_ops go_ops = {
	.set = go,
};
module_param_cb(go, &go_ops, NULL, 0200);

struct rec_page *rec_page_new(u64 id, u64 kind)
{
	struct rec_page *page = kho_alloc_preserve(PAGE_SIZE);

	if (IS_ERR(page))
		return page;
	atomic_inc(&rec_live);
	page->magic = REC_MAGIC;
	page->id = id;
	page->kind = kind;
	return page;
}

void rec_page_unpreserve(struct rec_page *page)
{
	page->magic = 0;
	kho_unpreserve_free(page);
	atomic_dec(&rec_live);
}

/* The page that the previous kernel calls @data, or NULL. */
struct rec_page *rec_page_find(u64 data)
{
	struct rec_page *page;

	/* It may be damaged, and what is there free. */
	if (!data || data & ~PAGE_MASK || !rec_unrestored(PHYS_PFN(data)))
		return NULL;
	page = phys_to_virt(data);
	return page->magic == REC_MAGIC ? page : NULL;
}

void rec_page_free(struct rec_page *page)
{
	page->magic = 0;
	kho_restore_free(page);
}

static int __init recorder_init(void)
{
	int err;

	dir = debugfs_create_dir("luo-recorder", NULL);
	debugfs_create_atomic_t("live", 0400, dir, &rec_live);
	rec_kho_init(dir);
	err = rec_log_init(dir);
	if (err)
		goto no_log;
	err = rec_files_init();
	if (err)
		goto no_files;
	err = rec_flbs_init(dir);
	if (err)
		goto no_flbs;
	if (!fails)
		return 0;

	WRITE_ONCE(fails, 2);
	wait_for_completion_killable(&may_fail);
	err = -EIO;
	rec_flbs_exit();
no_flbs:
	rec_files_exit();
no_files:
	rec_log_exit();
no_log:
	debugfs_remove(dir);
	return err;
}
module_init(recorder_init);

static void __exit recorder_exit(void)
{
	debugfs_remove(dir);
	rec_flbs_exit();
	rec_files_exit();
	rec_log_exit();
}
module_exit(recorder_exit);

MODULE_DESCRIPTION("Records the callbacks of a live update");
MODULE_LICENSE("GPL");

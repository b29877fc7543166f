// SPDX-License-Identifier: GPL-2.0
/*
 * luo_culprit: does on request what a debug kernel is to report, each in a way that
 * harms nothing where it is reported. Its parameter "commit" takes the name of a crime.
 */

#include <linux/err.h>
#include <linux/gfp.h>
#include <linux/kthread.h>
#include <linux/list.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/preempt.h>
#include <linux/slab.h>
#include <linux/sched.h>
#include <linux/string.h>

/* Two orders of the same locks: PROVE_LOCKING. */
static DEFINE_MUTEX(first);
static DEFINE_MUTEX(second);

static int culprit_lock_order(void)
{
	mutex_lock(&first);
	mutex_lock(&second);
	mutex_unlock(&second);
	mutex_unlock(&first);

	mutex_lock(&second);
	mutex_lock(&first);
	mutex_unlock(&first);
	mutex_unlock(&second);
	return 0;
}

/* DEBUG_ATOMIC_SLEEP. */
static int culprit_sleep(void)
{
	preempt_disable();
	might_sleep();
	preempt_enable();
	return 0;
}

/* Twice in one list: DEBUG_LIST, which does not let it in. */
static int culprit_list(void)
{
	static LIST_HEAD(list);
	static LIST_HEAD(entry);

	list_add(&entry, &list);
	list_add(&entry, &list);
	list_del_init(&entry);
	return 0;
}

/* Not for KASAN to see, which would find it before. */
static noinline __no_sanitize_address void flip(u8 *byte)
{
	WRITE_ONCE(*byte, READ_ONCE(*byte) ^ 1);
}

/* A page that is written after its end: PAGE_POISONING, once it is given out again. */
static int culprit_page(void)
{
	enum { MOST = 4096 };
	struct page *page = alloc_page(GFP_KERNEL), *again;
	LIST_HEAD(others);
	int i, ret = -EAGAIN;

	if (!page)
		return -ENOMEM;
	__free_page(page);
	flip(page_address(page));
	for (i = 0; i < MOST && ret; i++) {
		again = alloc_page(GFP_KERNEL);
		if (!again)
			break;
		list_add(&again->lru, &others);
		if (again == page)
			ret = 0;
	}
	while (!list_empty(&others)) {
		again = list_first_entry(&others, struct page, lru);
		list_del(&again->lru);
		__free_page(again);
	}
	return ret;
}

/* DEBUG_KMEMLEAK. */
static noinline int culprit_leak(void)
{
	void *leak = kmalloc(200, GFP_KERNEL);

	OPTIMIZER_HIDE_VAR(leak);
	return leak ? 0 : -ENOMEM;
}

/* KASAN. */
static noinline int culprit_use_after_free(void)
{
	u8 *object = kmalloc(200, GFP_KERNEL);

	if (!object)
		return -ENOMEM;
	kfree(object);
	OPTIMIZER_HIDE_VAR(object);
	WRITE_ONCE(object[8], 1);
	return 0;
}

/* Two threads that count without a lock, until the module goes: KCSAN. */
static struct task_struct *racers[2];
static unsigned long counter;

static int culprit_racer(void *data)
{
	while (!kthread_should_stop()) {
		counter++;
		cond_resched();
	}
	return 0;
}

static int culprit_race(void)
{
	for (int i = 0; i < ARRAY_SIZE(racers); i++) {
		struct task_struct *racer;

		if (racers[i])
			continue;
		racer = kthread_run(culprit_racer, NULL, "culprit/%d", i);
		if (IS_ERR(racer))
			return PTR_ERR(racer);
		racers[i] = racer;
	}
	return 0;
}

static const struct crime {
	const char *name;
	int (*commit)(void);
} crimes[] = {
	{ "lock-order", culprit_lock_order },
	{ "sleep", culprit_sleep },
	{ "list", culprit_list },
	{ "page", culprit_page },
	{ "leak", culprit_leak },
	{ "use-after-free", culprit_use_after_free },
	{ "race", culprit_race },
};

static int commit(const char *value, const struct kernel_param *param)
{
	for (const struct crime *crime = crimes; crime < crimes + ARRAY_SIZE(crimes); crime++) {
		if (sysfs_streq(value, crime->name))
			return crime->commit();
	}
	return -EINVAL;
}

static const struct kernel_param_ops commit_ops = {
	.set = commit,
};
module_param_cb(commit, &commit_ops, NULL, 0200);
MODULE_PARM_DESC(commit, "The name of what to do wrong");

static int __init culprit_init(void)
{
	return 0;
}
module_init(culprit_init);

static void __exit culprit_exit(void)
{
	for (int i = 0; i < ARRAY_SIZE(racers); i++) {
		if (racers[i])
			kthread_stop(racers[i]);
	}
}
module_exit(culprit_exit);

MODULE_DESCRIPTION("Does what a debug kernel is to report");
MODULE_LICENSE("GPL");

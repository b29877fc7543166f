// SPDX-License-Identifier: GPL-2.0
/*
 * What KHO has preserved: for the next kernel, and of the previous one.
 */

#include "recorder.h"

#include <linux/debugfs.h>
#include <linux/io.h>
#include <linux/kho_radix_tree.h>
#include <linux/memory_hotplug.h>
#include <linux/mm.h>
#include <linux/mmzone.h>
#include <linux/nodemask.h>
#include <linux/pfn.h>
#include <linux/uaccess.h>

/* The root of KHO's tree, as the test finds it in KHO's own debugfs. */
static u64 root;

/* Preservations, and their pages. */
struct sum {
	unsigned long count;
	unsigned long pages;
};

/* A key has the order in its highest bit, and below it the address without the bits of the order. */
static int add_key(unsigned long key, void *data)
{
	struct sum *sum = data;

	sum->count++;
	sum->pages += 1UL << (64 - PAGE_SHIFT - __fls(key));
	return 0;
}

static const struct kho_radix_walk_cb callbacks = { .leaf = add_key };

static int sum_preserved(struct sum *sum)
{
	struct kho_radix_tree tree = { .root = phys_to_virt(root) };

	if (!root)
		return -ENODATA;
	mutex_init(&tree.lock);
	return kho_radix_walk_tree(&tree, &callbacks, sum);
}

/* KHO marks the first page of what is not restored yet. */
#define MAGIC	0x4b484f50UL

bool rec_unrestored(unsigned long pfn)
{
	struct page *page = pfn_to_online_page(pfn);

	return page && page_private(page) >> 32 == MAGIC;
}

static int sum_unrestored(struct sum *sum)
{
	int nid;

	for_each_online_node(nid) {
		unsigned long end = node_end_pfn(nid);

		for (unsigned long pfn = node_start_pfn(nid); pfn < end; pfn++) {
			if (rec_unrestored(pfn)) {
				sum->count++;
				sum->pages += 1UL << (page_private(pfn_to_page(pfn)) & 0xff);
			}
		}
	}
	return 0;
}

static ssize_t sum_read(struct file *file, char __user *to, size_t size, loff_t *pos)
{
	int (*sum_up)(struct sum *sum) = file->private_data;
	struct sum sum = {};
	char line[48];
	int len, err = sum_up(&sum);

	if (err)
		return err;
	len = scnprintf(line, sizeof(line), "%lu %lu\n", sum.count, sum.pages);
	return simple_read_from_buffer(to, size, pos, line, len);
}

static ssize_t root_write(struct file *file, const char __user *from, size_t size, loff_t *pos)
{
	int err = kstrtou64_from_user(from, size, 0, &root);

	return err ?: size;
}

static const struct file_operations sum_fops = {
	.owner = THIS_MODULE,
	.open = simple_open,
	.read = sum_read,
	.write = root_write,
};

void rec_kho_init(struct dentry *dir)
{
	debugfs_create_file("preserved", 0600, dir, sum_preserved, &sum_fops);
	debugfs_create_file("unrestored", 0400, dir, sum_unrestored, &sum_fops);
}

// SPDX-License-Identifier: GPL-2.0
/*
 * luo_forger: see forger.h.
 */

#include "forger.h"

#include <linux/cleanup.h>
#include <linux/dcache.h>
#include <linux/debugfs.h>
#include <linux/err.h>
#include <linux/fs.h>
#include <linux/io.h>
#include <linux/kexec_handover.h>
#include <linux/memory_hotplug.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/pfn.h>
#include <linux/uaccess.h>

/* Marks the first page of what was allocated here, and those behind it. */
static char forged;

static struct page *page_at(u64 phys)
{
	return pfn_to_online_page(PHYS_PFN(phys));
}

static bool is_ours(u64 phys, unsigned int order)
{
	for (unsigned long pfn = PHYS_PFN(phys); pfn < PHYS_PFN(phys) + (1UL << order); pfn++) {
		struct page *page = pfn_to_online_page(pfn);

		if (!page || page_private(page) != (unsigned long)&forged)
			return false;
	}
	return true;
}

static int allocate(u64 *arg)
{
	unsigned long nr_pages = *arg;
	struct page *page;

	if (!nr_pages || nr_pages > MAX_ORDER_NR_PAGES)
		return -EINVAL;
	page = alloc_pages(GFP_KERNEL | __GFP_ZERO, get_order(nr_pages << PAGE_SHIFT));
	if (!page)
		return -ENOMEM;
	for (unsigned long i = 0; i < nr_pages; i++)
		set_page_private(page + i, (unsigned long)&forged);
	*arg = page_to_phys(page);
	return 0;
}

static int preserve(const struct forger_range *range)
{
	if (range->order > MAX_PAGE_ORDER || !is_ours(range->phys, range->order))
		return -EINVAL;
	return kho_preserve_pages(page_at(range->phys), 1UL << range->order);
}

/* At any address: nobody looks there before the next kernel does. */
static int publish(const struct forger_root *root)
{
	return kho_add_subtree("LUO", phys_to_virt(root->phys), root->size);
}

DEFINE_FREE(dput, struct dentry *, dput(_T))

/* Nothing that KHO exports leads to it, but a file in debugfs that shows it. */
static int find_tree(u64 *arg)
{
	struct dentry *kho __free(dput) = debugfs_lookup("kho", NULL);
	struct dentry *out __free(dput) = kho ? debugfs_lookup("out", kho) : NULL;
	struct dentry *fdt __free(dput) = out ? debugfs_lookup("fdt", out) : NULL;
	const struct debugfs_blob_wrapper *blob;

	if (!fdt)
		return -ENOENT;
	blob = d_inode(fdt)->i_private;
	*arg = virt_to_phys(blob->data);
	set_page_private(virt_to_page(blob->data), (unsigned long)&forged);
	return 0;
}

static int find_reserved(u64 *arg)
{
	phys_addr_t start, size;

	if (!reserve_mem_find_by_name("forger", &start, &size))
		return -ENOENT;
	*arg = start;
	return 0;
}

static long forger_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	void __user *user = (void __user *)arg;
	union {
		u64 number;
		struct forger_range range;
		struct forger_root root;
	} it = {};
	long err;

	if (_IOC_TYPE(cmd) != 'F' || _IOC_SIZE(cmd) > sizeof(it))
		return -ENOTTY;
	if (copy_from_user(&it, user, _IOC_SIZE(cmd)))
		return -EFAULT;
	switch (cmd) {
	case FORGER_ALLOCATE:
		err = allocate(&it.number);
		break;
	case FORGER_PRESERVE:
		err = preserve(&it.range);
		break;
	case FORGER_PUBLISH:
		err = publish(&it.root);
		break;
	case FORGER_TREE:
		err = find_tree(&it.number);
		break;
	case FORGER_RESERVED:
		err = find_reserved(&it.number);
		break;
	default:
		return -ENOTTY;
	}
	if (!err && _IOC_DIR(cmd) & _IOC_READ && copy_to_user(user, &it, _IOC_SIZE(cmd)))
		return -EFAULT;
	return err;
}

/* How much of @size at @pos is in one page. */
static size_t in_page(loff_t pos, size_t size)
{
	return min_t(size_t, size, PAGE_SIZE - offset_in_page(pos));
}

static ssize_t forger_read(struct file *file, char __user *to, size_t size, loff_t *pos)
{
	size = in_page(*pos, size);
	if (!page_at(*pos) || copy_to_user(to, phys_to_virt(*pos), size))
		return -EFAULT;
	*pos += size;
	return size;
}

static ssize_t forger_write(struct file *file, const char __user *from, size_t size, loff_t *pos)
{
	size = in_page(*pos, size);
	if (!is_ours(*pos, 0) || copy_from_user(phys_to_virt(*pos), from, size))
		return -EFAULT;
	*pos += size;
	return size;
}

static const struct file_operations forger_fops = {
	.owner = THIS_MODULE,
	.unlocked_ioctl = forger_ioctl,
	.read = forger_read,
	.write = forger_write,
	.llseek = noop_llseek,
};

static struct miscdevice forger = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "luo-forger",
	.fops = &forger_fops,
	.mode = 0600,
};

static int __init forger_init(void)
{
	return misc_register(&forger);
}
module_init(forger_init);

MODULE_DESCRIPTION("Forges what the next kernel is handed over");
MODULE_LICENSE("GPL");

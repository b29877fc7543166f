/* SPDX-License-Identifier: GPL-2.0 */
/*
 * luo_forger: lets a test write what the next kernel takes for an account of this
 * one's, down to the last bit. For root, and in a kernel that is soon gone: pages
 * are never given back, and the module stays.
 *
 * /dev/luo-forger is physical memory: what was allocated by it may be written,
 * and any page read. Its ioctls:
 */

#ifndef FORGER_H
#define FORGER_H

#include <linux/ioctl.h>
#include <linux/types.h>

struct forger_range {
	__u64 phys;
	__u64 order;
};

struct forger_root {
	__u64 phys;
	__u64 size;
};

/* Allocates so many zeroed pages that adjoin; becomes their address. */
#define FORGER_ALLOCATE	_IOWR('F', 0, __u64)
/* Preserves what is there, as one key. */
#define FORGER_PRESERVE	_IOW('F', 1, struct forger_range)
/* Makes what is at this address, of any value, and said to be of that size, the root of the account. */
#define FORGER_PUBLISH	_IOW('F', 2, struct forger_root)
/*
 * Becomes the address of KHO's own device tree, in which the next kernel finds the
 * root, and which may be written from then on. The first kernel tells where it is.
 */
#define FORGER_TREE	_IOR('F', 3, __u64)
/* Becomes the address of the memory of reserve_mem= that is called "forger". */
#define FORGER_RESERVED	_IOR('F', 4, __u64)

#endif

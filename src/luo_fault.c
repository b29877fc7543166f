// SPDX-License-Identifier: GPL-2.0
/*
 * The kernel describes what may be made to fail in a struct with a C macro for
 * initializer; this is how Rust reaches it. See fault.rs.
 */
#include <linux/debugfs.h>
#include <linux/fault-inject.h>

void luo_fault_init(void);
void luo_fault_exit(void);
bool luo_should_fail(void);

static DECLARE_FAULT_ATTR(luo_fault);
static struct dentry *luo_fault_dir;

void luo_fault_init(void)
{
	/* Nobody can say so before the module is inserted. */
	luo_fault.verbose = 0;
	luo_fault_dir = fault_create_debugfs_attr("fail_luo", NULL, &luo_fault);
}

void luo_fault_exit(void)
{
	debugfs_remove_recursive(luo_fault_dir);
}

bool luo_should_fail(void)
{
	return should_fail(&luo_fault, 1);
}

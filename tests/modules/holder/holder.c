// SPDX-License-Identifier: GPL-2.0
/*
 * luo_holder: holds a reboot() where its kexec cannot fail any more, and devices
 * are not shut down yet, until somebody writes to the parameter "go".
 */

#include <linux/completion.h>
#include <linux/module.h>
#include <linux/notifier.h>
#include <linux/reboot.h>

static bool held;
module_param(held, bool, 0444);
MODULE_PARM_DESC(held, "A reboot() waits for \"go\"");

static DECLARE_COMPLETION(may_go);

static int go(const char *value, const struct kernel_param *param)
{
	complete_all(&may_go);
	return 0;
}

static const struct kernel_param_ops go_ops = {
	.set = go,
};
module_param_cb(go, &go_ops, NULL, 0200);

static int hold(struct notifier_block *block, unsigned long event, void *data)
{
	WRITE_ONCE(held, true);
	wait_for_completion(&may_go);
	return NOTIFY_DONE;
}

static struct notifier_block block = {
	.notifier_call = hold,
};

static int __init holder_init(void)
{
	return register_reboot_notifier(&block);
}
module_init(holder_init);

static void __exit holder_exit(void)
{
	unregister_reboot_notifier(&block);
}
module_exit(holder_exit);

MODULE_DESCRIPTION("Holds a reboot under way");
MODULE_LICENSE("GPL");

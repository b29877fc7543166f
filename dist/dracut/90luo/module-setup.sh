#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# luo.ko in dracut's initramfs, where it is there for this kernel.

check() {
	modinfo -k "$kernel" luo >/dev/null 2>&1
}

depends() {
	return 0
}

installkernel() {
	hostonly='' instmods luo
}

# Of the two kinds of initramfs that dracut makes, systemd is process 1 in the one,
# with no hook before it, and starts on the root file system only in the other.
install() {
	if dracut_module_included systemd; then
		inst_multiple modprobe
		rm -f "$initdir/init"
		inst_script "$moddir/init.sh" /init
	else
		inst_hook cmdline 01 "$moddir/insert-luo.sh"
	fi
}

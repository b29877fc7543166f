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

install() {
	inst_hook cmdline 01 "$moddir/insert-luo.sh"
}

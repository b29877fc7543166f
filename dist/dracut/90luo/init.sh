#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Process 1 of an initramfs with systemd, for a moment. systemd asks for its session
# once, here; the one on the root file system only goes on with what this one has.

# Refused where the kernel's own orchestrator is on: the log says so.
modprobe luo || :
exec /usr/lib/systemd/systemd "$@"

#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
#
# Tests of what is installed. LINUX_BUILD names the kernel's build, FILTER chooses by
# a part of the name. Ends with "N passed, N failed, N skipped".

set -uo pipefail
cd "$(dirname "$0")/.." || exit
unset MAKEFLAGS MFLAGS MAKELEVEL DESTDIR PREFIX

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
passed=0 failed=0 skipped=0

# check NAME: run the function of that name; 77 says that it cannot be had here.
check() {
	local log=$scratch/$1.log
	[[ $1 == *"${FILTER:-}"* ]] || return 0
	"$1" >"$log" 2>&1
	case $? in
	0)	echo "ok $1"; passed=$((passed + 1)) ;;
	77)	echo "skipped $1: $(tail -n 1 "$log")"; skipped=$((skipped + 1)) ;;
	*)	echo "not ok $1"; sed 's/^/    /' "$log"; failed=$((failed + 1)) ;;
	esac
}

files() { (cd "$1" && find . -type f -printf '%P\n' | LC_ALL=C sort); }

# Everything is below DESTDIR, where distributions have it; luoctl runs.
install_everything() {
	make install DESTDIR="$scratch/root" || return
	files "$scratch/root" >"$scratch/files"
	local file
	for file in lib/modules/.*/luo.ko usr/sbin/luoctl usr/share/man/man8/luoctl.8 \
		usr/share/bash-completion/completions/luoctl usr/lib/udev/rules.d/60-liveupdate.rules \
		usr/lib/modules-load.d/luo.conf usr/share/initramfs-tools/modules.d/luo \
		usr/lib/dracut/modules.d/90luo/module-setup.sh; do
		grep -qx "$file" "$scratch/files" || { echo "no $file in:"; cat "$scratch/files"; return 1; }
	done
	"$scratch/root/usr/sbin/luoctl" --version
}

# PREFIX moves what is ours, not what others look for at a fixed place.
install_below_a_prefix() {
	make install-tools DESTDIR="$scratch/local" PREFIX=/usr/local || return
	[ -x "$scratch/local/usr/local/sbin/luoctl" ] &&
		[ -e "$scratch/local/usr/lib/udev/rules.d/60-liveupdate.rules" ]
}

# What DKMS does with the source: build it where it is installed.
source_builds_a_module() {
	make install-source DESTDIR="$scratch/source" || return
	local folder=("$scratch"/source/usr/src/luo-*)
	grep -q '^PACKAGE_VERSION="[0-9.]*"$' "${folder[0]}/dkms.conf" &&
		make -C "$LINUX_BUILD" M="${folder[0]}" modules && [ -s "${folder[0]}/luo.ko" ]
}

# Packages go in and out again, and leave nothing.
packages_come_and_go() {
	command -v dpkg-deb || { echo "there is no dpkg"; return 77; }
	dist/deb "$scratch/deb" || return
	local root=$scratch/system package
	mkdir -p "$root"/var/lib/dpkg/{info,updates,triggers}
	touch "$root/var/lib/dpkg/status"
	# Their scripts are for a whole system: this has none of what they call.
	dpkg_there() {
		PATH=/usr/sbin:/usr/bin:/sbin:/bin dpkg --root="$root" --force-not-root,script-chrootless,depends \
			--log=/dev/null "$@"
	}
	for package in luo-tools luo-dkms; do
		dpkg-deb --extract "$scratch/deb/$package"_*.deb "$scratch/$package" || return
		[ -n "$(files "$scratch/$package")" ] || return
		dpkg-deb --control "$scratch/deb/$package"_*.deb "$scratch/$package-scripts" || return
		! grep -r '@[A-Z]*@' "$scratch/$package-scripts" || return
	done
	dpkg_there --install "$scratch"/deb/luo-tools_*.deb || return
	[ -x "$root/usr/sbin/luoctl" ] || return
	dpkg_there --purge luo-tools || return
	[ -z "$(files "$root" | grep -v '^var/lib/dpkg/')" ]
}

check install_everything
check install_below_a_prefix
check source_builds_a_module
check packages_come_and_go

echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]

#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
#
# Tests of the set-up: what goes wrong says what and what to do, and nothing half
# made is taken for finished. Each case has a clone, a cache and commands of its
# own, all faked: no network, no kernel, a few seconds.
#
# Prints `ok NAME` or `not ok NAME` for each case, and the sum at the end.
# FILTER in the environment chooses by a part of the name.

# shellcheck disable=SC2016 # there are scripts in it to be written, not expanded
set -uo pipefail

setup=$(cd "$(dirname "$0")" && pwd)
top=$(mktemp -d)
trap 'rm -rf "$top"' EXIT
unset LINUX_SRC KDIR LLVM RUST_LIB_SRC LIBCLANG_PATH BINDGEN CARGO_TARGET_DIR
# shellcheck source=.ci/cases.sh
. "$setup/../../.ci/cases.sh"

# ---- What each case finds ------------------------------------------------------
#
# $clone  a clone with the scripts, one patch, a configuration
# $cache  its cache, empty
# $bin    a folder that comes first in PATH, for faked commands
# $log    what the faked apt-get was asked
# $tree   a kernel tree, as far as the set-up looks at one
# run COMMAND...   runs a step; $output and $status tell how it went
# The asserts print what is wrong and make the case fail.

fake() { cat >"$bin/$1"; chmod +x "$bin/$1"; }

kernel_tree() {
	mkdir -p "$1/scripts/kconfig" "$1/kernel"
	touch "$1/Kconfig"
	printf 'one\ntwo\nthree\n' >"$1/kernel/file.c"
	# A build that copies the configuration, and fails or waits where told.
	cat >"$1/Makefile" <<'END'
VERSION = 7
PATCHLEVEL = 3
SUBLEVEL = 9
kernelversion: ; @echo 7.3.9
mrproper: ; @rm -rf .config include/config
tinyconfig: ; @touch $(O)/.config
olddefconfig: ; @grep -v NO_SUCH $(O)/.config >$(O)/.config.new; mv $(O)/.config.new $(O)/.config
rustavailable: ; @test ! -e $(CURDIR)/no-rust
headers modules: ;
bzImage:
	@echo built >>$(CURDIR)/../builds
	@test ! -e $(CURDIR)/../slow || sleep 1
	@if [ -e $(O)/broken ] || [ -e $(CURDIR)/../broken ]; then echo "file.c: error: broken" >&2; exit 1; fi
	@mkdir -p $(O)/arch/x86/boot; echo image >$(O)/arch/x86/boot/bzImage; echo symbols >$(O)/Module.symvers
END
	printf '#!/bin/sh\nout=$5\nshift 5\ncat "$@" >>"$out"\n' >"$1/scripts/kconfig/merge_config.sh"
	chmod +x "$1/scripts/kconfig/merge_config.sh"
}

finished_build() {
	mkdir -p "$1/include/config" "$1/include/generated" "$1/scripts/mod" "$1/arch/x86/boot"
	touch "$1/Makefile" "$1/Kconfig" "$1/include/generated/autoconf.h" "$1/scripts/mod/modpost" "$1/arch/x86/boot/bzImage"
	printf 'CONFIG_%s=y\n' MODULES RUST KEXEC_FILE KEXEC_HANDOVER SHMEM MEMFD_CREATE >"$1/include/config/auto.conf"
	echo "CONFIG_RUSTC_VERSION_TEXT=rustc 1.90.0 (fake)" >>"$1/include/config/auto.conf"
	printf '0x0\t%s\tvmlinux\tEXPORT_SYMBOL_GPL\tmodule:luo\n' register_kexec_prepare_notifier kho_keep rust_helper_memfd_move \
		>"$1/Module.symvers"
	# What it was patched with: of the first three one is renamed, and one moved.
	printf '+EXPORT_SYMBOL_FOR_MODULES(%s, "luo");\n' register_kexec_prepare_notifier kho_hold memfd_move >"$clone/patches/0002-a.patch"
	printf '%sEXPORT_SYMBOL_FOR_MODULES(%s, "luo");\n' - kho_hold + kho_keep + memfd_move - memfd_move \
		>"$clone/patches/0003-b.patch"
}

rustc_is() {
	fake rustc <<-END
		#!/bin/sh
		case \$* in
		*sysroot*) echo $top/no-sysroot ;;
		*) echo "rustc $1 (fake)" ;;
		esac
	END
}

prepare() {
	local case=$top/case
	rm -rf "$case"
	clone=$case/clone cache=$case/cache/luo bin=$case/bin tree=$case/linux
	mkdir -p "$clone/tools/kernel" "$clone/patches" "$bin" "$case/empty"
	cp -r "$setup" "$clone/tools/setup"
	printf '# A comment\nCONFIG_GOOD=y\n# CONFIG_BAD is not set\n' >"$clone/tools/kernel/luo.config"
	cat >"$clone/patches/0001-two.patch" <<'END'
--- a/kernel/file.c
+++ b/kernel/file.c
@@ -1,3 +1,3 @@
 one
-two
+zwei
 three
END
	kernel_tree "$tree"
	rustc_is 1.90.0
	printf '#!/bin/sh\necho bindgen 0.72.1\n' | fake bindgen
	: >"$case/apt.log"
	export log=$case/apt.log XDG_CACHE_HOME=$case/cache HOME=$case/empty BINDGEN=$bin/bindgen
	unset LINUX_SRC KDIR LLVM
}

run() {
	local step=$1
	shift
	output=$(PATH=$bin:$PATH "$clone/tools/setup/$step" "$@" 2>&1 </dev/null)
	status=$?
}

wrong() { printf '    %s\n' "$@"; return 1; }
fails_saying() {
	local words
	[ "$status" != 0 ] || wrong "succeeded:" "$output" || return
	for words; do
		[[ $output == *"$words"* ]] || wrong "does not say '$words':" "$output" || return
	done
}
succeeds() { [ "$status" = 0 ] || wrong "status $status:" "$output"; }
says() { [[ $output == *"$1"* ]] || wrong "does not say '$1':" "$output"; }
result() { printf '%s\n' "${output##*$'\n'}"; }
builds() { wc -l <"$(dirname "$1")/builds"; }
is() { [ "$1" = "$2" ] || wrong "is '$1', not '$2'"; }

# ---- Rust ---------------------------------------------------------------------

# A PATH that has the usual commands, but not those named.
path_without() {
	mkdir -p "$top/case/path"
	ln -sf -t "$top/case/path" /usr/bin/* /usr/sbin/*
	(cd "$top/case/path" && rm -f -- "$@")
	printf '%s\n' "$top/case/path"
}

no_rustc() {
	rm "$bin/rustc"
	PATH=$(path_without rustc) run rust-src
	fails_saying "no rustc" "1.85.0 or newer" rustup
}

rustc_too_old() {
	rustc_is 1.63.0
	run rust-src
	fails_saying "rustc is 1.63.0, too old" "1.85.0 or newer" "update with rustup"
}

rust_sources_not_to_be_had() {
	apt_that_works
	run rust-src
	fails_saying "no rust-src 1.90.0" "sources of rustc 1.90.0 are not to be had" "rustup component add rust-src"
}

rust_sources_in_a_broken_package() {
	echo rubbish >"$top/case/rust.deb"
	fake apt-get <<-'END'
		#!/bin/sh
		case $* in
		*indextargets*) echo mirror:/debian ;;
		*download*) cp "${log%/*}/rust.deb" rust-src_1.90.0-1_all.deb ;;
		esac
	END
	printf '#!/bin/sh\necho "rust-src | 1.90.0-1 | mirror"\n' | fake apt-cache
	run rust-src
	fails_saying "cannot unpack" "run this again" || return
	is "$(find "$cache/downloads" -maxdepth 1 -name '*.deb')" ""
}

rust_sources_beside_the_compiler() {
	mkdir -p "$top/case/library/core/src"
	touch "$top/case/library/core/src/lib.rs"
	RUST_LIB_SRC=$top/case/library run rust-src
	succeeds && is "$output" "$top/case/library"
}

bindgen_is_too_old_and_cargo_fails() {
	printf '#!/bin/sh\necho bindgen 0.60.1\n' | fake bindgen
	printf '#!/bin/sh\necho "could not connect" >&2; exit 101\n' | fake cargo
	run bindgen
	fails_saying "cannot compile bindgen" "Is there a network?" "could not connect"
}

bindgen_of_an_interrupted_run() {
	printf '#!/bin/sh\necho bindgen 0.60.1\n' | fake bindgen
	printf '#!/bin/sh\nwhile [ "$1" != --root ]; do shift; done; mkdir -p "$2/bin"; echo new >"$2/bin/bindgen"\n' | fake cargo
	mkdir -p "$cache/bindgen/0.72.1/bin"
	echo half >"$cache/bindgen/0.72.1/bin/bindgen"
	run bindgen
	succeeds && is "$(cat "$(result)")" new
}

# ---- Packages -------------------------------------------------------------------

apt_that_works() {
	fake apt-get <<-'END'
		#!/bin/sh
		echo "apt-get $*" >>"$log"
		case $* in *indextargets*) echo mirror:/debian ;; esac
	END
	printf '#!/bin/sh\nexit 0\n' | fake apt-cache
}

packages_all_there() {
	apt_that_works
	for command in make gcc ld; do printf '#!/bin/sh\n' | fake "$command"; done
	# Headers cannot be faked in PATH: only the commands, here.
	sed -i '/want .*-dev/d' "$clone/tools/setup/packages"
	run packages module
	succeeds && is "$(cat "$log")" ""
}

packages_missing_without_apt() {
	PATH=$(path_without apt-get bc) run packages module kernel
	fails_saying "lacks:" "bc (bc)" "no apt here"
}

packages_missing_with_apt() {
	apt_that_works
	printf '#!/bin/sh\necho 0\n' | fake id
	PATH=$(path_without bc) run packages kernel
	succeeds && says "installing with apt: " && says " bc" || return
	grep -q '^apt-get .*update' "$log" || wrong "no update" || return
	grep -q '^apt-get .*install .*bc' "$log" || wrong "no install"
}

packages_that_apt_cannot_install() {
	printf '#!/bin/sh\nexit 100\n' | fake apt-get
	printf '#!/bin/sh\necho 0\n' | fake id
	PATH=$(path_without bc) run packages kernel
	fails_saying "apt could not install:" "Is there a network"
}

packages_neither_root_nor_sudo() {
	apt_that_works
	printf '#!/bin/sh\necho 1000\n' | fake id
	PATH=$(path_without bc sudo) run packages kernel
	fails_saying "lacks:" "there is no sudo"
}

# ---- Downloads ------------------------------------------------------------------

download_without_network() {
	fake apt-get <<-'END'
		#!/bin/sh
		case $* in
		*indextargets*) echo mirror:/debian ;;
		*) echo "could not resolve" >&2; exit 100 ;;
		esac
	END
	run kernel-source
	fails_saying "cannot read the package lists" "Is there a network?" "LINUX_SRC="
}

download_breaks_off() {
	apt_with_kernel
	sed -i 's/exit 0 # download/echo half >half.deb; exit 100/' "$bin/apt-get"
	run kernel-source
	fails_saying "cannot download linux-source-7.3 7.3.9-1" "Is there a network?" || return
	run kernel-source
	fails_saying "cannot download linux-source-7.3 7.3.9-1"
}

# Of several sources, the one that is Debian's: not a third party's, nor the security archive.
download_from_debian() {
	fake apt-get <<-'END'
		#!/bin/sh
		case $* in
		*indextargets*"Origin: Debian Label: Debian") echo mirror:/debian ;;
		*indextargets*"Origin: Debian"*) printf 'mirror:/%s\n' archive debian ;;
		*indextargets*) printf 'mirror:/%s\n' another archive debian ;;
		*) exit 100 ;;
		esac
	END
	run kernel-source
	fails_saying "from mirror:/debian"
}

download_without_debian() {
	printf '#!/bin/sh\ncase $* in *"Origin: Debian"*) ;; *) echo mirror:/another ;; esac\n' | fake apt-get
	run kernel-source
	fails_saying "no mirror of Debian" "apt-get update"
}

# An apt that has a package with $tree in it.
apt_with_kernel() {
	mkdir -p "$top/case/package/usr/src" "$top/case/package/DEBIAN"
	tar -cJf "$top/case/package/usr/src/linux-source-7.3.tar.xz" -C "$top/case" linux
	printf 'Package: linux-source-7.3\nVersion: 7.3.9-1\nArchitecture: all\nMaintainer: x <x@x>\nDescription: x\n' \
		>"$top/case/package/DEBIAN/control"
	dpkg-deb --build "$top/case/package" "$top/case/linux.deb" >/dev/null
	fake apt-get <<-'END'
		#!/bin/sh
		echo "apt-get $*" >>"$log"
		case $* in
		*indextargets*) echo mirror:/debian ;;
		*download*) cp "${log%/*}/linux.deb" linux-source-7.3_7.3.9-1_all.deb; exit 0 # download
		esac
	END
	printf '#!/bin/sh\necho "linux-source-7.3 | 7.3.9-1 | mirror"\n' | fake apt-cache
}

kernel_from_a_package() {
	apt_with_kernel
	run kernel-source
	succeeds && is "$(sed -n 2p "$(result)/kernel/file.c")" zwei || return
	# The second time neither apt nor the archive is wanted.
	rm "$bin/apt-get" "$cache"/downloads/*.lock 2>/dev/null
	printf '#!/bin/sh\nexit 1\n' | fake apt-get
	printf '#!/bin/sh\nexit 1\n' | fake dpkg-deb
	run kernel-source
	succeeds && is "$(sed -n 2p "$(result)/kernel/file.c")" zwei
}

kernel_package_is_broken() {
	apt_with_kernel
	echo rubbish >"$top/case/linux.deb"
	run kernel-source
	fails_saying "cannot unpack" "run this again" || return
	is "$(find "$cache/downloads" -maxdepth 1 -name '*.deb')" ""
}

# ---- The kernel's tree ------------------------------------------------------------

linux_src() { LINUX_SRC=$1 run kernel-source; }

tree_is_no_folder() { linux_src "$top/nowhere"; fails_saying "LINUX_SRC=$top/nowhere is not a folder"; }
tree_is_no_kernel() { linux_src "$top/case/empty"; fails_saying "is not a kernel tree" "7.3.y"; }
tree_is_another_version() {
	sed -i 's/^PATCHLEVEL.*/PATCHLEVEL = 2/' "$tree/Makefile"
	linux_src "$tree"
	fails_saying "is Linux 7.2.9" "7.3.y"
}

tree_is_copied_and_patched() {
	linux_src "$tree"
	succeeds && is "$(sed -n 2p "$(result)/kernel/file.c")" zwei || return
	is "$(sed -n 2p "$tree/kernel/file.c")" two
}

tree_is_patched_already() {
	sed -i s/two/zwei/ "$tree/kernel/file.c"
	linux_src "$tree"
	succeeds && is "$output" "$tree"
}

tree_is_patched_and_compiled_in_place() {
	sed -i s/two/zwei/ "$tree/kernel/file.c"
	touch "$tree/.config"
	linux_src "$tree"
	succeeds || return
	[ "$(result)" != "$tree" ] || wrong "used in place" || return
	[ ! -e "$(result)/.config" ] || wrong "not clean" || return
	[ -e "$tree/.config" ] || wrong "the user's tree was touched"
}

patch_does_not_apply() {
	sed -i s/three/drei/ "$tree/kernel/file.c"
	linux_src "$tree"
	fails_saying "0001-two.patch does not apply to $tree" "7.3.y" || return
	is "$(cat "$tree/kernel/file.c")" $'one\ntwo\ndrei' || return
	# And what it left is not taken for a tree.
	linux_src "$tree"
	fails_saying "0001-two.patch does not apply"
}

no_patches_in_the_clone() {
	rm "$clone"/patches/*
	linux_src "$tree"
	fails_saying "no patches" "is this clone complete?"
}

no_room_for_the_tree() {
	printf '#!/bin/sh\necho header; echo "/dev/x 9 9 100 9 /"\n' | fake df
	linux_src "$tree"
	fails_saying "not enough room" "MiB wanted in $cache" "100 MiB free" "XDG_CACHE_HOME"
}

tree_of_an_interrupted_run() {
	linux_src "$tree"
	succeeds || return
	local entry
	entry=$(result)
	rm "$entry.ok" "$entry/kernel/file.c"
	mkdir "$entry.partial"
	linux_src "$tree"
	succeeds && is "$(sed -n 2p "$entry/kernel/file.c")" zwei
}

tree_that_lost_a_file() {
	linux_src "$tree"
	succeeds || return
	rm "$(result)/kernel/file.c"
	linux_src "$tree"
	succeeds && is "$(sed -n 2p "$(result)/kernel/file.c")" zwei
}

# ---- The kernel's build -------------------------------------------------------------

build_and_again() {
	run kernel-build "$tree"
	succeeds && is "$(builds "$tree")" 1 || return
	is "$(cat "$(result)/arch/x86/boot/bzImage")" image || return
	run kernel-build "$tree"
	succeeds && is "$(builds "$tree")" 1
}

build_key() {
	run kernel-build "$tree"
	local first
	first=$(result)
	echo 'CONFIG_MORE=y' >>"$clone/tools/kernel/luo.config"
	run kernel-build "$tree"
	succeeds || return
	[ "$(result)" != "$first" ] || wrong "another configuration, the same entry" || return
	first=$(result)
	rustc_is 1.91.0
	run kernel-build "$tree"
	[ "$(result)" != "$first" ] || wrong "another compiler, the same entry" || return
	first=$(result)
	sed -i s/one/eins/ "$tree/kernel/file.c"
	run kernel-build "$tree"
	[ "$(result)" != "$first" ] || wrong "other sources, the same entry"
}

build_with_an_option_that_is_not() {
	echo 'CONFIG_NO_SUCH=y' >>"$clone/tools/kernel/luo.config"
	run kernel-build "$tree"
	fails_saying "did not take effect: CONFIG_NO_SUCH=y"
}

build_with_an_option_that_stays() {
	sed -i 's/^tinyconfig.*/tinyconfig: ; @echo CONFIG_BAD=y >$(O)\/.config/' "$tree/Makefile"
	run kernel-build "$tree"
	fails_saying "did not take effect: CONFIG_BAD=n"
}

build_by_clang() {
	printf '#!/bin/sh\necho a clang\n' | fake clang
	printf '#!/bin/sh\necho a linker\n' | fake ld.lld
	printf 'CONFIG_CC_IS_CLANG=y\n' >"$clone/tools/kernel/checks.config"
	sed -i 's/echo built >>/echo "built LLVM=$(LLVM)" >>/' "$tree/Makefile"
	export LLVM=$bin/
	run kernel-build "$tree" checks
	succeeds && is "$(tail -n 1 "$tree/../builds")" "built LLVM=$bin/" || return
	# What is not for clang does not get it, wherever it is.
	run kernel-build "$tree"
	succeeds && is "$(tail -n 1 "$tree/../builds")" "built LLVM=" || return
	# Another clang is another kernel.
	printf '#!/bin/sh\necho another clang\n' | fake clang
	run kernel-build "$tree" checks
	succeeds && is "$(wc -l <"$tree/../builds")" 3
}

build_without_rust() {
	touch "$tree/no-rust"
	run kernel-build "$tree"
	fails_saying "does not accept this Rust toolchain"
}

build_fails() {
	touch "$top/case/broken"
	run kernel-build "$tree"
	fails_saying "the kernel did not build" "file.c: error: broken" ".log" || return
	rm "$top/case/broken"
	run kernel-build "$tree"
	succeeds
}

no_room_for_the_build() {
	printf '#!/bin/sh\necho header; echo "/dev/x 9 9 100 9 /"\n' | fake df
	run kernel-build "$tree"
	fails_saying "not enough room for the kernel's build" "100 MiB free"
}

build_goes_on_where_it_stopped() {
	run kernel-build "$tree"
	local entry
	entry=$(result)
	rm "$entry.ok" "$entry/Module.symvers"
	touch "$entry/made-before"
	run kernel-build "$tree"
	succeeds && says "going on with the interrupted" || return
	[ -e "$entry/made-before" ] || wrong "started afresh"
}

build_cannot_go_on() {
	run kernel-build "$tree"
	local entry
	entry=$(result)
	rm "$entry.ok"
	touch "$entry/broken"
	run kernel-build "$tree"
	succeeds && says "starting afresh" || return
	[ ! -e "$entry/broken" ] || wrong "the old one is still there"
}

build_with_a_damaged_image() {
	run kernel-build "$tree"
	echo other >"$(result)/arch/x86/boot/bzImage"
	run kernel-build "$tree"
	succeeds && says "has lost something" || return
	is "$(cat "$(result)/arch/x86/boot/bzImage")" image
}

build_by_two_at_once() {
	touch "$top/case/slow"
	PATH=$bin:$PATH "$clone/tools/setup/kernel-build" "$tree" >/dev/null 2>&1 &
	run kernel-build "$tree"
	wait
	succeeds && is "$(builds "$tree")" 1
}

# A clone and a tree, as far as the one is put inside the other.
repository_and_place() {
	mkdir -p "$clone"/{src,include,tests/modules} "$tree/kernel/liveupdate"
	touch "$clone"/{Kbuild,Kconfig,src/luo.rs,tests/modules/Kconfig}
	echo 'obj-y += other.o' >"$tree/kernel/liveupdate/Makefile"
	printf 'menu "Live update"\nendmenu\n' >"$tree/kernel/liveupdate/Kconfig"
	printf 'CONFIG_INSIDE=y\n' >"$clone/tools/kernel/intree.config"
}

inside_and_again() {
	repository_and_place
	run kernel-intree "$tree" intree
	succeeds || return
	local copy
	copy=$(dirname "$(result)")/linux
	grep -q LIVEUPDATE_RUST "$copy/kernel/liveupdate/Makefile" || wrong "not hooked in" || return
	[ -e "$copy/kernel/liveupdate/rust/src/luo.rs" ] || wrong "no repository inside" || return
	# It goes on being the same when a file of the repository goes.
	rm "$clone/src/luo.rs"
	touch "$clone/src/other.rs" "$copy/mark"
	run kernel-intree "$tree" intree
	succeeds && [ -e "$copy/mark" ] || wrong "copied anew" || return
	[ ! -e "$copy/kernel/liveupdate/rust/src/luo.rs" ] || wrong "a file stays that the repository has no more"
}

inside_a_tree_that_lost_a_file() {
	repository_and_place
	run kernel-intree "$tree" intree
	succeeds || return
	local copy
	copy=$(dirname "$(result)")/linux
	rm "$copy/kernel/file.c"
	run kernel-intree "$tree" intree
	succeeds && is "$(cat "$copy/kernel/file.c")" "$(cat "$tree/kernel/file.c")"
}

# ---- KDIR and the whole ---------------------------------------------------------------

kdir_is_no_folder() { run kdir "$top/nowhere"; fails_saying "KDIR=$top/nowhere is not a folder"; }
kdir_is_no_build() { run kdir "$top/case/empty"; fails_saying "is not a kernel build" "O="; }
kdir_is_not_finished() {
	finished_build "$top/case/build"
	rm "$top/case/build/Module.symvers"
	run kdir "$top/case/build"
	fails_saying "is not finished: there is no Module.symvers" "make -C"
}
kdir_lacks_options() {
	finished_build "$top/case/build"
	sed -i /KEXEC_HANDOVER/d "$top/case/build/include/config/auto.conf"
	run kdir "$top/case/build"
	fails_saying "lacks: CONFIG_KEXEC_HANDOVER" luo.config
}
kdir_is_not_patched() {
	finished_build "$top/case/build"
	: >"$top/case/build/Module.symvers"
	run kdir "$top/case/build"
	fails_saying "built without the patches" "patches/*.patch"
}
kdir_is_fine() {
	finished_build "$top/case/build"
	run kdir "$top/case/build"
	succeeds && is "$output" "$top/case/build"
}
kdir_has_older_patches() {
	finished_build "$top/case/build"
	sed -i '/kho_keep/d; /memfd_move/d' "$top/case/build/Module.symvers"
	run kdir "$top/case/build"
	fails_saying "it lacks kho_keep memfd_move" "patches/*.patch"
}
kdir_and_no_patches() {
	finished_build "$top/case/build"
	rm "$clone"/patches/*
	run kdir "$top/case/build"
	fails_saying "no patches" "is this clone complete?"
}
kdir_of_another_rustc() {
	finished_build "$top/case/build"
	rustc_is 1.91.0
	run kdir "$top/case/build"
	fails_saying "built with rustc 1.90.0 (fake), but this is rustc 1.91.0"
}

setup_with_kdir() {
	finished_build "$top/case/build"
	printf '#!/bin/sh\nexit 0\n' >"$clone/tools/setup/packages"
	KDIR=$top/case/build LINUX_SRC=$tree run setup "$clone/build/paths"
	succeeds && is "$(cat "$clone/build/paths")" "LINUX_SRC=$tree
LINUX_BUILD=$top/case/build
BZIMAGE=$top/case/build/arch/x86/boot/bzImage
LUO_KO=$clone/build/module/luo.ko
UAPI_INCLUDE=$clone/include/uapi
LUOCTL=$clone/tools/target/release/luoctl"
}

setup_with_kdir_by_clang() {
	finished_build "$top/case/build"
	echo CONFIG_CC_IS_CLANG=y >>"$top/case/build/include/config/auto.conf"
	printf '#!/bin/sh\nexit 0\n' >"$clone/tools/setup/packages"
	LINUX_SRC=$tree KDIR=$top/case/build LLVM=-19 run setup "$clone/build/paths"
	succeeds && is "$(sed -n 's/^LLVM=//p' "$clone/build/paths")" -19
}

setup_with_kdir_and_no_sources() {
	finished_build "$top/case/build"
	printf '#!/bin/sh\nexit 0\n' >"$clone/tools/setup/packages"
	KDIR=$top/case/build LINUX_SRC=$top/nowhere run setup "$clone/build/paths"
	fails_saying "LINUX_SRC=$top/nowhere is not a kernel tree" "KDIR" || return
	[ ! -e "$clone/build/paths" ] || wrong "there is a build/paths"
}

setup_for_a_vm_without_image() {
	finished_build "$top/case/build"
	rm "$top/case/build/arch/x86/boot/bzImage"
	printf '#!/bin/sh\nexit 0\n' >"$clone/tools/setup/packages"
	KDIR=$top/case/build run setup "$clone/build/paths" vm
	fails_saying "no kernel image" "bzImage"
}

setup_in_a_folder_with_a_space() {
	XDG_CACHE_HOME="$top/case/my cache" run setup "$clone/build/paths"
	fails_saying "with a space" "XDG_CACHE_HOME"
}

setup_that_fails_leaves_no_paths() {
	printf '#!/bin/sh\nexit 0\n' >"$clone/tools/setup/packages"
	KDIR=$top/case/empty run setup "$clone/build/paths"
	fails_saying "is not a kernel build" || return
	[ ! -e "$clone/build/paths" ] || wrong "there is a build/paths"
}

# ---- A root file system --------------------------------------------------------------

# A mmdebstrap whose system has this version of systemd.
debian_with_systemd() {
	apt_that_works
	mkdir -p "$top/case/root/var/lib/dpkg"
	printf 'Package: libc6\nVersion: 2.43-7\n\nPackage: systemd\nStatus: install\nVersion: %s\n' "$1" \
		>"$top/case/root/var/lib/dpkg/status"
	tar -cf "$top/case/root.tar" -C "$top/case/root" .
	fake mmdebstrap <<-'END'
		#!/bin/sh
		echo mmdebstrap >>"$log"
		for argument; do case $argument in *root.tar) cp "${log%/*}/root.tar" "$argument" ;; esac; done
	END
}

root_and_again() {
	debian_with_systemd 262-1
	run debian-root
	succeeds && [ -s "$(result)" ] || wrong "no archive" || return
	run debian-root
	succeeds && is "$(grep -c mmdebstrap "$log")" 1
}

root_with_an_old_systemd() {
	debian_with_systemd 257.9-1
	run debian-root
	fails_saying "has systemd 257.9-1" "261 or later" || return
	is "$(find "$cache/root" -name '*.ok')" ""
}

root_without_network() {
	apt_that_works
	printf '#!/bin/sh\necho "could not resolve"; exit 25\n' | fake mmdebstrap
	run debian-root
	fails_saying "could not be made" "could not resolve" "Is there a network?"
}

# ---- Running them -----------------------------------------------------------------------

cases="
no_rustc rustc_too_old rust_sources_not_to_be_had rust_sources_in_a_broken_package
rust_sources_beside_the_compiler
bindgen_is_too_old_and_cargo_fails bindgen_of_an_interrupted_run
packages_all_there packages_missing_without_apt packages_missing_with_apt
packages_that_apt_cannot_install packages_neither_root_nor_sudo
download_without_network download_breaks_off download_from_debian download_without_debian
kernel_from_a_package kernel_package_is_broken
tree_is_no_folder tree_is_no_kernel tree_is_another_version tree_is_copied_and_patched
tree_is_patched_already tree_is_patched_and_compiled_in_place patch_does_not_apply
no_patches_in_the_clone no_room_for_the_tree tree_of_an_interrupted_run tree_that_lost_a_file
build_and_again build_key build_with_an_option_that_is_not build_with_an_option_that_stays
build_by_clang build_without_rust build_fails no_room_for_the_build build_goes_on_where_it_stopped
build_cannot_go_on build_with_a_damaged_image build_by_two_at_once
inside_and_again inside_a_tree_that_lost_a_file
kdir_is_no_folder kdir_is_no_build kdir_is_not_finished kdir_lacks_options kdir_is_not_patched
kdir_is_fine kdir_has_older_patches kdir_and_no_patches
kdir_of_another_rustc setup_with_kdir setup_with_kdir_by_clang setup_with_kdir_and_no_sources setup_for_a_vm_without_image
setup_in_a_folder_with_a_space setup_that_fails_leaves_no_paths
root_and_again root_with_an_old_systemd root_without_network"

# shellcheck disable=SC2086 # they are words
run_cases "${FILTER:-}" $cases

# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# What the builds of kernels share: how make is called, how a configuration is made
# and checked. Sourced, after lib.sh, with `tree` (the sources), `entry` (the folder
# of the build) and `configs` (fragments over tinyconfig) set when it is called.

# bindgen would take the first libclang that it finds, be it too old.
LIBCLANG_PATH=${LIBCLANG_PATH:-$(libclang_folder)}
[ -z "$LIBCLANG_PATH" ] || export LIBCLANG_PATH

# Names of people and machines do not belong into an image.
export KBUILD_BUILD_USER=luo KBUILD_BUILD_HOST=luo

# A fragment that says CONFIG_CC_IS_CLANG=y wants clang; without it, gcc compiles.
llvm() { ! grep -qx CONFIG_CC_IS_CLANG=y "${configs[@]}" || llvm_folder; }

kmake() {
	local llvm
	llvm=$(llvm)
	make --no-print-directory -C "$tree" O="$entry" BINDGEN="$BINDGEN" LLVM="$llvm" "$@" </dev/null
}

# What the configuration asks for and did not get, because it depends on
# something else or exists no more, would be missed much later. A fragment has the
# last word over those before it.
check_config() {
	local name value is wrong=()
	while IFS== read -r name value; do
		is=$(sed -n "s/^$name=//p" "$entry/.config")
		[ "${is:-n}" = "$value" ] || wrong+=("$name=$value")
	done < <(sed -n 's/^# \(CONFIG_[A-Z0-9_]*\) is not set$/\1=n/; /^CONFIG_/p' "${configs[@]}" |
		awk -F= '{ last[$1] = $0 } END { for (name in last) print last[name] }')
	[ ${#wrong[@]} = 0 ] || die "these lines of ${configs[*]} did not take effect: ${wrong[*]}" \
		"An option that they depend on is missing."
}

# Called under a condition, where bash ignores `set -e`: hence the &&.
configure() {
	kmake -s tinyconfig &&
		(cd "$tree" && scripts/kconfig/merge_config.sh -m -Q -O "$entry" "$entry/.config" "${configs[@]}") >/dev/null &&
		kmake -s olddefconfig || return
	check_config
	kmake -s rustavailable >"$entry.log" 2>&1 || {
		cat "$entry.log" >&2
		die "the kernel's build does not accept this Rust toolchain (see above)"
	}
}

# A line now and then instead of thousands.
progress() {
	awk '/^ +(CC|RUSTC|AR|LD|HOSTCC|AS)/ && ++n % 250 == 0 { printf "setup:   %d files, now %s\n", n, $NF; fflush() }'
}

compile() {
	mkdir -p "$entry"
	# Not again when going on: make would see a configuration newer than its work.
	[ -e "$entry/.configured" ] || { configure && touch "$entry/.configured"; } || return
	kmake -j"$(nproc)" bzImage modules headers 2>&1 | tee "$entry.log" | progress >&2
}

# start_afresh WHAT: compile, the first time or after what was there failed.
start_afresh() {
	say "building $1 (10 to 20 minutes on 2 cores; log: $entry.log)"
	compile || {
		grep -n -m 10 -E '(^|[ :])error(\[|:)|\*\*\*' "$entry.log" >&2 || tail -n 20 "$entry.log" >&2
		die "the kernel did not build" "All of its output is in $entry.log."
	}
}

# go_on WHAT: compile what is new in a build that is there, or start afresh.
go_on() {
	if [ -d "$entry" ]; then
		compile && return
		say "that failed: starting afresh"
		rm -rf "$entry"
	fi
	start_afresh "$1"
}

toolchain() {
	local llvm
	llvm=$(llvm)
	rustc --version --verbose
	if [ -n "$llvm" ]; then "${llvm}clang" --version; else gcc --version; fi | head -n 1
	"$BINDGEN" --version
	if [ -n "$llvm" ]; then "${llvm}ld.lld" --version; else ld --version; fi | head -n 1
}

# The tree's name in the cache tells its version and patches. One that is not in
# the cache tells nothing by its name: look at it.
identity() {
	case $tree in
	"$cache"/linux/*) basename "$tree" ;;
	*)	printf '%s-%s\n' "$(find "$tree" -name .git -prune -o -type f -printf '%P %s %T@\n' | LC_ALL=C sort | key)" "$tree" ;;
	esac
}

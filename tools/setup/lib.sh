# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash disable=SC2034
#
# What every step of the set-up shares: how it speaks, and how it keeps what it
# made. Sourced, never run.
#
# A step prints its result, a path, on stdout, so that the next one can take it
# as `$(step)`; all it has to say goes to stderr.

set -euo pipefail
shopt -s inherit_errexit

# The steps call make by themselves: what `make -j check` tells its own children
# is not for them.
unset MAKEFLAGS MFLAGS MAKELEVEL

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/luo

say() { printf 'setup: %s\n' "$*" >&2; }

# die WHAT [WHAT TO DO]...
die() {
	printf 'setup: error: %s\n' "$1" >&2
	shift
	for advice; do
		[ -z "$advice" ] || printf 'setup:   %s\n' "$advice" >&2
	done
	exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

# version_ge A B: is version A at least B?
version_ge() { [ "$(printf '%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]; }

# The folder of the newest libclang that bindgen can use for the kernel (17 or
# later), or nothing: the linker finds one elsewhere, or there is none.
libclang_folder() {
	local library version newest=
	for library in $(compgen -G '/usr/lib/llvm-*/lib/libclang.so' | sort -V); do
		version=${library#/usr/lib/llvm-}
		! version_ge "${version%%/*}" 17 || newest=${library%/*}
	done
	printf '%s\n' "$newest"
}

# What to give to the kernel's LLVM=: the user's, or the folder of the newest clang with
# what else of LLVM builds a kernel, and a slash at its end; or nothing.
llvm_folder() {
	local clang newest=${LLVM:-}
	[ -z "$newest" ] || { printf '%s\n' "$newest"; return; }
	for clang in $(compgen -G '/usr/lib/llvm-*/bin/clang' | sort -V); do
		[ ! -x "${clang%clang}ld.lld" ] || [ ! -x "${clang%clang}llvm-ar" ] || newest=${clang%clang}
	done
	printf '%s\n' "$newest"
}

# A short name for content: the key of a cache entry.
key() { sha256sum | cut -c -12; }

# room WHAT MIB: is there as much free in the cache's file system?
room() {
	local free
	mkdir -p "$cache" || die "cannot write to $cache" \
		"Set XDG_CACHE_HOME to a folder of yours."
	free=$(df -Pm "$cache" | awk 'NR == 2 { print $4 }')
	[ "$free" -ge "$2" ] ||
		die "not enough room for $1: $2 MiB wanted in $cache, $free MiB free" \
		    "Free some, or set XDG_CACHE_HOME to a folder on a larger disk."
}

# ---- Cache entries -----------------------------------------------------------
#
# An entry is a folder, and a seal beside it (ENTRY.ok) that is written last.
# Without its seal an entry is one that an interrupted run left. The seal also
# tells how much there was, so that an entry which lost files is noticed. More
# than there was is fine: somebody compiled something in it.

# The number of files in a folder, and of their bytes.
census() { find "$1" -type f -printf '%s\n' | awk '{ n++; s += $1 } END { printf "%d %d\n", n, s }'; }

# seal ENTRY [FILE]...: ENTRY is complete; FILEs in it must stay as they are.
seal() {
	local entry=$1
	shift
	{
		census "$entry"
		[ $# = 0 ] || (cd "$entry" && sha256sum -- "$@")
	} >"$entry.ok.partial"
	mv "$entry.ok.partial" "$entry.ok"
}

# whole ENTRY: is it complete, and has it lost nothing?
whole() {
	local entry=$1 files bytes now_files now_bytes
	[ -d "$entry" ] && [ -s "$entry.ok" ] || return 1
	read -r files bytes <"$entry.ok"
	read -r now_files now_bytes < <(census "$entry")
	[ "$now_files" -ge "$files" ] && [ "$now_bytes" -ge "$bytes" ] || return 1
	tail -n +2 "$entry.ok" | (cd "$entry" && sha256sum --check --status --strict 2>/dev/null) ||
		[ "$(wc -l <"$entry.ok")" = 1 ]
}

# obtain ENTRY FUNCTION [ARG]...: print ENTRY; if it is not whole, first have
# FUNCTION make it. One run does so at a time; the others wait and use it.
obtain() {
	local entry=$1 lock
	shift
	if ! whole "$entry"; then
		mkdir -p "$(dirname "$entry")"
		exec {lock}>"$entry.lock"
		if ! flock --nonblock "$lock"; then
			say "waiting for another run that is making $entry"
			flock "$lock"
		fi
		# The other run may have done all the work.
		whole "$entry" || "$@" "$entry" >&2
		exec {lock}>&-
	fi
	printf '%s\n' "$entry"
}

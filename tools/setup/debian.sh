# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash disable=SC2034
#
# Where packages of Debian releases other than the host's come from: the host's own
# mirror, checked with Debian's own key. Sourced, after lib.sh.

debian_keyring=/usr/share/keyrings/debian-archive-keyring.gpg

# debian_mirror WHAT: print the mirror that WHAT will be taken from.
debian_mirror() {
	local mirror
	[ -e "$debian_keyring" ] || die "$debian_keyring is missing: downloads could not be verified" \
		"Install the package debian-archive-keyring."
	# Not of others who offer packages for Debian, whose Origin is another; nor the security
	# archive, whose Label is: it has another layout and not all suites.
	# shellcheck disable=SC2016 # apt's own variable
	mirror=$(apt-get indextargets --format '$(SITE)' 'Origin: Debian' 'Label: Debian' | sort -u | head -n 1) || true
	[ -n "$mirror" ] || die "apt on this host has no mirror of Debian to take $1 from" \
		"Add one to its sources, and run apt-get update."
	printf '%s\n' "$mirror"
}

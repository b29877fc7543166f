# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0
#
# How the tests of our scripts run. To be sourced.

# run_cases FILTER NAME...: for each function that has FILTER in its name, call prepare and
# then it, in a shell of its own, and say what it says if it fails. Ends with "N passed, N
# failed, N skipped"; fails if one of them did.
run_cases() {
	local wanted=$1 passed=0 failed=0 case reason
	for case in "${@:2}"; do
		[[ $case == *"$wanted"* ]] || continue
		prepare
		if reason=$("$case" 2>&1); then
			echo "ok $case"
			passed=$((passed + 1))
		else
			echo "not ok $case"
			printf '%s\n' "$reason" | sed 's/^/    /'
			failed=$((failed + 1))
		fi
	done
	echo "$passed passed, $failed failed, 0 skipped"
	[ "$failed" = 0 ]
}

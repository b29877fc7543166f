#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
#
# Tests of .ci/run and .ci/check: what they make of suites that pass, fail, skip or find
# nothing to test. make, cargo and the suites are faked. And of what is written about the
# sources, where a machine can tell. FILTER chooses by a part of the name. Ends with
# "N passed, N failed, N skipped".

# shellcheck disable=SC2016 # there are scripts in it to be written, not expanded
set -uo pipefail
cd "$(dirname "$0")/.." || exit

wanted=${FILTER:-}
unset FILTER
top=$(mktemp -d)
trap 'rm -rf "$top"' EXIT
# shellcheck source=.ci/cases.sh
. .ci/cases.sh

fake() { cat >"$top/$1"; chmod +x "$top/$1"; }

# A clone in which every suite passes, until a case says otherwise.
prepare() {
	rm -rf "$top"
	mkdir -p "$top"/{.ci,bin,dist,tools/setup,said}
	cp .ci/run .ci/check "$top/.ci"
	fake bin/make <<-'END'
		#!/bin/sh
		said=$(dirname "$0")/../said/$1
		cat "$said" 2>/dev/null || echo "1 passed, 0 failed, 0 skipped"
		[ ! -e "$said.hangs" ] || exec sleep 1000
	END
	fake bin/cargo <<-'END'
		#!/bin/sh
		case $* in
		nextest*) exit 1 ;;
		*harness*) echo "3 passed, 0 failed, 0 skipped" ;;
		*--doc*) echo "test result: ok. 5 passed; 0 failed; 1 ignored; 0 measured" ;;
		test*) echo "test result: ok. 70 passed; 0 failed; 0 ignored; 0 measured" ;;
		esac
	END
	for suite in .ci/test.sh tools/setup/test.sh dist/test.sh; do
		printf '#!/bin/sh\necho "1 passed, 0 failed, 0 skipped"\n' | fake "$suite"
	done
}

# says TARGET LINE...: what make prints for it.
says() { printf '%s\n' "${@:2}" >"$top/said/$1"; }

# ci STATUS SUM [LINE]...: CI ends so, and prints these lines.
ci() { ends "$top/.ci/run" "$@"; }
# check STATUS SUM "SUITE..." [LINE]...: so does a check of these suites.
check() {
	# shellcheck disable=SC2086
	ends "$top/.ci/check $3" "$1" "$2" "${@:4}"
}
ends() {
	local output status line
	# shellcheck disable=SC2086
	output=$(PATH=$top/bin:$PATH $1 2>&1)
	status=$?
	for line in "status $2" "$3" "${@:4}"; do
		[[ $'\n'$output$'\nstatus '$status$'\n' == *$'\n'$line$'\n'* ]] ||
			{ printf "no line '%s' in:\n%s\nstatus %s\n" "$line" "$output" "$status"; return 1; }
	done
}

no_time="no time for it: the next run goes on where this one stopped"

all_is_well() { ci 0 "5 passed, 0 failed, 0 skipped"; }

a_test_fails() {
	says check "1 passed, 1 failed, 0 skipped" "make: Error 1"
	ci 1 "5 passed, 1 failed, 0 skipped"
}

no_tests_for_a_filter() {
	says check-debug "0 passed, 0 failed, 0 skipped"
	ci 1 "4 passed, 1 failed, 0 skipped" "CI: no tests ran in check-debug, or in a part of it"
}

no_tests_in_a_part() {
	says check-intree "0 passed, 0 failed, 0 skipped" "2 passed, 0 failed, 0 skipped" "2 passed, 0 failed, 0 skipped"
	ci 1 "6 passed, 1 failed, 0 skipped" "CI: no tests ran in check-intree, or in a part of it"
}

no_sum() {
	says check-intree "make: nothing to be done"
	ci 1 "4 passed, 1 failed, 0 skipped" "CI: no tests ran in check-intree, or in a part of it"
}

no_time() {
	export SECONDS=3000
	ci 0 "1 passed, 0 failed, 4 skipped" "CI: skipped: check-debug: $no_time"
}

# hangs TARGET [LINE]...: make prints these lines for it, and does not end.
hangs() {
	says "$@"
	: >"$top/said/$1.hangs"
	export CI_ENOUGH=5
}

no_time_to_end() {
	hangs check-debug "ok one"
	ci 0 "4 passed, 0 failed, 1 skipped" "CI: skipped: check-debug: $no_time"
}

# It is told all the same.
fails_and_has_no_time_to_end() {
	hangs check-debug "FAIL one: it does not work"
	ci 1 "4 passed, 1 failed, 0 skipped" "FAIL one: it does not work"
}

skipped_without_need() {
	says check "skip a::b: there is no luo_recorder.ko in this VM" "1 passed, 0 failed, 1 skipped"
	ci 1 "5 passed, 0 failed, 1 skipped" "CI: these should not have been skipped" \
		"CI: skipped: check: a::b: there is no luo_recorder.ko in this VM"
}

skipped_by_design() {
	local reason="this VM's processor runs no virtual machines"
	says check "skip vmm::one: $reason" "skipped packages: there is no dpkg" "1 passed, 0 failed, 2 skipped"
	says check-systemd "skip systemd::dkms: no compiler" "1 passed, 0 failed, 1 skipped"
	ci 0 "5 passed, 0 failed, 3 skipped" "CI: skipped: check: packages: there is no dpkg" \
		"CI: skipped: check-systemd: systemd::dkms: no compiler" || return
	# In the words of the tests.
	grep -qF "ctx.skip(\"$reason\")" tests/vm/src/cases/vmm.rs
}

suites_are_summed() { check 0 "81 passed, 0 failed, 1 skipped" "ci setup host install vm"; }

a_suite_of_no_tests() {
	printf '#!/bin/sh\necho "0 passed, 0 failed, 0 skipped"\n' | fake dist/test.sh
	check 1 "4 passed, 1 failed, 0 skipped" "setup install vm" "check: install has no tests" || return
	# With a FILTER it is one that has none of that name.
	FILTER=a check 0 "4 passed, 0 failed, 0 skipped" "setup install vm"
}

a_filter_of_no_tests() {
	printf '#!/bin/sh\necho "0 passed, 0 failed, 0 skipped"\n' | fake dist/test.sh
	FILTER=a check 1 "0 passed, 1 failed, 0 skipped" install "check: no test has 'a' in its name"
}

a_suite_that_crashes() {
	printf '#!/bin/sh\nexit 3\n' | fake dist/test.sh
	check 1 "1 passed, 1 failed, 0 skipped" "setup install" "check: install ended with status 3"
}

# The first column of its table names each file with unsafe code, and no other, and the second
# one how many lines there are: so nobody adds one without a look at what it rests on.
unsafe_code_is_accounted_for() {
	local unsafe='^([^/]|/[^/])*\<unsafe\>' table names
	table=$(sed -n '/^room /,/^$/{/^``/p}' Documentation/safety.rst | tr -d '`,')
	names=$(sed 's/  .*//' <<<"$table")
	# shellcheck disable=SC2046,SC2086 # they are names, of which some have a * in them
	diff -U0 --label "unsafe code" --label Documentation/safety.rst \
		<(grep -rlE --include='*.rs' "$unsafe" src | LC_ALL=C sort) \
		<(printf '%s\n' $(printf 'src/%s ' $names) | LC_ALL=C sort -u) || return
	diff -U0 --label "unsafe code" --label Documentation/safety.rst \
		<(while read -r names; do
			# shellcheck disable=SC2046,SC2086
			echo "$names: $(cat $(printf 'src/%s ' $names) | grep -cE "$unsafe")"
		done <<<"$names") \
		<(sed -E 's/^(.*[^ ])  +([0-9]+) .*/\1: \2/' <<<"$table")
}

cases="all_is_well a_test_fails no_tests_for_a_filter no_tests_in_a_part no_sum no_time no_time_to_end
fails_and_has_no_time_to_end skipped_without_need skipped_by_design
suites_are_summed a_suite_of_no_tests a_filter_of_no_tests a_suite_that_crashes
unsafe_code_is_accounted_for"

# shellcheck disable=SC2086 # they are words
run_cases "$wanted" $cases

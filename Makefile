# SPDX-License-Identifier: GPL-2.0
#
# The Rust Live Update Orchestrator. `make help` tells what there is to make.
#
# All that the kernel side needs (packages, Rust sources, bindgen, a patched and
# built kernel) is made ready by tools/setup, in a cache outside of this clone.
# It leaves the places in build/paths, which the recipes here read: they are
# known only once the set-up has run, so they cannot be make variables.

BUILD := $(CURDIR)/build
# Reads build/paths into the environment of the rest of the recipe's line.
PATHS := set -a; . $(BUILD)/paths; set +a;
CARGO := cargo
# The one workspace of all that Cargo builds, tests/ included.
WORKSPACE := --manifest-path tools/Cargo.toml
HARNESS = $(CARGO) run --quiet --release $(WORKSPACE) -p harness --

# For rustfmt, which finds the rest of the module from its root.
MODULE_RS = src/luo.rs $(shell find samples tests/modules -name '*.rs' 2>/dev/null)

# Tests of which `make check` does a little.
LONG_GOALS := model races soak
# Only what runs a virtual machine wants QEMU.
VM_GOALS := demo check check-vm check-debug check-kcsan check-faults check-intree check-variant check-systemd \
	bench $(LONG_GOALS)
SETUP_VM := $(if $(filter $(VM_GOALS),$(MAKECMDGOALS)),vm)

.DEFAULT_GOAL := all
.PHONY: all module samples tools man setup kernel paths data demo bench bench-again check check-host check-vm \
	check-debug has-kasan check-kcsan check-faults check-intree check-variant check-systemd \
	$(LONG_GOALS) fuzz fuzz-merge miri install install-module install-tools install-source deb \
	clippy fmt fmt-check docs clean distclean clean-cache help

all: module tools

# ---- Building ----------------------------------------------------------------

setup:
	@tools/setup/setup $(BUILD)/paths $(SETUP_VM)

kernel: setup
	@$(PATHS) echo "kernel: $$BZIMAGE"

module: setup
	@mkdir -p $(BUILD)/module
	@$(PATHS) $(MAKE) --no-print-directory -C "$$LINUX_BUILD" \
		M=$(CURDIR) MO=$(BUILD)/module modules

samples: module
	@mkdir -p $(BUILD)/samples
	@$(PATHS) $(MAKE) --no-print-directory -C "$$LINUX_BUILD" \
		M=$(CURDIR)/samples MO=$(BUILD)/samples LUO=$(BUILD)/module \
		KBUILD_EXTRA_SYMBOLS=$(BUILD)/module/Module.symvers modules

# For the user of the module: without what is for the tests.
tools:
	$(CARGO) build --release $(WORKSPACE) --workspace \
		--exclude harness --exclude luo-vm --exclude luo-handover --exclude luo-model

# Of luoctl: manual pages and shell completions.
man:
	@$(CARGO) run --quiet --release $(WORKSPACE) -p luoctl --example generate -- $(BUILD)
	@echo "man: $(BUILD)/man (manual pages), $(BUILD)/completions (for bash, fish and zsh)"

paths: setup
	@cat $(BUILD)/paths

# ---- Installing --------------------------------------------------------------

DESTDIR :=
PREFIX := /usr
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' tools/Cargo.toml)
SOURCE_FOLDER := $(DESTDIR)$(PREFIX)/src/luo-$(VERSION)

install: install-module install-tools

# For the kernel that it was built for.
install-module: module
	@$(PATHS) $(MAKE) --no-print-directory -C "$$LINUX_BUILD" M=$(CURDIR) MO=$(BUILD)/module \
		$(if $(DESTDIR),INSTALL_MOD_PATH=$(abspath $(DESTDIR)) DEPMOD=true) modules_install

# The tools, and what makes luo.ko come up at boot: see dist/README.md.
install-tools: man
	$(CARGO) build --release $(WORKSPACE) -p luoctl
	install -D -t $(DESTDIR)$(PREFIX)/sbin $${CARGO_TARGET_DIR:-tools/target}/release/luoctl
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/share/man/man8 $(BUILD)/man/*.8
	install -D -m 644 $(BUILD)/completions/luoctl.bash $(DESTDIR)$(PREFIX)/share/bash-completion/completions/luoctl
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d $(BUILD)/completions/luoctl.fish
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/share/zsh/vendor-completions $(BUILD)/completions/_luoctl
	install -D -m 644 -t $(DESTDIR)/usr/lib/udev/rules.d dist/udev/60-liveupdate.rules
	install -D -m 644 -t $(DESTDIR)/usr/lib/modules-load.d dist/modules-load.d/luo.conf
	install -D -m 644 -t $(DESTDIR)/usr/share/initramfs-tools/modules.d dist/initramfs-tools/luo
	install -D -t $(DESTDIR)/usr/lib/dracut/modules.d/90luo dist/dracut/90luo/*.sh

# What DKMS builds luo.ko from.
install-source:
	install -d $(SOURCE_FOLDER)
	find Kbuild Kconfig src include -type f \( -name 'K*' -o -name '*.rs' -o -name '*.[ch]' \) \
		-exec install -D -m 644 {} $(SOURCE_FOLDER)/{} \;
	sed 's/@VERSION@/$(VERSION)/' dist/dkms/dkms.conf >$(SOURCE_FOLDER)/dkms.conf

deb:
	@dist/deb $(BUILD)/deb

# ---- Running -----------------------------------------------------------------

# Before the long part: a DATA that is not there shows at once.
data:
	@[ -z "$$DATA" ] || [ -e "$$DATA" ] || { echo "make demo: there is no DATA=$$DATA" >&2; exit 1; }

demo: data module
	@$(PATHS) $(HARNESS) demo

bench: module
	@$(PATHS) $(HARNESS) bench $(if $(QUICK),--quick) $(if $(PROFILE),--profile)

# Table, page and pictures once more from what the last run measured.
bench-again: module
	@$(PATHS) $(HARNESS) bench --again

# ---- Checking ----------------------------------------------------------------

check: module
	@$(PATHS) LUO_OUTPUT=$(BUILD)/check .ci/check ci setup host install vm

check-host:
	@.ci/check ci setup host

check-vm: module
	@$(PATHS) LUO_OUTPUT=$(BUILD)/check .ci/check vm

# The same on kernels that look for faults: see tools/kernel/{debug,kcsan}.config. What
# things cost in memory there tells nothing: KASAN's shadow takes an eighth of it, which the
# next kernel takes from KHO's scratch area, so that it does not boot where a test has that small;
# and what was freed waits in a quarantine of up to another 32nd. The image does not fit where
# luoctl_refused::images has one fit. To ask ACPI for the interrupts of a PCI device takes such a
# kernel minutes: the old tables know them, too. The driver of a PC's keyboard has a data race, and
# nobody types. `no5lvl`: see Documentation/known-kernel-issues.rst. Pages that are free hold a
# pattern only where `page_poison` says so.
NOT_ON_DEBUG = cost::,hostile_users::limited,memfd_accounting::,memfd_interrupt::killed,lifetime::no_memory_lost,$\
	luoctl_refused::images,memfd_charge::cgroups_from_extents,memfd_charge::cgroups_from_v2,$\
	memfd_charge::cgroups_from_tables,memfd_retrieved::everything_from_tables,$\
	memfd_retrieved::everything_from_singles
NOT_ON_KCSAN = cost::,vmm::
ON_DEBUG = LUO_CMDLINE='no5lvl page_poison=1 pci=noacpi i8042.nokbd i8042.noaux kho_scratch=1200M,16M,16M $(MORE_CMDLINE)' \
	LUO_DEBUG_KERNEL=1 LUO_MORE_MEMORY=2560 LUO_TIME_FACTOR=3 $(MAKE) --no-print-directory
check-kcsan:
	@VARIANT=kcsan LUO_SKIP='$(NOT_ON_KCSAN)' $(ON_DEBUG) BUILD=$(BUILD)/kcsan check-vm
# What lets each step fail comes after the rest, as it wants another luo.ko. Where each small object comes from
# KASAN notes: SLUB, which checks it, too, need not note it again.
check-debug: MORE_CMDLINE := slab_debug=FPZ
check-debug:
	@status=0; \
	$(if $(findstring faults,$(FILTER)),,VARIANT=debug LUO_SKIP='$(NOT_ON_DEBUG)' \
		$(ON_DEBUG) BUILD=$(BUILD)/debug has-kasan check-vm || status=$$?;) \
	$(if $(findstring faults,$(or $(FILTER),faults)),VARIANT=debug LUO_SKIP=$(NOT_WITH_FAULTS) \
		FAULTS=1 FILTER=$(or $(FILTER),faults) $(ON_DEBUG) BUILD=$(BUILD)/debug-faults has-kasan check-vm || status=$$?;) \
	exit $$status

# Fails unless KASAN looks after the Rust in luo.ko: the kernel's build could leave that out without a word.
has-kasan: module
	@nm -u $(BUILD)/module/src/luo.o | grep -q __asan_ \
		|| { echo 'make check-debug: there is no KASAN in luo.ko' >&2; exit 1; }

# Every step of every call fails once: on a kernel with tools/kernel/faults.config,
# and a luo.ko with fault points of its own (FAULTS=1). Faults of pages are another thing.
NOT_WITH_FAULTS = memfd_interrupt::
check-faults:
	@VARIANT=faults LUO_SKIP=$(NOT_WITH_FAULTS) FAULTS=1 FILTER=$(or $(FILTER),faults) \
		$(MAKE) --no-print-directory BUILD=$(BUILD)/faults check-vm

# This tree inside a kernel's, as a module beside the orchestrator in C, and built
# in as the only one: the tests that go through kexec.
check-intree:
	@.ci/check intree-module intree-builtin

# A Debian system with our packages, whose systemd is the client: see tests/systemd.
check-systemd: module
	@tools/setup/packages systemd
	@dist/deb $(BUILD)/deb
	@$(PATHS) root=$$(tools/setup/debian-root) && $(HARNESS) systemd --root "$$root" --packages $(BUILD)/deb \
		$(if $(ORCHESTRATOR),--orchestrator $(ORCHESTRATOR))

# For .ci/check: the tests that LUO_CHECK chooses, on the kernel of VARIANT.
check-variant: setup
	@$(PATHS) LUO_OUTPUT=$(BUILD)/check $(HARNESS) check $(LUO_CHECK)

# What `make check` does a little of: so much of it (N=), from the same start as some time before (SEED=); or just what
# `make model` told when it had failed (STEPS=).
model: N := 1000000
races: N := 100
soak: N := 200
model: LONG_TESTS := model:: concurrent:: --skip memfd_
races: LONG_TESTS := races_kexec::
soak: LONG_TESTS := soak::
$(LONG_GOALS): module
	@$(PATHS) LUO_OUTPUT=$(BUILD)/$@ $(HARNESS) check --amount $(N) $(if $(SEED),--seed $(SEED)) \
		$(if $(STEPS),--steps $(STEPS)) $(LONG_TESTS)

# Hostile bytes for all that is read of a handover: N of them, guided by coverage.
# What cargo-fuzz passes to rustc, less what is of no use here: a sanitizer, since
# all is safe Rust, and the tracing of comparisons, since bytes are read as damage of
# something valid. So it takes any rustc, and no tool but a C++ compiler.
# What was found is kept in build/fuzz; `make fuzz-merge` adds it to the corpus in
# the repository, as far as that covers less without.
FUZZ_RUSTFLAGS := -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
	-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
	-Ccodegen-units=1
FUZZ = RUSTFLAGS="$(FUZZ_RUSTFLAGS)" $(CARGO) run --quiet $(WORKSPACE) -p luo-handover --features fuzz \
	--profile fuzz --target-dir tools/target/fuzz --target $(shell rustc -vV | sed -n 's/^host: //p') \
	--bin fuzz-handover --
FUZZ_CORPUS := tests/handover/corpus

fuzz fuzz-merge:
	@mkdir -p $(BUILD)/fuzz/corpus
	@$(FUZZ) $(FUZZ_GOAL) -artifact_prefix=$(BUILD)/fuzz/

fuzz: N := 10000000
fuzz: FUZZ_GOAL = $(BUILD)/fuzz/corpus $(FUZZ_CORPUS) -runs=$(N) -max_len=256 -timeout=10 -print_final_stats=1
fuzz-merge: FUZZ_GOAL = -set_cover_merge=1 -use_counters=0 $(FUZZ_CORPUS) $(BUILD)/fuzz/corpus

# What is pure, under the interpreter that finds undefined behaviour, but for what takes it
# hours. It comes with a nightly toolchain alone: rustup toolchain install nightly --component miri
miri:
	PROPTEST_CASES=2 MIRIFLAGS=-Zmiri-disable-isolation $(CARGO) +nightly miri test $(WORKSPACE) -p luo-handover --lib \
		--target-dir tools/target/miri -- ::array ::chain:: ::extent:: ::folio:: ::layout:: ::luo:: ::memfd:: \
		::radix:: ::runs:: ::singles:: ::table::

# In a folder of its own: an object that clippy made is not one to load.
clippy: setup
	@mkdir -p $(BUILD)/clippy
	@$(PATHS) $(MAKE) --no-print-directory -C "$$LINUX_BUILD" \
		M=$(CURDIR) MO=$(BUILD)/clippy CLIPPY=1 KRUSTFLAGS=-Dwarnings modules
	@$(CARGO) clippy $(WORKSPACE) --workspace --all-targets -- -D warnings

fmt: RUSTFMT_MODE :=
fmt-check: RUSTFMT_MODE := --check
fmt fmt-check: setup
	@$(PATHS) rustfmt $(RUSTFMT_MODE) --edition 2021 \
		--config-path "$$LINUX_SRC/.rustfmt.toml" $(MODULE_RS)
	@$(CARGO) fmt $(WORKSPACE) --all $(RUSTFMT_MODE)

# One folder with all of it: the pages of Documentation, and below rust/ what rustdoc
# makes of module and tools. A warning is an error.
docs: module
	@tools/setup/packages docs
	@$(PATHS) PYTHONDONTWRITEBYTECODE=1 \
		sphinx-build -q -W --keep-going -d $(BUILD)/doctrees Documentation $(BUILD)/docs
# rustdoc has no M= of its own: it takes what the build passed to rustc, which
# Kbuild keeps beside the object, without what rustc alone knows.
	@cd $(BUILD)/module && RUSTC_BOOTSTRAP=1 sh -c "$$(sed -n \
		-e 's/ rustc / rustdoc --document-private-items -D warnings -A rustdoc::private_intra_doc_links -o ..\/docs\/rust\/module /' \
		-e 's/ -Zbinary_dep_depinfo=y//; s/ --remap-path[^ ]*//g; s/ --emit=[^ ]*//g; s/ --out-dir [^ ]*//' \
		-e 's/^savedcmd_[^ ]* := //p' src/.luo.o.cmd)"
	@RUSTDOCFLAGS="-D warnings" $(CARGO) doc --no-deps $(WORKSPACE) --workspace
	@mkdir -p $(BUILD)/docs/rust/tools
	@cp -r $${CARGO_TARGET_DIR:-tools/target}/doc/. $(BUILD)/docs/rust/tools
	@echo "docs: $(BUILD)/docs/index.html"

# ---- The rest ----------------------------------------------------------------

clean:
	rm -rf $(BUILD)

distclean: clean
	rm -rf tools/target
	@echo "The cache of kernels stays for other clones. To remove it too: make clean-cache"

clean-cache:
	rm -rf "$${XDG_CACHE_HOME:-$$HOME/.cache}/luo"

help:
	@echo 'make             luo.ko and the user-space tools'
	@echo 'make demo        change the kernel under real data (DATA=<file or folder>) and a virtual machine'
	@echo 'make check       every test (FILTER=<part of a name>); check-host, check-vm: some'
	@echo 'make check-debug the tests in VMs on a kernel with KASAN, lockdep and more of that kind;'
	@echo '                 check-kcsan: on one that watches for data races'
	@echo 'make check-faults each step of each command fails once'
	@echo 'make check-intree the tests that go through kexec, with this tree inside of a kernel'"'"'s'
	@echo 'make check-systemd a Debian system in a VM: our packages, and systemd over live updates'
	@echo 'make model       random commands (N=1000000), whose answers a model tells beforehand;'
	@echo '                 STEPS=<as a failed run tells it> does just those again that showed it'
	@echo 'make races       kexecs (N=100) in the midst of everything: what was done arrives'
	@echo 'make soak        live updates (N=200) in a row: nothing is lost, and nothing grows'
	@echo '                 SEED=<as a failed test tells it> repeats one of these'
	@echo 'make fuzz        hostile bytes for all that is read of the previous kernel (N=10000000)'
	@echo 'make miri        the parser of that under Miri (wants a nightly toolchain)'
	@echo 'make bench       measure against the orchestrator in C, in half an hour (QUICK=1: a few minutes,'
	@echo '                 FILTER=<part of a name>, PROFILE=1: where the time goes); bench-again: only print'
	@echo 'make install     module, luoctl, and what loads the module at boot (DESTDIR=, PREFIX=);'
	@echo '                 install-module, install-tools, install-source: parts of it'
	@echo 'make deb         Debian packages: luo-tools, luo-dkms'
	@echo 'make man         manual pages and shell completions of luoctl'
	@echo 'make samples     the handlers in samples/, as modules on top of luo.ko'
	@echo 'make kernel      only the patched kernel that the module is for'
	@echo 'make paths       where things are, as KEY=value lines (with -s nothing else)'
	@echo 'make clippy      Clippy over the module and the tools; a warning is an error'
	@echo 'make fmt         rustfmt over the same; fmt-check only looks'
	@echo 'make docs        documentation as HTML: the pages in Documentation, module and tools'
	@echo 'make clean       remove what was built here; distclean: Cargo'"'"'s part too;'
	@echo '                 clean-cache: the kernels outside of the clone'
	@echo
	@echo 'LINUX_SRC=<a Linux 7.3.y tree>  instead of the one of Debian (it is copied, not changed)'
	@echo 'KDIR=<a finished kernel build>  instead of building one'

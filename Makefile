# make run         build pengx and run it here, on libvirt or else on a fake
# make test        everything that must hold before a change goes in
# make test-long   the same tests with more rounds, and those that are too long for it
# make test-fresh  the same and `make run` in a bare Debian 12 (root only)
# make test-xen    what needs a Xen, in one that it boots in QEMU (FILTER=... chooses tests)
# make test-xen-two    guests that move between two of them
# make test-xen-long   all of it: a guest's whole life, deaths in the middle of operations, and that of the host
# make bench       measurements
# make bench-xen   those that need a Xen
# make deb         target/deb/pengx_VERSION_amd64.deb (PROFILE=dev builds it faster)
# make lint, fmt   what the compiler, clippy, rustfmt and shellcheck say; put in form
SHELL := /bin/bash
phase := tests/lab/phase.sh

# What tests may share between runs: the golden image, libvirt's capabilities.
export PENGX_LAB_CACHE ?= $(CURDIR)/target/lab

# Of the tests that need a Xen, those that `make test` runs: words in their names.
xen_quick := xen::the_golden xen::the_stub xen::xen_answers xen::server::the_ xen::server::a_start \
	xen::life::a_backup_on_xen xen::bios::a_bios_guest_on_xen_obeys disks_of_an_hvm \
	laws_of_xl_pv::the_leaf laws_of_xl_pv::an_image_in_the_middle laws_of_xl_pv::a_disk_is_mirrored

# And of those that need two.
two_quick := xen::migration::a_counting xen::migration::what_cannot

# Those of `make test-xen`. An HVM guest is different in what is started and plugged in.
xen_most := xen::the_golden xen::the_stub xen::xen_answers xen::many:: xen::server:: xen::life::a_backup \
	xen::life::a_guest_on_xen_is xen::bios::a_bios_guest_on_xen_obeys hypervisor::xl:: laws_of_xl_pv:: \
	$(addprefix laws_of_xl_hvm::,power discs a_domain_starts an_interface a_disk_is)

# What the package is made of.
PROFILE ?= release
DEB_VERSION ?= $(shell sed -n 's/^version = "\(.*\)"$$/\1/p' Cargo.toml | head -n 1)
profile_dir = $(if $(filter dev,$(PROFILE)),debug,$(PROFILE))

.PHONY: run test test-long test-fresh test-deb test-xen test-xen-two test-xen-long bench bench-xen deb lint fmt

run:
	@tests/lab/install.sh run
	@cargo build --release --locked
	@exec tests/lab/run.sh

test:
	@$(phase) "packages" tests/lab/install.sh test
	@$(phase) "golden image" tests/lab/build-guest.sh -o "$(PENGX_LAB_CACHE)/golden.qcow2"
	@$(MAKE) --no-print-directory lint
	@$(phase) "documentation" env RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps
	@$(phase) "tests" cargo test --locked --no-fail-fast -- --show-output
	@$(phase) "a real Xen, its quick half" tests/xen/test.sh $(xen_quick)
	@$(phase) "two real Xen hosts, their quick half" tests/xen/two.sh $(two_quick)
	@echo "== not run here: the long rounds (make test-long), Xen beyond its quick halves (make test-xen, make test-xen-two, make test-xen-long), a bare Debian (make test-fresh), measurements (make bench)"
	@$(phase) "installed package" $(MAKE) --no-print-directory test-deb

# The real program, of the profile that is there after the tests; twice, under two versions.
test-deb:
	@tests/lab/install.sh test
	@$(MAKE) --no-print-directory deb PROFILE=dev DEB_VERSION='$(DEB_VERSION)~old'
	@$(MAKE) --no-print-directory deb PROFILE=dev
	@tests/packaging/deb.sh target/deb/pengx_$(DEB_VERSION)~old_*.deb target/deb/pengx_$(DEB_VERSION)_*.deb

deb:
	@cargo build --locked --profile $(PROFILE)
	@docs/packaging/build-deb.sh target/$(profile_dir)/pengx '$(DEB_VERSION)'

test-long:
	@$(phase) "packages" tests/lab/install.sh test
	@$(phase) "golden image" tests/lab/build-guest.sh -o "$(PENGX_LAB_CACHE)/golden.qcow2"
	@$(phase) "long tests" env PENGX_TEST_LONG=1 cargo test --locked --no-fail-fast -- --show-output

test-fresh:
	@tests/lab/install.sh fresh
	@exec tests/lab/fresh.sh

test-xen:
	@tests/lab/install.sh test
	@exec tests/xen/test.sh $(or $(FILTER),$(xen_most))

test-xen-two:
	@tests/lab/install.sh test
	@exec tests/xen/two.sh $(FILTER)

test-xen-long:
	@tests/lab/install.sh test
	@exec tests/xen/test.sh -r

bench:
	@tests/lab/install.sh test
	@cargo bench --locked --bench api
	@cargo bench --locked --bench disks

bench-xen:
	@tests/lab/install.sh test
	@exec tests/xen/bench.sh

lint:
	@$(phase) "form" cargo fmt --check
	@$(phase) "clippy" cargo clippy --locked --all-targets -- -D warnings
	@$(phase) "scripts" shellcheck -x tests/lab/*.sh tests/packaging/*.sh tests/xen/*.sh docs/packaging/*.sh \
		docs/packaging/debian/{postinst,prerm,postrm} .ci/run

fmt:
	@cargo fmt

# make run         build pengx and run it here, on libvirt or else on a fake
# make test        everything that must hold before a change goes in
# make test-fresh  the same and `make run` in a bare Debian 12 (root only)
# make bench       measurements
# make lint, fmt   what the compiler, clippy, rustfmt and shellcheck say; put in form
SHELL := /bin/bash
phase := tests/lab/phase.sh

# What tests may share between runs: the golden image, libvirt's capabilities.
export PENGX_LAB_CACHE ?= $(CURDIR)/target/lab

.PHONY: run test test-fresh bench lint fmt

run:
	@tests/lab/install.sh run
	@cargo build --release --locked
	@exec tests/lab/run.sh

test:
	@$(phase) "packages" tests/lab/install.sh test
	@$(phase) "golden image" tests/lab/build-guest.sh -o "$(PENGX_LAB_CACHE)/golden.qcow2"
	@$(MAKE) --no-print-directory lint
	@$(phase) "documentation" env RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps
	@$(phase) "tests" cargo test --locked

test-fresh:
	@tests/lab/install.sh fresh
	@exec tests/lab/fresh.sh

bench:
	@tests/lab/install.sh test
	@cargo bench --locked --bench api

lint:
	@$(phase) "form" cargo fmt --check
	@$(phase) "clippy" cargo clippy --locked --all-targets -- -D warnings
	@$(phase) "scripts" shellcheck tests/lab/*.sh .ci/run

fmt:
	@cargo fmt

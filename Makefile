# What one does here. Needs Rust; `make demo` and `make test` need nothing else, `make conformance`
# Python and npm.

CARGO ?= cargo

.PHONY: all demo test conformance real check bench install uninstall deb rpm

all:
	$(CARGO) build --locked --release

# Two users on the example server, in a scratch directory, until Ctrl-C.
demo:
	@./examples/demo/demo.sh

test:
	$(CARGO) test --locked

# MCP's conformance suite, directly and everywhere behind mcpsup, or at those TARGETS that are named.
TARGETS ?=

conformance:
	python3 tests/conformance/run.py $(TARGETS)

# Real servers called by real clients, behind the bridge; installs packages by name, so not in CI.
real:
	python3 tests/real/run.py

# What must hold before a change goes in, beside the tests.
check:
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --locked --no-deps

include packaging/install.mk

# Packages in $(OUT), each made from the files of `make install`.
OUT ?= target/packages

deb: all
	packaging/deb/build "$(OUT)"

rpm: all
	packaging/rpm/build "$(OUT)"

# mcpsup beside other supervisors and bridges, those that are installed; see benches/README.md.
bench: all
	python3 benches/w1_restart.py
	python3 benches/w2_scale.py
	python3 benches/w3_bridge.py

# What one does here. Needs Rust; `make demo` and `make test` need nothing else, `make conformance`
# Python and npm.

CARGO ?= cargo

.PHONY: all demo test conformance real test-systemd check audit bench bench-peers install uninstall deb rpm test-package

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

# Under a real systemd, in a virtual machine; says what to install for it. All of it, or the SCENARIOS
# that are named.
SCENARIOS ?=

test-systemd:
	python3 tests/systemd/run.py $(SCENARIOS)

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

# The packages in virtual machines: the README's first minutes with one, used by MCP Inspector, upgraded
# under the servers, removed, purged; and the RPM likewise. Takes what test-systemd takes, dpkg-dev,
# rpm and npm; writes down what was seen.
test-package: all
	rm -f target/test-package/*.deb target/test-package/*.rpm
	for revision in 1 2; do for kind in deb rpm; do \
		REVISION=$$revision packaging/$$kind/build target/test-package || exit 1; done; done
	tests/systemd/inspector.sh target/test-package/inspector.tgz
	python3 tests/systemd/run.py --title "The packages" --by "make test-package" --report docs/package.md newcomer package rpm

# What the crates in it are: known holes, licences, origins (deny.toml). Needs cargo-deny; the list of
# known holes is fetched, so CI asks for the rest only.
AUDIT ?= advisories licenses bans sources

audit:
	$(CARGO) deny check $(AUDIT)

# mcpsup beside a floor in C, and beside its peers, as far as those are installed; see benches/README.md.
# What was measured goes into docs/benchmarks.md. BENCH=--quick: shows that it works, in three minutes.
BENCH ?=

bench: all
	python3 benches/run.py $(BENCH)

bench-peers: all
	python3 benches/run.py --peers $(BENCH)

# What one does here. Needs Rust; `make demo` and `make test` need nothing else.

CARGO ?= cargo

.PHONY: all demo test check

all:
	$(CARGO) build --locked --release

# Two users on the example server, in a scratch directory, until Ctrl-C.
demo:
	@./examples/demo/demo.sh

test:
	$(CARGO) test --locked

# What must hold before a change goes in, beside the tests.
check:
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings -A rustdoc::private_intra_doc_links' $(CARGO) doc --locked --no-deps --document-private-items

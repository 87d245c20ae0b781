# What a person or CI runs. Everything is set up by the target that needs it.
#
# All building goes through `--workspace --all-targets`, so that every target shares one set of
# features and nothing is compiled twice.

CARGO ?= cargo
TOOLS := target/tools/bin
FUZZ_SECONDS ?= 20

.PHONY: demo test test-postgres loom fuzz bench bench-cold bench-proxy bench-micro bench-control bench-feed dist check guide engine engine-down tools images clean-images

demo: ## The main job end to end on real containers; leaves nothing behind
	$(CARGO) build --workspace --all-targets
	sh tests/engine.sh run target/debug/cless-demo

test: tools ## The whole suite: unit, property and end-to-end on a real engine
	$(CARGO) build --workspace --all-targets
	sh tests/engine.sh up
	sh tests/postgres.sh run $(CARGO) test --workspace
	$(MAKE) test-postgres

# The same executables as above: `--package` would build all of it again with other features.
test-postgres: ## The control plane's tests once more, on PostgreSQL instead of SQLite; also part of `make test`
	CLESS_TEST_DATABASE=postgres sh tests/postgres.sh run $(CARGO) test --workspace --lib --test it \
	    --config 'target."cfg(all())".runner = ["sh", "$(CURDIR)/tests/only.sh", "control-plane"]'

loom: ## Admission against reaping, draining and freezing, in every order; also part of `make test`
	$(CARGO) test --package cless-loom

fuzz: ## Longer on what strangers and files say than `make test`; FUZZ_SECONDS for each target
	CLESS_FUZZ_SECONDS=$(FUZZ_SECONDS) $(CARGO) test --workspace --lib fuzz

bench: bench-cold bench-proxy bench-micro bench-control bench-feed ## Every bench there is

bench-cold: ## Cold starts against raw engine calls; writes target/bench/cold.json
	$(CARGO) build --release --workspace --bins
	sh tests/engine.sh run target/release/cless-bench-cold

bench-proxy: ## Warm requests against nginx, HAProxy, Envoy, Caddy, Traefik; writes target/bench/proxy.json, proxy.svg
	$(CARGO) build --release --workspace --bins
	$(MAKE) dist
	sh tests/proxies.sh
	CLESS_PROGRAMS=target/dist sh tests/engine.sh run target/release/cless-bench-proxy

bench-micro: ## Choosing, finding, entering against the least that could do it; writes target/bench/micro.json
	$(CARGO) build --release --workspace --bins
	target/release/cless-bench-micro

bench-control: ## Writes against raw SQLite, start of the control plane, way of a change; writes target/bench/control.json
	$(CARGO) build --release --workspace --bins
	sh tests/engine.sh run target/release/cless-bench-control

bench-feed: ## Changes to a thousand subscribers; writes target/bench/feed.json
	$(CARGO) build --release --workspace --bins
	sh tests/engine.sh run target/release/cless-bench-feed

dist: ## The data plane as it is shipped: fat LTO, one codegen unit; in target/dist
	$(CARGO) build --profile dist --package cless-data-plane

check: tools ## Format, lints, documentation, the API's style, the pages
	$(CARGO) fmt --all -- --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	$(CARGO) clippy --package cless-data-plane --no-default-features -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps
	cd proto && ../$(TOOLS)/buf lint
	$(CARGO) test --workspace --test guide

guide: ## Writes the generated tables of the pages: flags, settings, metrics
	CLESS_GUIDE=write $(CARGO) test --quiet --workspace --test guide

engine: ## A Docker engine, if none answers
	sh tests/engine.sh up

engine-down: ## Stops the engine that `make engine` or `make test` started
	sh tests/engine.sh down

tools: ## buf and grpcurl under target/tools
	sh tests/tools.sh

images: ## The images of the tests, to try things by hand
	$(CARGO) run --quiet --package cless-tests --bin cless-images -- --nginx

clean-images: ## Removes every image that tests, demo and benches made
	$(CARGO) run --quiet --package cless-tests --bin cless-images -- --remove

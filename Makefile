# Entry points for people and CI. Each target sets up its own prerequisites.
#
# Every build uses `--workspace`, so that all targets share one set of features and nothing is
# compiled twice.

CARGO ?= cargo
TOOLS := target/tools/bin
FUZZ_SECONDS ?= 20
# A folder with programs of an earlier build, which bench-cold and bench-proxy then also measure.
BASELINE ?=

.PHONY: demo test test-postgres loom fuzz bench bench-cold bench-proxy bench-micro bench-control bench-feed dist check guide engine engine-down tools images clean-images

# A first build is faster without incremental data and debug information: 52 s against 76 s for the
# crates of the workspace.
demo: ## Runs the main job end to end on real containers and cleans up
	CARGO_INCREMENTAL=0 CARGO_PROFILE_DEV_DEBUG=0 $(CARGO) build --workspace --bin cless --bin cless-demo
	sh tests/engine.sh run target/debug/cless-demo

test: tools ## Runs the whole suite: unit, property and end-to-end tests on a real engine
	$(CARGO) build --workspace --all-targets
	sh tests/engine.sh up
	sh tests/postgres.sh run $(CARGO) test --workspace
	$(MAKE) test-postgres

# Runs the executables built above: `--package` would rebuild everything with other features.
test-postgres: ## Runs the control plane's tests on PostgreSQL instead of SQLite; part of `make test`
	CLESS_TEST_DATABASE=postgres sh tests/postgres.sh run $(CARGO) test --workspace --lib --test it \
	    --config 'target."cfg(all())".runner = ["sh", "$(CURDIR)/tests/only.sh", "control-plane"]'

loom: ## Model-checks admission against reaping, draining and pausing; part of `make test`
	$(CARGO) test --package cless-loom

fuzz: ## Fuzzes parsers of untrusted input for FUZZ_SECONDS per target, longer than `make test`
	CLESS_FUZZ_SECONDS=$(FUZZ_SECONDS) $(CARGO) test --workspace --lib fuzz

bench: bench-cold bench-proxy bench-micro bench-control bench-feed ## Runs all benches

bench-cold: ## Compares cold starts with raw engine calls; writes target/bench/cold.json
	$(CARGO) build --release --workspace --bins
	sh tests/engine.sh run target/release/cless-bench-cold $(if $(BASELINE),--baseline $(BASELINE))

bench-proxy: ## Compares warm requests with nginx, HAProxy, Envoy, Caddy, Traefik; writes target/bench/proxy.json, proxy.svg
	$(CARGO) build --release --workspace --bins
	$(MAKE) dist
	sh tests/proxies.sh
	CLESS_PROGRAMS=target/dist sh tests/engine.sh run target/release/cless-bench-proxy \
	    $(if $(BASELINE),--baseline $(BASELINE)/cless-data-plane)

bench-micro: ## Compares version choice, route lookup and admission with minimal code; writes target/bench/micro.json
	$(CARGO) build --release --workspace --bins
	target/release/cless-bench-micro

bench-control: ## Measures writes, control plane start and propagation of changes; writes target/bench/control.json
	$(CARGO) build --release --workspace --bins
	sh tests/engine.sh run target/release/cless-bench-control

bench-feed: ## Measures changes to a thousand subscribers; writes target/bench/feed.json
	$(CARGO) build --release --workspace --bins
	sh tests/engine.sh run target/release/cless-bench-feed

dist: ## Builds the data plane as shipped (fat LTO, one codegen unit) in target/dist
	$(CARGO) build --profile dist --package cless-data-plane

check: tools ## Checks formatting, lints, documentation, API style and the pages
	$(CARGO) fmt --all -- --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	$(CARGO) clippy --package cless-data-plane --no-default-features -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps
	cd proto && ../$(TOOLS)/buf lint
	$(CARGO) test --workspace --test guide

guide: ## Writes the generated tables of the pages: flags, settings, metrics
	CLESS_GUIDE=write $(CARGO) test --quiet --workspace --test guide generated_tables

engine: ## Starts a Docker engine if none responds
	sh tests/engine.sh up

engine-down: ## Stops the engine that `make engine` or `make test` started
	sh tests/engine.sh down

tools: ## Installs buf and grpcurl under target/tools
	sh tests/tools.sh

images: ## Builds the test images, for manual use
	$(CARGO) run --quiet --package cless-tests --bin cless-images -- --nginx

clean-images: ## Removes all images that tests, demo and benches built
	$(CARGO) run --quiet --package cless-tests --bin cless-images -- --remove

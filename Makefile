# `make` alone lists the targets. Each one installs what it needs: tools go to .tools/, nothing else is touched, except
# that a missing Debian package is installed with apt when make runs as root (otherwise the line to type is printed).
#
#   ENVOY_VERSION=1.39.0   another Envoy than the pinned one (no pinned checksum)
#   ENVOY_BIN=/path/envoy  an Envoy that is already here

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# An empty ENVOY_BIN= is as good as none.
export ENVOY_BIN ENVOY_VERSION

HARNESS := cargo run --quiet --profile tool --locked --package tidegate-harness --bin tidegate-harness --
SAY := @printf '\n==> %s\n'

.PHONY: help setup setup-rust setup-envoy setup-wasm-bindgen build run demo test test-native test-wasm e2e images \
	container-test compose-up compose-down bench lint audit clean

help: ## This list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: setup-rust setup-envoy setup-wasm-bindgen ## Install all tools the other targets need

setup-rust:
	@./scripts/setup-rust.sh

setup-envoy:
	@./scripts/setup-envoy.sh

setup-wasm-bindgen: setup-rust
	@./scripts/setup-wasm-bindgen.sh

build: ## Build the module, dist/tidegate.wasm
	@./scripts/build.sh

run: build setup-envoy ## Run Envoy with Tidegate and a sample upstream until Ctrl-C (arguments in ARGS)
	$(SAY) "Starting Envoy with envoy/envoy.yaml"
	@$(HARNESS) run $(ARGS)

demo: build setup-envoy ## Show each protection at work, in a minute (arguments in ARGS)
	$(SAY) "Starting the demonstration"
	@$(HARNESS) demo $(ARGS)

test: test-native test-wasm e2e ## Run all tests

test-native: setup-rust ## Run the plugin's tests on this machine, without Envoy
	$(SAY) "Testing the plugin natively"
	@cargo test --locked --package tidegate

test-wasm: setup-wasm-bindgen ## Run the shared test vectors as WebAssembly, in Node
	$(SAY) "Testing the plugin as WebAssembly"
	@cargo test --locked --package tidegate --target wasm32-unknown-unknown --test wasm

e2e: build setup-envoy ## Run the scenarios in a real Envoy
	$(SAY) "Testing in Envoy"
	@cargo test --locked --package tidegate-harness

images: build setup-envoy ## Build the container images tidegate-envoy and tidegate-upstream
	@./scripts/container-images.sh envoy upstream

container-test: build setup-envoy ## Run the scenarios against Envoy in a container
	@./scripts/container-images.sh envoy
	$(SAY) "Testing in Envoy in a container"
	@# Not the adaptive limit's six minutes of load, each scenario alone: a container changes nothing about what they measure.
	@# Nor a hot restart: two containers share no memory.
	@TIDEGATE_ENVOY_IMAGE=tidegate-envoy cargo test --locked --package tidegate-harness -- --skip adaptive:: --skip hot_restart::

compose-up: images ## Start Envoy and the sample upstream as containers, on 127.0.0.1:10000
	@./scripts/compose.sh up --detach

compose-down: ## Stop them
	@./scripts/compose.sh down

bench: build setup-envoy ## Measure what Tidegate adds to a request, next to Envoy's own filters (arguments in ARGS)
	@./scripts/build-bench-filters.sh
	$(SAY) "Measuring"
	@$(HARNESS) bench $(ARGS)

lint: ## Check formatting, Clippy, documentation, dependencies, shell scripts
	@./scripts/lint.sh

audit: ## Check dependencies against the RustSec advisories (fetches them from GitHub)
	@./scripts/setup-lint.sh
	@.tools/lint/bin/cargo-deny --locked check advisories

clean: ## Remove all that was built and installed here
	rm -rf target dist report .tools

#!/usr/bin/env bash
# Every check that runs no code of ours.
set -euo pipefail
source "$(dirname "$0")/lib.sh"

./scripts/setup-rust.sh
say "Formatting"
cargo fmt --all --check
cargo fmt --manifest-path fuzz/Cargo.toml --check
say "Clippy, native"
cargo clippy --locked --workspace --all-targets -- -D warnings
say "Clippy, the module as Envoy runs it"
cargo clippy --locked --package tidegate --lib --target wasm32-wasip1 -- -D warnings
cargo clippy --locked --package tidegate --lib --features bench --target wasm32-wasip1 -- -D warnings
say "Fuzz targets"
# They are checked, not linked: that takes no nightly compiler, and libFuzzer itself need not be built.
CUSTOM_LIBFUZZER_PATH=none/libfuzzer.a cargo check --locked --quiet --manifest-path fuzz/Cargo.toml --target-dir target/fuzz
say "Documentation"
RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps --quiet
say "Licences, sources and duplicates of dependencies"
./scripts/setup-lint.sh
.tools/lint/bin/cargo-deny --locked check bans licenses sources
say "Shell scripts"
have_or_install shellcheck shellcheck
shellcheck --external-sources --source-path=SCRIPTDIR scripts/*.sh .ci/run
say "Lint is clean"

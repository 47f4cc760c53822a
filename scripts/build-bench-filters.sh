#!/usr/bin/env bash
# The modules the benchmark holds Tidegate against, and Tidegate's own bench build, at dist/bench.
set -euo pipefail
source "$(dirname "$0")/lib.sh"

./scripts/setup-rust.sh
say "Building dist/bench"
cargo build --release --locked --package tidegate-bench-filter --examples --target wasm32-wasip1
mkdir -p dist/bench
for module in stock minimal probe; do
    cp "$TARGET_DIR/wasm32-wasip1/release/examples/$module.wasm" dist/bench/
done
# Tidegate itself, timing what it does.
cargo build --release --locked --lib --package tidegate --features bench --target wasm32-wasip1
cp "$TARGET_DIR/wasm32-wasip1/release/tidegate.wasm" dist/bench/timed.wasm

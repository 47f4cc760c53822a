#!/usr/bin/env bash
# The module, at dist/tidegate.wasm.
set -euo pipefail
source "$(dirname "$0")/lib.sh"

./scripts/setup-rust.sh
say "Building dist/tidegate.wasm"
cargo build --release --locked --lib --package tidegate --target wasm32-wasip1
built=$TARGET_DIR/wasm32-wasip1/release/tidegate.wasm
mkdir -p dist
cmp -s "$built" dist/tidegate.wasm || cp "$built" dist/tidegate.wasm
printf 'dist/tidegate.wasm: %d bytes, %d gzipped\n' "$(wc -c <dist/tidegate.wasm)" "$(gzip -9c dist/tidegate.wasm | wc -c)"

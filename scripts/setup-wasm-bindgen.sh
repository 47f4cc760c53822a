#!/usr/bin/env bash
# The runner for tests on wasm32-unknown-unknown, and Node, which it runs them in. Its version must be that of the
# wasm-bindgen library in Cargo.lock, to the digit.
set -euo pipefail
source "$(dirname "$0")/lib.sh"

have_or_install node nodejs
version=$(awk '$1 == "name" && $3 == "\"wasm-bindgen\"" { getline; gsub(/"/, "", $3); print $3 }' Cargo.lock)
[ -n "$version" ] || die "Cargo.lock has no wasm-bindgen"
runner=.tools/bin/wasm-bindgen-test-runner
if [ "$($runner --version 2>/dev/null)" != "wasm-bindgen-test-runner $version" ]; then
    say "Installing wasm-bindgen-test-runner $version (compiles it, a minute or two)"
    # Without optimisation and without the parts that talk to browsers over TLS: half the time to build, and no slower here.
    cargo install --quiet --locked --debug --no-default-features --root .tools --target-dir "$TARGET_DIR/tools" \
        --bin wasm-bindgen-test-runner "wasm-bindgen-cli@$version"
    rm -rf "$TARGET_DIR/tools"
fi

#!/usr/bin/env bash
# The toolchain and the targets named in rust-toolchain.toml.
set -euo pipefail
source "$(dirname "$0")/lib.sh"

command -v cargo >/dev/null || die "Rust is missing. Install rustup as https://rustup.rs describes, then try again."
if ! rustc --version >/dev/null 2>&1; then
    say "Installing the Rust toolchain that rust-toolchain.toml names"
    rustup toolchain install
fi
for target in wasm32-wasip1 wasm32-unknown-unknown; do
    if [ ! -d "$(rustc --print target-libdir --target "$target")" ]; then
        say "Adding the Rust target $target"
        rustup target add "$target" || die "no $target in this Rust. With rustup: rustup target add $target"
    fi
done
have_or_install cc build-essential

#!/usr/bin/env bash
# Prints the path of the Envoy binary: ENVOY_BIN, or the installed one (past its Python launcher, so that signals reach it).
set -euo pipefail
source "$(dirname "$0")/lib.sh"

if [ -n "${ENVOY_BIN:-}" ]; then
    printf '%s\n' "$ENVOY_BIN"
    exit 0
fi
found=(.tools/envoy/lib/python*/site-packages/envoy/_bin/envoy)
[ -x "${found[0]}" ] || die "no Envoy under .tools/envoy. Install it with: make setup"
printf '%s/%s\n' "$PWD" "${found[0]}"

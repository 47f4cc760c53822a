#!/usr/bin/env bash
# Stages both images' files in target/container/ and builds the images named as arguments (envoy, upstream). They come from
# scratch: a binary, the shared libraries it loads, and what Envoy reads. Envoy resolves names itself, without NSS.
set -euo pipefail
source "$(dirname "$0")/lib.sh"

context=target/container

# stage_program FOLDER PROGRAM: the program under usr/local/bin and its libraries at the paths its loader looks for.
stage_program() {
    local library
    install -D -m 755 "$2" "$1/usr/local/bin/$(basename "$2")"
    ldd "$2" | grep -o '/[^ ]*' | sort -u | while read -r library; do
        install -D -m 755 "$library" "$1$library"
    done
}

stage_envoy() {
    local root=$context/envoy certificates=/etc/ssl/certs/ca-certificates.crt
    [ -s dist/tidegate.wasm ] || die "dist/tidegate.wasm is missing. Build it with: make build"
    stage_program "$root" "$(./scripts/envoy-bin.sh)"
    install -D -m 644 dist/tidegate.wasm "$root/tidegate/dist/tidegate.wasm"
    # Inside a container loopback is nobody else's: listen on all its addresses, and find the upstream by name.
    mkdir -p "$root/tidegate/envoy"
    sed -e '/# \(admin\|listener\)$/s/127\.0\.0\.1/0.0.0.0/' -e '/# upstream$/s/127\.0\.0\.1/upstream/' \
        envoy/envoy.yaml >"$root/tidegate/envoy/envoy.yaml"
    if [ -r "$certificates" ]; then
        install -D -m 644 "$certificates" "$root$certificates"
    fi
}

stage_upstream() {
    cargo build --profile tool --locked --package tidegate-harness --bin tidegate-harness
    stage_program "$context/upstream" "$TARGET_DIR/tool/tidegate-harness"
}

./scripts/container-engine.sh
rm -rf "$context"
mkdir -p "$context"/{envoy,upstream}
cp envoy/Dockerfile "$context/Dockerfile"
for image in "$@"; do
    say "Building the image tidegate-$image"
    "stage_$image"
    docker build --quiet --target "$image" --tag "tidegate-$image" "$context" </dev/null
done

#!/usr/bin/env bash
# Runs Compose, the plugin or the older program, on envoy/compose.yaml with the arguments given.
set -euo pipefail
source "$(dirname "$0")/lib.sh"

if docker compose version >/dev/null 2>&1; then
    exec docker compose --file envoy/compose.yaml --project-name tidegate "$@"
elif command -v docker-compose >/dev/null; then
    exec docker-compose --file envoy/compose.yaml --project-name tidegate "$@"
fi
die "neither 'docker compose' nor docker-compose is here"

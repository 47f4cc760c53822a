#!/usr/bin/env bash
# Succeeds where a Docker engine answers.
set -euo pipefail
source "$(dirname "$0")/lib.sh"

command -v docker >/dev/null || die "no Docker client here: containers need one, and an engine"
docker info >/dev/null 2>&1 || die "no Docker engine answers: start one, or set DOCKER_HOST"

# shellcheck shell=bash
# What the other scripts share. Source it first: it also moves to the repository's root.

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit

# shellcheck disable=SC2034 # for the scripts that build
TARGET_DIR=${CARGO_TARGET_DIR:-target}
export DEBIAN_FRONTEND=noninteractive

say() { printf '\n==> %s\n' "$*"; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

# have_or_install COMMAND PACKAGE: installs the Debian package when the command is missing.
have_or_install() {
    command -v "$1" >/dev/null || install_package "$2"
}

# install_package PACKAGE: as root with apt, otherwise says which line does it.
install_package() {
    local line="apt-get update && apt-get install -y --no-install-recommends $1"
    command -v apt-get >/dev/null || die "$1 is missing: install it with this system's package manager"
    [ "$(id -u)" = 0 ] || die "$1 is missing. Install it with: sudo sh -c '$line'"
    say "Installing the Debian package $1"
    { apt-get update -qq && apt-get install -y -qq --no-install-recommends "$1"; } </dev/null >/dev/null \
        || die "this failed: $line"
}

# virtual_environment FOLDER: a fresh Python environment.
virtual_environment() {
    rm -rf "$1"
    have_or_install python3 python3
    if ! python3 -m venv "$1" >/dev/null 2>&1; then
        install_package python3-venv
        rm -rf "$1"
        python3 -m venv "$1" || die "python3 -m venv fails even with python3-venv installed"
    fi
}

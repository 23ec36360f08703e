#!/usr/bin/env bash
# Makes a base image from Debian's packages, for machines that reach Debian but no image registry:
#   image/base.sh NAME          imports it into podman under NAME, which then serves as --build-arg BASE=NAME
#   image/base.sh --into DIR    only the root file system
set -euo pipefail

suite=bookworm
packages=python3,python3-venv,ca-certificates
command -v debootstrap >/dev/null || { echo "image/base.sh: debootstrap is needed; apt-get install debootstrap" >&2; exit 1; }
[ "$(id -u)" = 0 ] || { echo "image/base.sh: debootstrap needs root" >&2; exit 1; }

if [ "${1:-}" = --into ]; then
    debootstrap --variant=minbase --include="$packages" "$suite" "$2" >&2
    exit
fi
name=${1:?image/base.sh NAME, or image/base.sh --into DIR}
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
debootstrap --variant=minbase --include="$packages" "$suite" "$root/base" >&2
tar --create --directory "$root/base" --exclude ./var/cache/apt/archives --exclude ./var/lib/apt/lists . |
    podman import --quiet - "$name"

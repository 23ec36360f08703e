#!/usr/bin/env bash
# Builds the image with the first engine that works: docker, podman, buildah. `make image` calls it.
#   IMAGE=NAME:TAG   what to call it
#   BASE=IMAGE       instead of the Dockerfile's default; `BASE=debian` makes one from Debian's packages (image/base.sh)
set -euo pipefail
cd "$(dirname "$0")/.."

image=${IMAGE:-revocation:dev}
base=${BASE:-}
version=$(sed -n 's/^__version__ = "\(.*\)"/\1/p' revocation/__init__.py)
arguments=(
    --build-arg "VERSION=$version"
    --build-arg "REVISION=$(git rev-parse HEAD 2>/dev/null || echo unknown)"
    --build-arg "CREATED=$(git log -1 --format=%cI 2>/dev/null || echo 1970-01-01T00:00:00Z)"
    --tag "$image"
)

if docker info >/dev/null 2>&1; then
    engine=docker
    build=(docker build)
elif command -v buildah >/dev/null; then
    engine=buildah
    # Isolation by chroot works where containers may not be nested, too. Docker's format has health checks.
    build=(buildah bud --isolation=chroot --format=docker)
elif command -v podman >/dev/null; then
    engine=podman
    build=(podman build --isolation=chroot --format=docker)
else
    echo "image/build.sh: no engine: docker has no daemon here, and neither buildah nor podman is installed." >&2
    echo "  Debian: apt-get install buildah podman runc. Without an engine, image/rootfs.sh proves the same steps." >&2
    exit 1
fi

if [ "$base" = debian ]; then
    base=localhost/revocation-base
    [ "$engine" != docker ] || { echo "image/build.sh: BASE=debian needs podman, not docker" >&2; exit 1; }
    podman image exists "$base" 2>/dev/null || image/base.sh "$base"
fi
if [ -n "$base" ]; then
    arguments+=(--build-arg "BASE=$base")
fi
if [ "$engine" != docker ] && [ "${base#localhost/}" != "$base" ]; then
    arguments+=(--pull=never)
fi
# Behind a proxy that signs with an authority of its own, the build needs this machine's authorities and pip settings.
if [ "$engine" != docker ] && [ -n "${PIP_CERT:-}" ]; then
    arguments+=(--volume /etc/ssl/certs:/etc/ssl/certs:ro)
    [ ! -e /etc/pip.conf ] || arguments+=(--volume /etc/pip.conf:/etc/pip.conf:ro)
fi

echo "Building $image with $engine ..." >&2
"${build[@]}" "${arguments[@]}" .

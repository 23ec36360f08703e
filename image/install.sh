#!/bin/sh
# Installs the service from the source in the current folder into /opt/revocation, with its list of parts (SBOM).
# The Dockerfile runs it in its build stage, and image/rootfs.sh in a root of its own: what one proves, the other does.
# Needs Python >= 3.11 with venv, and nothing else.
set -eu

prefix=/opt/revocation
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore

python3 -m venv "$work/build"
"$work/build/bin/pip" install --quiet -c constraints/build.txt hatchling cyclonedx-bom
"$work/build/bin/pip" wheel --quiet --no-deps --no-build-isolation --wheel-dir "$work/wheels" .

# The pip of the build environment installs; the image gets neither pip nor setuptools.
python3 -m venv --without-pip "$prefix"
set -- "$work"/wheels/revocation-*.whl
"$work/build/bin/pip" --python "$prefix/bin/python" install --quiet --only-binary :all: -c constraints/dev.txt "$1[server]"

mkdir -p /usr/share/sbom
"$work/build/bin/cyclonedx-py" environment --output-reproducible --output-file /usr/share/sbom/revocation.cdx.json \
    "$prefix/bin/python"
# The data folder of an embedded store, owned by the user of the image.
mkdir -p /var/lib/revocation
chown 65532:65532 /var/lib/revocation
chmod 0700 /var/lib/revocation

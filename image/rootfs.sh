#!/usr/bin/env bash
# Does what the Dockerfile does, into an empty folder and without a container engine, and shows that the result works:
#   image/rootfs.sh DIR
# A Debian base (image/base.sh), the same install.sh in it by chroot, then a service as user 65532 on a read-only root,
# which revokes a token and drains. Needs root, debootstrap and unshare.
set -euo pipefail
cd "$(dirname "$0")/.."

root=${1:?image/rootfs.sh DIR: an empty or missing folder}
[ "$(id -u)" = 0 ] || { echo "image/rootfs.sh: needs root, for debootstrap and chroot" >&2; exit 1; }
if [ -e "$root" ] && [ -n "$(ls -A "$root")" ] && [ ! -e "$root/.revocation-base" ]; then
    echo "image/rootfs.sh: $root is not empty; name another folder" >&2
    exit 1
fi

if [ ! -e "$root/.revocation-base" ]; then
    image/base.sh --into "$root"
    touch "$root/.revocation-base"
fi

echo "Installing as the Dockerfile does ..." >&2
rm -rf "$root/opt/revocation" "$root/src"
mkdir "$root/src"
# What the Dockerfile copies: pyproject.toml LICENSE NOTICE README.md, constraints, image/install.sh, revocation, sdk.
cp pyproject.toml LICENSE NOTICE README.md "$root/src/"
mkdir "$root/src/constraints" "$root/src/image"
cp constraints/dev.txt constraints/build.txt "$root/src/constraints/"
cp image/install.sh "$root/src/image/"
cp -r revocation sdk "$root/src/"
cp /etc/resolv.conf "$root/etc/resolv.conf"
[ ! -e /etc/pip.conf ] || cp /etc/pip.conf "$root/etc/pip.conf"
export ROOT=$root
# In a mount namespace of its own, so that nothing stays mounted.
unshare --mount --fork bash -euc '
    mount --rbind /dev "$ROOT/dev"
    mount -t proc proc "$ROOT/proc"
    mount --bind /etc/ssl/certs "$ROOT/etc/ssl/certs"
    chroot "$ROOT" /bin/sh -c "cd /src && image/install.sh"
'
rm -rf "$root/src"

echo "Trying it: read-only root, user 65532 ..." >&2
unshare --mount --pid --fork bash -euc '
    mount --bind "$ROOT" "$ROOT"
    mount --rbind /dev "$ROOT/dev"
    mount -t proc proc "$ROOT/proc"
    mount -t tmpfs -o mode=0700,uid=65532,gid=65532 tmpfs "$ROOT/var/lib/revocation"
    mount -o remount,bind,ro "$ROOT"
    in_root=(env -i PATH=/opt/revocation/bin:/usr/bin:/bin XDG_STATE_HOME=/var/lib LC_ALL=C.UTF-8
        REVOCATION_LISTEN=unix:///var/lib/revocation/s REVOCATION_ADDRESS=unix:/var/lib/revocation/s
        "$(command -v chroot)" --userspec=65532:65532 "$ROOT")
    "${in_root[@]}" revocation --version
    if "${in_root[@]}" python -c "open(\"/etc/x\", \"w\")" 2>/dev/null; then echo "the root can be written" >&2; exit 1; fi
    "${in_root[@]}" revocation serve --embedded &
    service=$!
    trap "kill -9 $service 2>/dev/null || true" EXIT
    for _ in $(seq 300); do "${in_root[@]}" revocation status >/dev/null 2>&1 && break; sleep 0.1; done
    "${in_root[@]}" revocation status
    "${in_root[@]}" revocation revoke token --jti some-token --expires-at "$(( $(date +%s) + 600 ))"
    kill -TERM "$service"
    wait "$service"
    trap - EXIT
'
echo "The file system of the image is in $root, and works." >&2

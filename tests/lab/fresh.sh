#!/bin/bash
# Tries this commit the way a newcomer would: a bare Debian 12 is made, gets Rust, make
# and a clone of HEAD, and follows the README. `make test-fresh` calls it. Needs root.
# What is done inside, and what must hold, is in fresh-inside.sh.
#
#   TEST_FRESH_FULL=1   runs `make test` twice in it, the second time on what the first left
#   TEST_FRESH_KEEP=1   keeps the Debian for a look
#
# From the host come the Rust toolchain, the network, the ways to reach registries (apt's
# sources and proxies, cargo's configuration, additional certificates) and nothing else.
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin
repo=$(realpath "$(dirname "$(realpath "$0")")/../..")

die() { echo "fresh: $*" >&2; exit 1; }

[ "$(id -u)" = 0 ] || die "root is needed to make and enter a Debian of its own: sudo -E make test-fresh"
[ -z "$(git -C "$repo" -c safe.directory='*' status --porcelain)" ] ||
    echo "fresh: note: what is not committed is not tested"

root=$(mktemp -d /var/tmp/pengx-fresh.XXXXXX)
inside=''
finish() {
    local status=$?
    trap - EXIT
    trap '' INT TERM HUP
    # Everything inside lives in namespaces of that one process: they end with it, and so
    # do all processes and mounts.
    if [ -n "$inside" ]; then
        kill -KILL "$inside" 2>/dev/null || true
        wait "$inside" 2>/dev/null || true
    fi
    if [ -n "${TEST_FRESH_KEEP:-}" ]; then echo "fresh: kept in $root"
    else rm -rf --one-file-system "$root"; fi
    exit "$status"
}
trap finish EXIT
trap 'exit 143' INT TERM HUP

# ---- a bare Debian --------------------------------------------------------------

SECONDS=0
"$repo/tests/lab/bare-debian.sh" ca-certificates,make "$root" || die "mmdebstrap could not make a Debian 12"
cp -L /etc/resolv.conf /etc/hosts "$root/etc/"
if compgen -G '/usr/local/share/ca-certificates/*.crt' >/dev/null; then
    cp /usr/local/share/ca-certificates/*.crt "$root/usr/local/share/ca-certificates/"
    chroot "$root" update-ca-certificates >/dev/null 2>&1
fi
mkdir -p "$root"/opt/rust "$root"/root/.cargo
for name in config.toml config; do
    file=${CARGO_HOME:-$HOME/.cargo}/$name
    [ ! -f "$file" ] || cp "$file" "$root/root/.cargo/"
done
git -c safe.directory='*' clone --quiet --no-local "$repo" "$root/root/pengx"
echo "== bare Debian: ok in $SECONDS s"

# ---- into it --------------------------------------------------------------------

environment=(HOME=/root TERM="${TERM:-dumb}" LANG=C.UTF-8 DEBIAN_FRONTEND=noninteractive
    PATH=/opt/rust/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
    TEST_FRESH_FULL="${TEST_FRESH_FULL:-}")
while read -r name; do
    environment+=("$name=${!name}")
done < <(compgen -e | grep -iE '^((https?|ftp|all|no)_proxy|CARGO_(HTTP|NET|SOURCE|REGISTRIES)_.*)$' |
    grep -v '_TOKEN$')

# shellcheck disable=SC2016 # expanded by the inner shell
enter='set -e
    root=$1 toolchain=$2; shift 2
    mount --bind "$root" "$root"
    mount --bind "$toolchain" "$root/opt/rust"
    mount -o remount,bind,ro "$root/opt/rust"
    mount -t proc proc "$root/proc"
    mount --rbind /sys "$root/sys"
    mount -t tmpfs -o mode=755 dev "$root/dev"
    for node in null zero full random urandom tty kvm fuse net/tun; do
        [ -e "/dev/$node" ] || continue
        mkdir -p "$(dirname "$root/dev/$node")"
        touch "$root/dev/$node"
        mount --bind "/dev/$node" "$root/dev/$node"
    done
    mkdir "$root/dev/pts" "$root/dev/shm"
    mount -t devpts -o newinstance,ptmxmode=666 devpts "$root/dev/pts"
    ln -s pts/ptmx "$root/dev/ptmx"
    mount -t tmpfs shm "$root/dev/shm"
    for link in fd:/proc/self/fd stdin:/proc/self/fd/0 stdout:/proc/self/fd/1 stderr:/proc/self/fd/2; do
        ln -s "${link#*:}" "$root/dev/${link%%:*}"
    done
    mount -t tmpfs run "$root/run"
    # Not chroot: in one the kernel makes no user namespaces.
    cd "$root"
    mkdir -p mnt
    pivot_root . mnt
    umount -l /mnt
    exec env -i "$@"'

unshare --mount --propagation private --pid --fork --kill-child \
    bash -c "$enter" bash "$root" "$(rustc --print sysroot)" "${environment[@]}" \
    /root/pengx/tests/lab/fresh-inside.sh </dev/null &
inside=$!
wait "$inside"

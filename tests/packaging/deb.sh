#!/bin/bash
# Installs, upgrades, removes and purges the Debian package in a Debian 12 of its own, whose
# process 1 is a real systemd, in namespaces of this machine's kernel. `make test` calls it.
#
#   deb.sh OLD.deb NEW.deb
#
# Needs root. What is done inside, and what must hold, is in deb-inside.sh. The bare Debian
# comes from the mirror once and is kept in PENGX_LAB_CACHE.
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin
here=$(dirname "$(realpath "$0")")
old=$(realpath "${1:?which old package?}") new=$(realpath "${2:?which new package?}")
cache=${PENGX_LAB_CACHE:-$here/../../target/lab}

die() { echo "deb: $*" >&2; exit 1; }
# Said aloud, and counted by whoever reads the log; nothing of it passes silently.
cannot() { echo "deb: NOT RUN, 1 test of the installed package: $*"; exit 0; }

[ "$(id -u)" = 0 ] || cannot "root is needed to boot a Debian in namespaces"
unshare --mount --cgroup --net --ipc --uts --pid --fork true 2>/dev/null ||
    cannot "this machine lets root have no namespaces"
# shellcheck disable=SC2016 # expanded by the inner shell
unshare --mount --propagation private sh -c 'mount -t cgroup2 cgroup2 /mnt && mkdir /mnt/pengx-deb-$$ && rmdir /mnt/pengx-deb-$$' \
    2>/dev/null || cannot "this machine's cgroup2 cannot be mounted and written"

root=$(mktemp -d /var/tmp/pengx-deb.XXXXXX)
name=${root##*/}
booted='' init=''
finish() {
    local status=$?
    trap - EXIT
    trap '' INT TERM HUP
    # With its process 1 go all processes and mounts of the namespaces.
    [ -z "$init" ] || kill -KILL "$init" 2>/dev/null || true
    if [ -n "$booted" ]; then
        kill -KILL "$booted" 2>/dev/null || true
        wait "$booted" 2>/dev/null || true
    fi
    # shellcheck disable=SC2016 # expanded by the inner shell
    unshare --mount --propagation private sh -c 'mount -t cgroup2 cgroup2 /mnt
        for _ in 1 2 3 4 5 6 7 8 9 10; do
            [ -d "/mnt/$1" ] || exit 0
            find "/mnt/$1" -depth -type d -exec rmdir {} + 2>/dev/null && exit 0
            sleep 0.5
        done
        echo "deb: the cgroup $1 could not be removed" >&2' sh "$name"
    rm -rf --one-file-system "$root"
    exit "$status"
}
trap finish EXIT
trap 'exit 143' INT TERM HUP

# ---- a Debian with systemd ---------------------------------------------------------

packages=systemd,systemd-sysv,dbus,curl,procps,man-db,libvirt0,libpq5,qemu-utils
base=$cache/debian-$(sha256sum <<<"$packages" | cut -c1-8).tar
if [ ! -e "$base" ]; then
    mkdir -p "$cache"
    "$here/../lab/bare-debian.sh" "$packages" "$base.part.$$" --format=tar ||
        { rm -f "$base.part.$$"; die "mmdebstrap could not make a Debian 12"; }
    mv "$base.part.$$" "$base"
fi
tar -C "$root" -xf "$base"
install -D -m 644 "$old" "$root/srv/old.deb"
install -D -m 644 "$new" "$root/srv/new.deb"
install -D -m 755 "$here/deb-inside.sh" "$root/srv/deb-inside.sh"
# There is no console to log in at.
ln -s /dev/null "$root/etc/systemd/system/console-getty.service"

# ---- boot --------------------------------------------------------------------------

# shellcheck disable=SC2016 # expanded by the inner shells
unshare --mount --propagation private bash -c '
    set -e
    mount -t cgroup2 cgroup2 /mnt
    mkdir "/mnt/$2"
    echo $$ >"/mnt/$2/cgroup.procs"
    umount /mnt
    exec unshare --cgroup --net --ipc --uts --pid --fork --kill-child bash -c '\''
        set -e
        cd "$1"
        mount --bind . .
        cd "$1"
        mount -t proc proc proc
        mount -t sysfs -o ro sysfs sys
        mount -t cgroup2 cgroup2 sys/fs/cgroup
        mount -t tmpfs -o mode=755 dev dev
        for node in null zero full random urandom tty; do
            touch "dev/$node"
            mount --bind "/dev/$node" "dev/$node"
        done
        mkdir dev/pts dev/shm
        mount -t devpts -o newinstance,ptmxmode=666,mode=620,gid=5 devpts dev/pts
        ln -s pts/ptmx dev/ptmx
        mount -t tmpfs shm dev/shm
        for link in fd:/proc/self/fd stdin:/proc/self/fd/0 stdout:/proc/self/fd/1 stderr:/proc/self/fd/2; do
            ln -s "${link#*:}" "dev/${link%%:*}"
        done
        touch dev/console
        mount -t tmpfs -o mode=755 run run
        hostname pengx-deb
        mkdir -p mnt
        pivot_root . mnt
        umount -l /mnt
        exec env -i container=pengx PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --log-target=journal
    '\'' bash "$1"
' bash "$root" "$name" </dev/null >"$root/srv/boot.log" 2>&1 &
booted=$!
for _ in $(seq 300); do
    kill -0 "$booted" 2>/dev/null || { cat "$root/srv/boot.log" >&2; cannot "systemd could not be started in namespaces; its words are above"; }
    init=$(tr -d ' ' <"/proc/$booted/task/$booted/children" 2>/dev/null) || init=''
    [ -z "$init" ] || [ "$(cat "/proc/$init/comm" 2>/dev/null)" != systemd ] || break
    sleep 0.1
done
[ -n "$init" ] || die "systemd did not come up"

nsenter -t "$init" -m -u -i -n -p -C -- env -i HOME=/root LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive \
    PATH=/usr/sbin:/usr/bin:/sbin:/bin /srv/deb-inside.sh </dev/null

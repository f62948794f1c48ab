#!/bin/bash
# `make test-xen-two`: boots two Xen hosts with a link and shared storage, and runs in the first one the tests that move
# guests between them. Their hypervisor is that of build-shadow.sh: Debian's cannot move PV guests that run.
#   two.sh [FILTER...]   only tests whose names have one of these words in them
# What went wrong leaves its logs in $PENGX_LAB_CACHE/xen-logs.
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin
here=$(dirname "$(realpath "$0")")
repo=$(realpath "$here/../..")
cd "$repo"
export PENGX_LAB_CACHE=${PENGX_LAB_CACHE:-$repo/target/lab}
image=$PENGX_LAB_CACHE/xen
logs=$PENGX_LAB_CACHE/xen-logs
base=$(mktemp -d /var/tmp/pengx-two.XXXXXX)

die() { echo "test-xen-two: $*" >&2; exit 1; }
on() { timeout "$2" "$here/dom0.sh" ssh "$base/$1" "${@:3}"; }
finish() {
    local status=$? host
    trap - EXIT
    trap '' INT TERM HUP
    [ "$status" = 0 ] || rm -rf "$logs"
    for host in 1 2; do
        [ -d "$base/$host" ] || continue
        [ "$status" = 0 ] || "$here/dom0.sh" logs "$base/$host" "$logs/$host"
        "$here/dom0.sh" stop "$base/$host" || status=1
    done
    rm -rf "$base"
    exit "$status"
}
trap finish EXIT
trap 'exit 143' INT TERM HUP
phase() { echo "== two Xen hosts, $1: ok in $SECONDS s"; SECONDS=0; }

SECONDS=0
"$here/build.sh"
"$here/build-shadow.sh"
phase "image and hypervisor"
program=$("$here/tree.sh" "$base/tree.tar" test main)
pengx=$(realpath "$(dirname "$program")/../pengx")
phase "tests built"

for host in 1 2; do
    "$here/dom0.sh" start -o $$ -d "$base/tree.tar" -x "$PENGX_LAB_CACHE/xen-shadow" -l "$base/link" -n $host "$base/$host" &
done
for host in 1 2; do wait -n || die "a host does not start"; done
for host in 1 2; do
    on $host 300 "tar -xf /dev/vdc -C / && ln -s '$pengx' /usr/bin/pengx && mkdir -p /etc/pengx /srv/shared &&
        echo 'data_dir = \"/var/lib/pengx-two\"' >/etc/pengx/pengx.toml &&
        ssh-keygen -q -t ed25519 -N '' -f /root/.ssh/pengx"
    "$here/dom0.sh" put "$base/$host" "$image/key" /root/.ssh/lab
    sed 's/^dom0 \(.*\)/10.99.0.1 \1\n10.99.0.2 \1/' "$image/known_hosts" >"$base/known_hosts"
    "$here/dom0.sh" put "$base/$host" "$base/known_hosts" /root/.ssh/known_hosts
    on $host 60 cat /root/.ssh/pengx.pub >"$base/$host.pub"
done
"$here/dom0.sh" put "$base/1" "$base/2.pub" /root/.ssh/peer.pub
"$here/dom0.sh" put "$base/2" "$base/1.pub" /root/.ssh/peer.pub
on 1 120 'echo "/srv/shared 10.99.0.0/24(rw,no_root_squash,no_subtree_check,fsid=1)" >/etc/exports && systemctl start nfs-server'
on 2 120 'mount -t nfs -o vers=4.2 10.99.0.1:/srv/shared /srv/shared' || die "host 2 does not reach the storage of host 1"
phase "both are up"

[ $# -gt 0 ] || set -- xen::migration::
on 1 3600 "cd '$repo' && PENGX_LAB_CACHE=/usr/local/share/pengx-xen RUST_BACKTRACE=1 \
    '$program' --ignored --nocapture --test-threads=1 --skip an_order_of ${*}" &
# A signal is heard while a shell waits.
wait $! || die "tests failed"
phase "tests named $*"

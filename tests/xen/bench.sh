#!/bin/bash
# `make bench-xen`: boots a Xen control domain, and measures in it what pengx adds to `xl`.
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin
here=$(dirname "$(realpath "$0")")
cd "$here/../.."
export PENGX_LAB_CACHE=${PENGX_LAB_CACHE:-$PWD/target/lab}
base=$(mktemp -d /var/tmp/pengx-xen.XXXXXX)
dom0=$base/dom0
finish() {
    local status=$?
    trap - EXIT
    [ ! -d "$dom0" ] || "$here/dom0.sh" stop "$dom0" || status=1
    rm -rf "$base"
    exit "$status"
}
trap finish EXIT
trap 'exit 143' INT TERM HUP

"$here/build.sh"
program=$("$here/tree.sh" "$base/tree.tar" bench xen)
"$here/dom0.sh" start -o $$ -d "$base/tree.tar" "$dom0"
timeout 300 "$here/dom0.sh" ssh "$dom0" 'tar -xf /dev/vdc -C /'
timeout 1800 "$here/dom0.sh" ssh "$dom0" "'$program' --bench" &
# A signal is heard while a shell waits.
wait $!

#!/bin/bash
# `make test-xen`: boots a Xen control domain, and runs in it what can be run nowhere else:
# the tests of this tree that drive `xl`, and the Debian package, which is asked from outside.
#   test.sh [-r] [FILTER...]   only tests whose names have one of these words in them
# -r: in the end the control domain itself is ended, in the middle of operations.
# What went wrong leaves its logs in $PENGX_LAB_CACHE/xen-logs.
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin
here=$(dirname "$(realpath "$0")")
repo=$(realpath "$here/../..")
cd "$repo"
export PENGX_LAB_CACHE=${PENGX_LAB_CACHE:-$repo/target/lab}
logs=$PENGX_LAB_CACHE/xen-logs
restart=''
if [ "${1:-}" = -r ]; then restart=yes && shift; fi
base=$(mktemp -d /var/tmp/pengx-xen.XXXXXX)
dom0=$base/dom0 failed=()

die() { echo "test-xen: $*" >&2; exit 1; }
in_dom0() { timeout "$1" "$here/dom0.sh" ssh "$dom0" "${@:2}"; }
finish() {
    local status=$?
    trap - EXIT
    trap '' INT TERM HUP
    if [ "$status" != 0 ] && [ -d "$dom0" ]; then
        rm -rf "$logs"
        "$here/dom0.sh" logs "$dom0" "$logs"
    fi
    [ ! -d "$dom0" ] || "$here/dom0.sh" stop "$dom0" || status=1
    rm -rf "$base"
    exit "$status"
}
trap finish EXIT
trap 'exit 143' INT TERM HUP
phase() { echo "== Xen, $1: ok in $SECONDS s"; SECONDS=0; }

# ---- what is run ----------------------------------------------------------------------

SECONDS=0
"$here/build.sh"
phase "image"
program=$("$here/tree.sh" "$base/tree.tar" test main)
pengx=$(realpath "$(dirname "$program")/../pengx")
package=$(make --no-print-directory deb PROFILE=dev | tail -n 1)
phase "tests built"

"$here/dom0.sh" start -o $$ -f 8000 -d "$base/tree.tar" "$dom0"
in_dom0 300 'tar -xf /dev/vdc -C /'
phase "dom0 is up"

# ---- tests in it ----------------------------------------------------------------------

[ $# -gt 0 ] || set -- xen:: laws_of_xl hypervisor::xl::
# Those of whole sites want Xen for themselves; the laws of the backend are about guests of their own.
sites=() laws=()
for word in "$@"; do
    in_dom0 200 "'$program' --list --ignored '$word' 2>/dev/null | grep -q ': test$'" ||
        echo "test-xen: NOT RUN: tests named '$word': this tree has none"
    case $word in xen::*) sites+=("$word") ;; *) laws+=("$word") ;; esac
done
tests() { # THREADS WORD...
    [ $# -gt 1 ] || return 0
    in_dom0 7200 "cd '$repo' && PENGX_LAB_CACHE=/usr/local/share/pengx-xen RUST_BACKTRACE=1 \
        '$program' --ignored --test-threads=$1 ${*:2}" &
    # A signal is heard while a shell waits.
    wait $! || failed+=("tests")
    phase "tests named ${*:2}"
}
tests 2 "${laws[@]}"
tests 1 "${sites[@]}"

# ---- the package, asked from outside --------------------------------------------------

"$here/installed.sh" "$dom0" "$package" || failed+=("the package")
phase "the installed package, asked from here"

# ---- the end of dom0 itself -----------------------------------------------------------

if [ -n "$restart" ]; then
    "$here/restart.sh" "$dom0" "$pengx" || failed+=("the end of dom0")
    phase "the end of dom0"
fi

[ ${#failed[@]} -eq 0 ] || die "failed: ${failed[*]}"

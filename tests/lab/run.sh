#!/bin/bash
# Runs target/release/pengx on a hypervisor that this machine can offer, until SIGTERM,
# SIGINT or SIGHUP. `make run` calls it; what it keeps is in .lab of the checkout.
#
#   .lab/data    the server's data directory     .lab/store   a directory for a storlink
#
# The hypervisor is the first of these that answers:
#   1. the host's own libvirt, unless its guests could not read .lab/store;
#   2. a private libvirtd (libvirtd.sh), which is stopped with the server;
#   3. the fake of pengx: everything but running guests.
# PENGX_HYPERVISOR overrules that; the other PENGX_ variables reach the server as well.
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin
cd "$(dirname "$(realpath "$0")")/../.."
repo=$PWD here=$PWD/tests/lab lab=$PWD/.lab
server_program=target/release/pengx
template=bed05d84-7c44-4720-9588-57cbd8ecef8c

die() { echo "run: $*" >&2; exit 1; }

[ -x "$server_program" ] || die "$server_program is not there: cargo build --release"
mkdir -p "$lab/data" "$lab/store"
exec 8>"$lab/lock"
flock -n 8 || die "this checkout already runs a server (it holds $lab/lock)"

# Sockets need a short path on a local file system, and definitions of VMs shall outlive
# a reboot as the database does: so a directory of this checkout in /var/tmp.
private=/var/tmp/pengx-lab-$(id -u)-$(printf %s "$repo" | sha256sum | cut -c1-8)
server='' own_libvirt='' stops=0

finish() {
    local status=$?
    trap - EXIT
    trap '' INT TERM HUP
    [ -z "$own_libvirt" ] || "$here/libvirtd.sh" stop "$private" 8>&- || true
    rm -f "$lab/server.pid"
    exit "$status"
}
# The first signal asks the server to end, the second one insists.
stop_server() {
    stops=$((stops + 1))
    [ -n "$server" ] || exit 143
    if [ "$stops" = 1 ]; then kill -TERM "$server"; else kill -KILL "$server"; fi 2>/dev/null || true
}
trap finish EXIT
trap stop_server INT TERM HUP

# ---- which hypervisor -----------------------------------------------------------

answers() { LIBVIRT_AUTOSTART=0 timeout 5 virsh -q -c "$1" version </dev/null >/dev/null 2>&1; }

# The guests of a system libvirt run as a user of their own.
anybody_can_reach() {
    local dir=$1
    while [ "$dir" != / ]; do
        case $(stat -c %A "$dir") in *x) ;; *t) ;; *) return 1 ;; esac
        dir=$(dirname "$dir")
    done
}

choose_hypervisor() {
    local why='no libvirt of the host answers' settings
    if [ -n "${PENGX_HYPERVISOR:-}" ]; then
        hypervisor=$PENGX_HYPERVISOR told="as PENGX_HYPERVISOR says"
        return
    fi
    if command -v virsh >/dev/null; then
        if answers qemu:///system; then
            hypervisor=qemu:///system told="the host's libvirt"
            if anybody_can_reach "$lab/store"; then return; fi
            why="guests of the host's libvirt could not read $lab/store"
        fi
        if [ "$(id -u)" != 0 ] && answers qemu:///session; then
            hypervisor=qemu:///session told="your libvirt session"
            return
        fi
        # Ours from here on: a signal may come while it starts.
        own_libvirt=yes
        if settings=$("$here/libvirtd.sh" start -o $$ "$private" 8>&-); then
            hypervisor=$(sed -n "s/^LIBVIRT_URI='\(.*\)'$/\1/p" <<<"$settings")
            told="a private libvirtd: $why"
            return
        fi
    fi
    hypervisor=fake:/// told="a fake, so guests do not really run: no libvirt can be started here"
}

# ---- what the server finds --------------------------------------------------------

golden=$lab/golden.qcow2
"$here/build-guest.sh" -o "$golden" 8>&-
image=$lab/store/$template.qcow2
if [ ! -e "$image" ]; then
    cp --reflink=auto "$golden" "$image.new"
    chmod 644 "$image.new"
    mv "$image.new" "$image"
fi

choose_hypervisor

# Finding out what boots takes ten seconds where KVM is there and does not work.
domain_type=
boot=$(cat /proc/sys/kernel/random/boot_id)
[ "$(cut -d' ' -f1 "$lab/accel" 2>/dev/null)" != "$boot" ] || domain_type=$(cut -d' ' -f2 "$lab/accel")
if [ -z "$domain_type" ]; then
    case $("$here/accel.sh" "$golden" 8>&-) in kvm) domain_type=kvm ;; *) domain_type=qemu ;; esac
    echo "$boot $domain_type" >"$lab/accel"
fi

{
    echo "# Written by tests/lab/run.sh at each start: changes here are lost."
    echo "listen = '127.0.0.1:8000'"
    echo "hypervisor = '$hypervisor'"
    echo "data_dir = '$lab/data'"
    echo "authorized_keys = '$lab/data/authorized_keys'"
    case $hypervisor in
        qemu*)
            echo "[libvirt]"
            echo "domain_type = '$domain_type'"
            echo "[bridges]"
            for bridge in xenbr0 xenbr1; do
                # A session may not use the host's bridges.
                case $hypervisor in *///session*) ;; *) [ ! -d "/sys/class/net/$bridge" ] || continue ;; esac
                echo "$bridge = 'user'"
            done ;;
    esac
} >"$lab/pengx.toml"

cat <<FACTS
hypervisor: $hypervisor ($told)
guests run with: $([ "$domain_type" = kvm ] && echo KVM || echo "QEMU's software emulation")
storlink directory: $lab/store
template image in it: $template.qcow2
configuration: $lab/pengx.toml
FACTS

# ---- the server -------------------------------------------------------------------

[ "$stops" = 0 ] || exit 143
setpriv --pdeathsig TERM "$server_program" serve --config "$lab/pengx.toml" &
server=$!
echo "$server" >"$lab/server.pid"
# A signal interrupts `wait`; the loop ends when the server has.
while kill -0 "$server" 2>/dev/null; do wait "$server" || true; done
wait "$server"

#!/bin/bash
# The part of fresh.sh that runs in the bare Debian, as process 1 of its own there. Not
# meant for any other place.
#
# `make run`; the README's commands between the marks <!-- walk --> and <!-- /walk -->,
# to the letter; while they run a VM it must be really alive, and in the end off;
# nothing may be left running; `make run` again knows the VM; `make test`.
set -euo pipefail
cd "$(dirname "$0")/../.."
api=http://127.0.0.1:8000
log=/root/run.log walk=/root/walk make=''

die() { echo "fresh: $*" >&2; [ ! -s "$log" ] || { echo "--- $log"; tail -n 40 "$log"; } >&2; exit 1; }
phase() { echo "== $1: ok in $SECONDS s"; SECONDS=0; }

# Waits up to $1 seconds for a command that succeeds.
within() {
    local deadline=$((EPOCHSECONDS + $1))
    shift
    until "$@"; do
        [ "$EPOCHSECONDS" -lt "$deadline" ] || return 1
        sleep 0.3
    done
}

# ---- what the API says ----------------------------------------------------------

# Text of the first element $1 in the input.
element() { sed -n "s|.*<$1>\([^<]*\)</$1>.*|\1|p" | head -n 1; }
# The ids of all elements $1 in the input.
ids() { grep -oE "<$1 id=['\"][^'\"]+" | sed "s/.*['\"]//" || true; }
read_api() { curl -sSf --max-time 30 "$api$1"; }
status_of() { read_api "/vms/$1/" | element status; }
has_status() { [ "$(status_of "$1")" = "$2" ]; }

# ---- what is true ---------------------------------------------------------------

beat() { tests/lab/heartbeat.sh "$1" | sed -n 's/^PENGX-HB.* seq=0*\([0-9]*\).*/\1/p'; }
beats() { [ -n "$(beat "$1" 2>/dev/null)" ]; }
beats_beyond() { [ "$(beat "$1")" -gt "$2" ]; }
left_running() {
    local comm
    for comm in /proc/[0-9]*/comm; do
        grep -shE '^(pengx|libvirtd|qemu-system)' "$comm" || true
    done
}
nothing_runs() { [ -z "$(left_running)" ]; }

check_alive() { # VM
    local image port banner
    # The walk makes one VM with one disk, beside the template's image.
    image=$(find .lab/store -name '*.qcow2' ! -name 'bed05d84-*')
    [ -f "$image" ] || die "the disk of VM $1 is not in .lab/store, or not alone"
    within 120 beats "$image" || die "VM $1 is RUNNING, and its guest never wrote to its disk"
    within 30 beats_beyond "$image" "$(beat "$image")" || die "the guest of VM $1 stopped writing to its disk"
    port=$(read_api "/vms/$1/" | element vnc_port)
    exec 5<>"/dev/tcp/127.0.0.1/$port" || die "nobody listens on the VNC port '$port' of VM $1"
    read -r -t 10 -u 5 banner || true
    exec 5>&-
    [ "$banner" = 'RFB 003.008' ] || die "VNC port $port of VM $1 says '$banner'"
    echo "fresh: VM $1 runs: heartbeat $(beat "$image"), VNC on port $port"
}

# Called after each block of the walk, in the walk's own shell.
after_block() {
    local vm
    for vm in $(read_api /vms/ | ids vm); do
        if [ ! -e "/root/alive.$vm" ] && has_status "$vm" RUNNING; then
            check_alive "$vm"
            : >"/root/alive.$vm"
        fi
    done
}

# ---- steps ----------------------------------------------------------------------

start_server() {
    : >"$log"
    make run >"$log" 2>&1 &
    make=$!
    within 1800 said_ready_or_ended || die "make run did not say that it listens, within 30 minutes"
    grep -q '^pengx listening on ' "$log" || die "make run ended before it listened"
    grep -E '^(hypervisor|guests run with):' "$log"
}
said_ready_or_ended() { grep -q '^pengx listening on ' "$log" || ! kill -0 "$make" 2>/dev/null; }

# $1: the process that gets the signal; $2: what make may answer
stop_server() {
    local status=0
    kill -TERM "$1"
    wait "$make" || status=$?
    make=''
    case " $2 " in *" $status "*) ;; *) die "after SIGTERM make run ended with $status" ;; esac
    within 5 nothing_runs || die "still there after the server's end: $(left_running | sort | uniq -c)"
}

# The README's blocks, each followed by a look at what it did.
extract_walk() {
    awk '/^<!-- walk -->$/ { inside = 1 } /^<!-- \/walk -->$/ { inside = 0 }
         code && /^```/ { code = 0; print "after_block"; next }
         inside && /^```sh$/ { code = 1; next }
         code' README.md
}

SECONDS=0
start_server
phase "make run"

extract_walk >"$walk"
grep -q curl "$walk" || die "README.md has no commands between <!-- walk --> and <!-- /walk -->"
export api log
for name in die element ids read_api status_of has_status within beat beats beats_beyond check_alive after_block; do
    export -f "${name?}"
done
bash -eu "$walk" || die "the README's commands failed"
compgen -G '/root/alive.*' >/dev/null || die "the README's commands never left a VM running"
vms=$(read_api /vms/ | ids vm)
for vm in $vms; do
    has_status "$vm" SHUTDOWN || die "after the README's commands VM $vm is $(status_of "$vm"), not SHUTDOWN"
done
phase "the README's walk"

stop_server "$(cat .lab/server.pid)" 0
phase "stop"

start_server
[ "$(read_api /vms/ | ids vm)" = "$vms" ] || die "the second make run does not list the same VMs"
# Here make itself gets the signal, passes it on, and dies of it.
stop_server "$make" "0 2 143"
phase "make run again"

make test
phase "make test"
if [ -n "${TEST_FRESH_FULL:-}" ]; then
    make test
    phase "make test again"
fi
# The tests' daemons are ended by watchers, in their own time.
within 60 nothing_runs || die "left by make test: $(left_running | sort | uniq -c)"
echo "fresh: all is well"

#!/bin/bash
# A Xen control domain (dom0) in QEMU, from the image that build.sh makes; as many at once
# as memory allows, 2 GiB each. Needs no hardware virtualisation, and no root.
#
#   dom0.sh start [-o PID] [-f PORT]... [-d DISK] [-x XEN] [-l LINK -n NUMBER] DIR   returns when `xl list` answers in it
#   dom0.sh ssh DIR COMMAND...                 as root in it, like ssh
#   dom0.sh put DIR FILE... TARGET             copies into it (directories, too)
#   dom0.sh get DIR FILE... TARGET             copies out of it
#   dom0.sh port DIR PORT                      the port here that leads to PORT there
#   dom0.sh logs DIR TARGET                    what Xen, it and QEMU say of it, into a directory that is made
#   dom0.sh reset DIR                          ends it as if its plug was pulled, and starts it again with the same disks
#   dom0.sh stop DIR
#
# DISK is a file that dom0 reads as /dev/vdc: much faster than put. Volume group vg0 is there.
# XEN is another hypervisor than that of the image. Two with one LINK, a path, reach each other: number 1 is dom0-1 with
# the address 10.99.0.1 then, and number 2 is dom0-2 with 10.99.0.2.
# DIR is made by start and removed by stop; it ends with process -o (else the caller), too.
# There are in it: serial.log, the console of Xen and of dom0; qemu.log. If QEMU ends by
# itself they stay. Each start is from the same image: nothing that was written remains.
# PENGX_XEN_IMAGE is the directory of the image, else it is $PENGX_LAB_CACHE/xen.
set -euo pipefail
here=$(dirname "$(realpath "$0")")
image=${PENGX_XEN_IMAGE:-${PENGX_LAB_CACHE:-$here/../../target/lab}/xen}
boot_seconds=400

die() { echo "dom0: $*" >&2; exit 1; }

# ---- inside: the keeper is QEMU's parent, and all that is in the directory is its own ----

keep() { # OWNER DISK XEN LINK NUMBER [PORT...]
    local owner=$1 disk=$2 hypervisor=$3 link=$4 number=$5 more=() peer=() port qemu owned forwards=''
    local accel=tcg,tb-size=512 cpu=max,+svm,+npt
    # With emulated XSAVE, registers of busy domains get mixed up.
    local xen="console=com1 com1=115200 dom0_mem=768M,max:768M noreboot smap=0 smep=0 spec-ctrl=no xpti=no pv-l1tf=0"
    local linux="root=/dev/vda rw console=hvc0 net.ifnames=0 mitigations=off quiet systemd.show_status=0"
    shift 5
    [ -z "$disk" ] || more=(-drive "file=$disk,format=raw,if=virtio,readonly=on")
    if [ -n "$link" ]; then
        peer=(-netdev "dgram,id=link,local.type=unix,local.path=$link.$number,remote.type=unix,remote.path=$link.$((3 - number))"
            -device "virtio-net-pci,netdev=link,romfile=,mac=52:54:00:99:00:0$number")
    fi
    # Some machines have a KVM that emulates what the processor lacks. Xen does not boot on it.
    if [ -w /dev/kvm ] && grep -qwE 'vmx|svm' /proc/cpuinfo; then accel=kvm cpu=host; else xen+=" xsave=0"; fi
    qemu='' owned=''
    trap 'finish' EXIT
    trap 'exit 143' TERM INT HUP
    for port in 22 "$@"; do forwards+=",hostfwd=tcp:127.0.0.1:0-10.0.2.9:$port"; done
    mkfifo monitor
    qemu-img create -q -f qcow2 -b "$image/dom0.img" -F raw root.qcow2
    truncate -s 8G data.img
    setpriv --pdeathsig KILL qemu-system-x86_64 -machine pc -accel "$accel" -cpu "$cpu" -smp 2 -m 2048 \
        -nodefaults -no-user-config -display none -serial file:serial.log -monitor stdio \
        -kernel "${hypervisor:-$image/xen}" -append "$xen" -initrd "$image/vmlinuz $linux,$image/initrd" \
        -drive file=root.qcow2,if=virtio,cache=unsafe -drive file=data.img,format=raw,if=virtio,cache=unsafe "${more[@]}" \
        -device virtio-rng-pci -netdev "user,id=net$forwards" "${peer[@]}" \
        -device virtio-net-pci,netdev=net,romfile=,mac=52:54:00:10:00:09 \
        <>monitor >>qemu.log 2>&1 &
    qemu=$!
    setpriv --pdeathsig KILL tail --pid="$owner" -f /dev/null &
    owned=$!
    echo "$$" >keeper
    wait -n "$qemu" "$owned" || true
    kill -0 "$owned" 2>/dev/null || exit 0
    echo "dom0: QEMU has ended by itself" >>qemu.log
    rm -f root.qcow2 data.img monitor keeper
    trap - EXIT
    kill "$owned"
}

finish() {
    trap '' TERM INT HUP
    [ -z "$owned" ] || kill "$owned" 2>/dev/null || true
    [ -z "$qemu" ] || kill -KILL "$qemu" 2>/dev/null || true
    wait
    rm -rf "$PWD"
}

# ---- outside ----------------------------------------------------------------------

keeper() { local pid; pid=$(cat "$dir/keeper" 2>/dev/null) && kill -0 "$pid" 2>/dev/null && echo "$pid"; }

# Waits until a deadline (as $SECONDS) for a command that succeeds, or for QEMU's end.
until_ok() { # DEADLINE COMMAND...
    local deadline=$1
    shift
    until "$@"; do
        if [ "$SECONDS" -ge "$deadline" ] || ! keeper >/dev/null; then return 1; fi
        sleep 0.2
    done
}

port() { awk -v port="$1" '/HOST_FORWARD/ && $6 == port { print $4; exit }' "$dir/qemu.log" | grep .; }

login=(-F none -i "$image/key" -o "UserKnownHostsFile=$image/known_hosts" -o HostKeyAlias=dom0 -o BatchMode=yes
    -o LogLevel=ERROR -o ConnectTimeout=60 -o ServerAliveInterval=10 -o ServerAliveCountMax=6)
# An emulated processor takes a second to prove who it is: once is enough.
login+=(-o ControlMaster=auto -o ControlPersist=yes -o ControlPath=ssh)
in_dom0() { (cd "$dir" && exec ssh "${login[@]}" -p "$(port 22)" root@127.0.0.1 "$@"); }
# The first word counts.
copy() { scp -q -r -o "ControlPath=$dir/ssh" "${login[@]}" -P "$(port 22)" "$@"; }

# xl gives its own helpers ten seconds, which busy guests must not take from them.
ready='timeout 20 xl list && xl sched-credit2 -d Domain-0 -w 4096 && { vgs vg0 2>/dev/null || vgcreate -qq vg0 /dev/vdb; }'

start() {
    local owner=$PPID disk='' ports=() hypervisor='' link='' number='' option deadline=$((SECONDS + boot_seconds))
    while getopts o:f:d:x:l:n: option; do
        case $option in
            o) owner=$OPTARG ;; f) ports+=("$OPTARG") ;; d) disk=$(realpath "$OPTARG") ;;
            x) hypervisor=$(realpath "$OPTARG") ;; l) link=$(realpath -m "$OPTARG") ;; n) number=$OPTARG ;; *) exit 2 ;;
        esac
    done
    shift $((OPTIND - 1))
    dir=${1:?which DIR?}
    [ -s "$image/.built" ] || die "there is no image in $image: run tests/xen/build.sh"
    mkdir -m 700 "$dir" || die "$dir cannot be made, or is in use"
    dir=$(realpath "$dir") image=$(realpath "$image")
    (cd "$dir" && setsid env PENGX_XEN_IMAGE="$image" bash "$here/dom0.sh" keep "$owner" "$disk" "$hypervisor" "$link" "$number" \
        "${ports[@]}" </dev/null >keeper.log 2>&1 &)
    # Its pid file comes right after QEMU.
    until [ -e "$dir/keeper" ]; do
        if [ "$SECONDS" -ge "$deadline" ] || ! [ -d "$dir" ]; then die "QEMU did not start"; fi
        sleep 0.1
    done
    if ! { echo info usernet >"$dir/monitor" && until_ok "$deadline" port 22 >/dev/null &&
        until_ok "$deadline" in_dom0 "$ready" >"$dir/start.log" 2>&1; }; then
        tail -n 40 "$dir"/*.log >&2
        stop
        die "no answer of dom0 in $SECONDS s, $boot_seconds at most; the last words of all are above"
    fi
    [ -z "$link" ] || in_dom0 "hostname dom0-$number
        link=\$(grep -l 52:54:00:99 /sys/class/net/*/address | cut -d/ -f5)
        ip address add 10.99.0.$number/24 dev \$link && ip link set \$link up"
    echo "dom0: $dir is up after $SECONDS s, ssh on 127.0.0.1:$(port 22)"
}

logs() {
    mkdir -p "$1"
    cp "$dir"/*.log "$1/"
    # It may answer no more.
    in_dom0 'timeout 60 sh -c "xl dmesg >/var/log/xen/dmesg; journalctl -b >/var/log/xen/journal; tar -cC /var/log xen"' 2>/dev/null |
        tar -xC "$1" || true
    echo "dom0: the logs of Xen, dom0 and QEMU are in $1" >&2
}

reset() {
    local deadline=$((SECONDS + boot_seconds)) boot
    boot=$(in_dom0 cat /proc/sys/kernel/random/boot_id)
    (cd "$dir" && ssh "${login[@]}" -O exit root@127.0.0.1 2>/dev/null) || true
    echo system_reset >"$dir/monitor"
    until_ok "$deadline" in_dom0 "! grep -q $boot /proc/sys/kernel/random/boot_id && $ready" >"$dir/start.log" 2>&1 ||
        die "dom0 is not back after $boot_seconds s"
}

stop() {
    local pid deadline=$((SECONDS + 30))
    if pid=$(keeper); then kill "$pid" 2>/dev/null || true; fi
    until ! keeper >/dev/null; do
        [ "$SECONDS" -lt "$deadline" ] || die "its keeper, process $pid, does not end"
        sleep 0.1
    done
    rm -rf "$dir"
}

verb=${1:-}
shift || true
case $verb in
    start) start "$@"; exit ;;
    keep) keep "$@"; exit ;;
    ssh | put | get | port | logs | reset | stop) ;;
    *) sed -n '5,13p' "$0" >&2; exit 2 ;;
esac
dir=$(realpath -m "${1:?which DIR?}")
shift
case $verb in
    ssh) in_dom0 "$@" ;;
    put) copy "${@:1:$#-1}" "root@127.0.0.1:${!#}" ;;
    get)
        files=("${@:1:$#-1}")
        copy "${files[@]/#/root@127.0.0.1:}" "${!#}" ;;
    port) port "$1" ;;
    logs) logs "$1" ;;
    reset) reset ;;
    stop) stop ;;
esac

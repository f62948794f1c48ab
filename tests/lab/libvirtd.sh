#!/bin/bash
# A private libvirtd: own configuration, state and socket under BASEDIR. It shares
# nothing with a libvirtd of the host, and needs no systemd, D-Bus or polkit.
#
#   libvirtd.sh start [-n HOSTNAME] [-o OWNER] BASEDIR
#   libvirtd.sh stop BASEDIR              ends its guests, too
#   libvirtd.sh restart-daemon BASEDIR    guests keep running and are taken over again
#
#   -n HOSTNAME  the host name that this instance sees (root only); two instances
#                that migrate to each other need different ones
#   -o OWNER     a process id: when that process is gone, the instance is stopped
#
# `start` and `restart-daemon` print shell assignments: LIBVIRT_URI, LIBVIRT_PID,
# LIBVIRT_MODE (system as root, else session), LIBVIRT_BASE. Starting what already runs
# answers the same; what a crashed run left behind is cleaned or taken over.
# With PENGX_LAB_CACHE=DIR libvirt's knowledge about the QEMU binaries is kept there
# between instances: probing them anew takes some seconds.
#
# Only processes that are recorded under BASEDIR are ever ended.
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin
export LIBVIRT_AUTOSTART=0

die() { echo "libvirtd.sh: $*" >&2; exit 1; }

# ---- processes ------------------------------------------------------------------

# Is process $1 alive, called $2..., and has $3 in its command line? Ids are reused.
is_ours() {
    local comm
    comm=$(cat "/proc/$1/comm" 2>/dev/null) || return 1
    case $comm in "$2"*) ;; *) return 1 ;; esac
    grep -zqsF -- "$3" "/proc/$1/cmdline"
}

# Ends a process of ours: TERM, after 10 s KILL. A zombie has no command line: gone.
end() {
    local tries
    is_ours "$@" || return 0
    kill "$1" 2>/dev/null || true
    for ((tries = 0; tries < 100; tries++)); do
        is_ours "$@" || return 0
        sleep 0.1
    done
    kill -KILL "$1" 2>/dev/null || true
}

daemon_pid() {
    local pid
    pid=$(cat "$base/libvirtd.pid" 2>/dev/null) && is_ours "$pid" libvirtd "$base/libvirtd.conf" &&
        echo "$pid"
}

# One line "PID NAME" for each guest that runs.
guests() {
    local file pid name
    for file in "$base"/run/qemu/*.pid "$base"/xdg/run/libvirt/qemu/run/*.pid; do
        [ -s "$file" ] || continue
        pid=$(cat "$file") name=$(basename "$file" .pid)
        if is_ours "$pid" qemu-system "guest=$name"; then echo "$pid $name"; fi
    done
}

start_time() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d' ' -f20; }

# ---- configuration --------------------------------------------------------------

# Is the instance in $1 there, or about to be?
is_used() {
    local base=$1
    [ -e "$base/lock" ] || return 1
    ! flock -n "$base/lock" true || daemon_pid >/dev/null || [ -n "$(guests)" ]
}

# The number of the ranges of ports of this instance. libvirt looks itself for a port that
# is free now and that QEMU takes later: two daemons with one range take each other's.
claim_ports() (
    claims=/tmp/pengx-ports-$(id -u)
    [ -d "$claims" ] || mkdir -m 700 "$claims" 2>/dev/null || true
    [ -O "$claims" ] || die "'$claims' belongs to somebody else"
    exec 8>"$claims/lock"
    flock -w 60 8 || die "another instance does not end its look for ports"
    for slot in "$(cat "$base/ports" 2>/dev/null || true)" {0..249}; do
        of=$(readlink "$claims/${slot:-none}" || true)
        [ "$of" = "$base" ] || { [ -n "$slot" ] && ! is_used "$of"; } || continue
        ln -sfn "$base" "$claims/$slot"
        echo "$slot" | tee "$base/ports"
        return
    done
    die "250 instances are there already"
)

write_config() {
    local digest uuid slot
    digest=$(printf %s "$base" | sha256sum)
    # Instances that migrate to each other must differ in their host's uuid; many
    # virtual machines have none to give.
    uuid=$(sed -E 's/^(.{8})(.{4}).(.{3}).(.{3})(.{12}).*/\1-\2-4\3-8\4-\5/' <<<"$digest")
    slot=$(claim_ports)
    cat >"$base/libvirtd.conf" <<CONF
unix_sock_dir = "$base/sock"
unix_sock_rw_perms = "0700"
unix_sock_ro_perms = "0700"
unix_sock_admin_perms = "0700"
auth_unix_ro = "none"
auth_unix_rw = "none"
host_uuid = "$uuid"
max_clients = 200
max_workers = 20
keepalive_interval = 5
keepalive_count = 5
log_filters = "3:qemu 3:remote 4:util.json 4:rpc"
log_outputs = "3:file:$base/log/libvirtd.log"
CONF
    cat >"$base/etc/qemu.conf" <<CONF
# Nobody else is here: no AppArmor, cgroups, private /dev or virtlogd.
security_driver = "none"
security_default_confined = 0
namespaces = [ ]
cgroup_controllers = [ ]
stdio_handler = "file"
remember_owner = 0
vnc_listen = "127.0.0.1"
remote_display_port_min = $((5900 + slot * 100))
remote_display_port_max = $((5999 + slot * 100))
migration_port_min = $((49152 + slot * 60))
migration_port_max = $((49211 + slot * 60))
CONF
    [ "$mode" = session ] || cat >>"$base/etc/qemu.conf" <<CONF
user = "root"
group = "root"
dynamic_ownership = 0
CONF
}

if [ "$(id -u)" = 0 ]; then
    mode=system cache_of=cache
else
    mode=session cache_of=xdg/cache/libvirt
fi

cache_in() {
    local kept=${PENGX_LAB_CACHE:-}/libvirt-$mode
    [ -n "${PENGX_LAB_CACHE:-}" ] && [ -d "$kept" ] && [ ! -e "$base/$cache_of/qemu" ] || return 0
    cp -a "$kept" "$base/$cache_of/qemu" 2>/dev/null || rm -rf "$base/$cache_of/qemu"
}

cache_out() {
    local kept=${PENGX_LAB_CACHE:-}/libvirt-$mode new
    [ -n "${PENGX_LAB_CACHE:-}" ] && [ -d "$base/$cache_of/qemu" ] || return 0
    ! diff -rq "$base/$cache_of/qemu" "$kept" >/dev/null 2>&1 || return 0
    # Others may read or replace it at the same moment: exchange it as a whole.
    mkdir -p "$PENGX_LAB_CACHE"
    new=$(mktemp -d "$PENGX_LAB_CACHE/.new.XXXXXX")
    cp -a "$base/$cache_of/qemu" "$new/new"
    mv -T "$kept" "$new/old" 2>/dev/null || true
    mv -T "$new/new" "$kept" 2>/dev/null || true
    rm -rf "$new"
}

# ---- the daemon -----------------------------------------------------------------

# libvirtd lets its guests go to process 1, and waits for their end until somebody has
# collected them. Where process 1 is slow at that (containers), each power-off takes two
# seconds more; so a small parent collects them: prctl(PR_SET_CHILD_SUBREAPER), run, wait.
case $(uname -m) in x86_64) prctl=157 ;; aarch64) prctl=167 ;; *) prctl=0 ;; esac
# shellcheck disable=SC2016 # the dollars are perl's
reaper='my $nr = shift; syscall(0 + $nr, 36, 1, 0, 0, 0) if $nr;
    my $pid = fork; exec @ARGV if !$pid; 1 while wait != -1;'

# The paths of the system daemon are compiled in: give it a mount namespace in which they
# are ours. Its default user comes from a package that is not needed, so name it here.
# shellcheck disable=SC2016 # expanded by the inner shell
in_namespace='set -e
    base=$1 hostname=$2; shift 2
    for pair in etc:/etc lib:/var/lib cache:/var/cache log:/var/log run:/run; do
        to=${pair#*:}/libvirt
        mkdir -p "$to"
        mount --bind "$base/${pair%%:*}" "$to"
    done
    entry=libvirt-qemu:x:64055
    for file in passwd:$entry:64055::/var/lib/libvirt:/usr/sbin/nologin group:$entry:; do
        name=${file%%:*}
        ! grep -q "^libvirt-qemu:" "/etc/$name" || continue
        { cat "/etc/$name"; echo "${file#*:}"; } >"$base/tmp/$name"
        mount --bind "$base/tmp/$name" "/etc/$name"
    done
    [ -z "$hostname" ] || hostname "$hostname"
    exec "$@"'

launch() {
    local hostname command
    hostname=$(cat "$base/hostname" 2>/dev/null || true)
    command=(perl -e "$reaper" "$prctl" libvirtd --daemon
        --config "$base/libvirtd.conf" --pid-file "$base/libvirtd.pid")
    if [ "$mode" = system ]; then
        local unshare=(unshare --mount --propagation private)
        # In a plain chroot the root is no mount of its own that could be made private.
        "${unshare[@]}" true 2>/dev/null 9>&- || unshare=(unshare --mount --propagation unchanged)
        [ -z "$hostname" ] || unshare+=(--uts)
        command=("${unshare[@]}" bash -c "$in_namespace" bash "$base" "$hostname" "${command[@]}")
    else
        command=(env HOME="$base" XDG_CONFIG_HOME="$base/xdg/config"
            XDG_CACHE_HOME="$base/xdg/cache" XDG_DATA_HOME="$base/xdg/data"
            XDG_RUNTIME_DIR="$base/xdg/run" "${command[@]}")
    fi
    setsid "${command[@]}" </dev/null >"$base/log/output" 2>&1 9>&- &
}

answers() { timeout 10 virsh -q -c "$uri" version >/dev/null 2>&1 9>&-; }

# Its pid file is there before its drivers are, and it ends when one of them fails.
wait_until_up() {
    local tries
    for ((tries = 0; tries < 300; tries++)); do
        if [ -S "$base/sock/libvirt-sock" ] && daemon_pid >/dev/null && answers; then return 0; fi
        ! grep -qs 'Driver state initialization failed' "$base/log/libvirtd.log" || break
        sleep 0.1
    done
    tail -n 20 "$base/log/output" "$base/log/libvirtd.log" >&2 || true
    end_daemon
    die "the private libvirtd in $base did not come up; its last words are above"
}

end_daemon() {
    local pid
    if pid=$(daemon_pid); then end "$pid" libvirtd "$base/libvirtd.conf"; fi
    rm -f "$base/libvirtd.pid" "$base"/sock/libvirt-*sock*
}

start_daemon() {
    mkdir -p "$base"/{etc/qemu,lib,cache,log,run,sock,tmp}
    if [ "$mode" = session ]; then
        mkdir -p "$base"/xdg/{config/libvirt,cache/libvirt,data,run}
        chmod 700 "$base/xdg/run"
    fi
    write_config
    [ "$mode" = system ] || cp "$base/etc/qemu.conf" "$base/xdg/config/libvirt/qemu.conf"
    # Without guests, what is in run/ is of a machine or a run that ended without a word.
    [ -n "$(guests)" ] || rm -rf "$base"/run/* "$base"/xdg/run/libvirt
    cache_in
    rm -f "$base/log/libvirtd.log"
    launch
    wait_until_up
}

report() {
    printf "LIBVIRT_URI='%s'\nLIBVIRT_PID=%s\nLIBVIRT_MODE=%s\nLIBVIRT_BASE='%s'\n" \
        "$uri" "$(daemon_pid)" "$mode" "$base"
}

# ---- commands -------------------------------------------------------------------

start() {
    local owned
    printf %s "$1" >"$base/hostname"
    if ! { daemon_pid >/dev/null && answers; }; then
        end_daemon
        start_daemon
    fi
    if [ -n "$2" ]; then
        owned="$2 $(start_time "$2")"
        if [ "$owned" != "$(cat "$base/owner" 2>/dev/null)" ]; then
            echo "$owned" >"$base/owner"
            setsid bash "$0" watch -o "$owned" "$base" </dev/null >/dev/null 2>&1 9>&- &
        fi
    fi
    report
}

# $1: whose instance to stop; empty for anybody's.
stop() {
    local id pid name
    [ -z "$1" ] || [ "$1" = "$(cat "$base/owner" 2>/dev/null)" ] || return 0
    if daemon_pid >/dev/null; then
        for id in $(timeout 20 virsh -q -c "$uri" list --uuid 2>/dev/null); do
            timeout 20 virsh -q -c "$uri" destroy "$id" >/dev/null 2>&1 || true
        done
    fi
    guests | while read -r pid name; do end "$pid" qemu-system "guest=$name"; done
    end_daemon
    cache_out
    rm -f "$base/owner"
}

# Lives as long as the owner, or until the instance is stopped or gets another owner.
watch() {
    while [ "$1" = "$(cat "$base/owner" 2>/dev/null)" ]; do
        [ "${1#* }" = "$(start_time "${1%% *}")" ] || exec bash "$0" stop -o "$1" "$base"
        sleep 1
    done
}

verb=${1:-}
shift || true
hostname='' owner=''
while getopts n:o: option; do
    case $option in n) hostname=$OPTARG ;; o) owner=$OPTARG ;; *) exit 2 ;; esac
done
shift $((OPTIND - 1))
case $verb in start | stop | restart-daemon | watch) ;; *) sed -n '5,7p' "$0" >&2; exit 2 ;; esac
[ -n "${1:-}" ] || die "which BASEDIR?"
base=$(realpath -m "$1")
uri="qemu+unix:///$mode?socket=$base/sock/libvirt-sock"

if [ "$verb" = start ]; then
    # A socket path has less than 108 bytes; those of guests' monitors are the longest.
    [ ${#base} -le 50 ] || die "'$base' is too long: ${#base} characters, 50 at most"
    [ -d "$base" ] || { mkdir -p "$base" && chmod 700 "$base"; }
    [ -O "$base" ] || die "'$base' belongs to somebody else"
fi
[ -d "$base" ] || exit 0
if [ "$verb" != watch ]; then
    exec 9>"$base/lock"
    flock -w 120 9 || die "another start or stop in '$base' does not end"
fi
case $verb in
    start) start "$hostname" "$owner" ;;
    stop) stop "$owner" ;;
    restart-daemon) end_daemon; start_daemon; report ;;
    watch) watch "$owner" ;;
esac

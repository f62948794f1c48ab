#!/bin/bash
# A control domain ends in the middle of operations, as if its plug was pulled. The next server in it brings them to an
# end; nothing is left over, and the VM starts.
#   restart.sh DIR PENGX    the directory of dom0.sh, started with `-f 8000`; the program, unpacked in it with tests/
set -euo pipefail
here=$(dirname "$(realpath "$0")")
dir=$1 pengx=$2
lab=$here/../lab
shared=/usr/local/share/pengx-xen
disk=bed05d84-7c44-4720-9588-57cbd8ecef8c
die() { echo "restart: $*" >&2; exit 1; }
in_dom0() { timeout 300 "$here/dom0.sh" ssh "$dir" "$@"; }

serve() {
    in_dom0 "systemd-run --quiet --unit=pengx-restart -p Type=notify '$pengx' serve --insecure --config /root/restart.toml"
    api=http://127.0.0.1:$("$here/dom0.sh" port "$dir" 8000)
}
ask() { curl -sS --max-time 300 -H 'Content-Type: application/xml' "$@"; }
post() { # PATH BODY [MORE...]
    local answer
    answer=$(ask --fail-with-body -d "$2" "${@:3}" "$api$1") || die "POST $1: $answer"
}
# The first of these elements in a document.
element() { sed -n "s/.*<$1[^>]*>\([^<]*\)<.*/\1/p" | head -n 1; }
status() { ask "$api/vms/$vm/" | element status; }

# Waits until a command says something like this.
until_says() { # REGEX COMMAND...
    local deadline=$((SECONDS + 300)) said=''
    until said=$("${@:2}") && grep -qE "$1" <<<"$said"; do
        [ "$SECONDS" -lt "$deadline" ] || die "${*:2}: said $said, and never $1"
        sleep 1
    done
}
beats() { # what the guest says on all its images
    in_dom0 "for image in /srv/store[12]/*.qcow2; do '$lab/heartbeat.sh' \"\$image\" 2>/dev/null; done; true"
}

in_dom0 "mkdir -p /srv/store1 /srv/store2 && cp $shared/golden.qcow2 /srv/store1/$disk.qcow2 && cat >/root/restart.toml" <<TOML
listen = '0.0.0.0:8000'
hypervisor = 'xl:///'
data_dir = '/srv/pengx'
max_vcpus = 2
[xl]
guest = 'pv'
kernel = '$shared/vmlinux'
ramdisk = '$shared/initrd'
cmdline = 'console=hvc0 quiet'
call_timeout = 60
TOML
serve
for n in 1 2; do
    post /storlinks/create/ "<storlink><name>s$n</name><link>/srv/store$n</link><type>LO</type><level>FL</level></storlink>"
done
post /templates/add/ "<template><name>golden</name><os>OTHER</os><os_arch>X64</os_arch><disk><storlink>1</storlink>
    <uuid>$disk</uuid><format>qcow2</format></disk></template>"
template=$(ask "$api/templates/" | sed -n 's/.*<template id="\([^"]*\)".*/\1/p')
post /vms/ "<vm><name>web1</name><template>$template</template><storlink>1</storlink><cpu_core>1</cpu_core>
    <memory>128</memory><maxmem>128</maxmem><disk_format>qcow2</disk_format></vm>"
vm=$(ask "$api/vms/" | sed -n "s/.*<vm id='\([^']*\)'.*/\1/p")

boots=0
for operation in "backups/ <backup><backup_name>nightly</backup_name><storlink>2</storlink></backup>" \
    "smigrate/ <vm><storlink>2</storlink></vm>" \
    "snapshots/ <snapshot><name>first</name><storlink>1</storlink></snapshot>"; do
    path=${operation%% *} body=${operation#* }
    post "/vms/$vm/start/" ""
    boots=$((boots + 1))
    until_says "boots=$boots " beats
    task=$(ask -D - -o /dev/null -H 'Prefer: respond-async' -d "$body" "$api/vms/$vm/$path" |
        tr -d '\r' | sed -n 's/^[Ll]ocation: //p')
    [ -n "$task" ] || die "$path was not accepted"
    sleep 3
    "$here/dom0.sh" reset "$dir"
    serve
    until_says . bash -c "curl -sS --max-time 60 '$api$task' | sed -n 's/.*<ended>\(.*\)<.ended>.*/\1/p'"
    until_says SHUTDOWN status
    echo "restart: dom0 ended in the middle of $path: $(ask "$api$task" | element message)"
    in_dom0 "'$pengx' check --config /root/restart.toml" || die "not all agrees after $path"
done
post "/vms/$vm/start/" ""
boots=$((boots + 1))
until_says "boots=$boots " beats
post "/vms/$vm/poweroff/" ""
in_dom0 "systemctl stop pengx-restart"
echo "restart: its guest booted $boots times"

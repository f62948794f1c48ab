#!/bin/bash
# The Debian package in a control domain, set up as README says: its service drives Xen, and guests outlive it.
#   installed.sh DIR PACKAGE    the directory of dom0.sh, started with `-f 8000`
set -euo pipefail
here=$(dirname "$(realpath "$0")")
dir=$1 package=$2
in_dom0() { timeout 300 "$here/dom0.sh" ssh "$dir" "$@"; }
die() {
    echo "installed: $*" >&2
    in_dom0 "journalctl -u pengx -n 40 --no-pager -o cat" >&2 || true
    exit 1
}
port=$("$here/dom0.sh" port "$dir" 8000)
ask() { # METHOD PATH BODY: what a success answers
    local said
    said=$(curl -sS --fail-with-body --max-time 300 -H "Authorization: Bearer $token" -H 'Content-Type: application/xml' \
        -X "$1" -d "$3" "http://127.0.0.1:$port$2") || die "$1 $2: $said"
    echo "$said"
}
is() { # STATUS WHEN
    local said
    said=$(ask GET "/vms/$vm/" '' | sed -n 's/.*<status>\(.*\)<\/status>.*/\1/p')
    [ "$said" = "$1" ] || die "the VM is $said, not $1, $2"
}
domid() { in_dom0 "xl domid pengx-$vm"; }

"$here/dom0.sh" put "$dir" "$package" /root/pengx.deb
# What tests have left, as if it were pengx on this host.
in_dom0 "rm -rf /etc/pengx /usr/bin/pengx"
said=$(in_dom0 "dpkg -i /root/pengx.deb 2>&1") || die "$said"
in_dom0 "journalctl -u pengx --no-pager -o cat" | grep -F '/usr/share/pengx/xen.conf' >/dev/null ||
    die "without its drop-in it does not name it"

in_dom0 "mkdir -p /etc/systemd/system/pengx.service.d /srv/installed
    ln -s /usr/share/pengx/xen.conf /etc/systemd/system/pengx.service.d/
    cat >/etc/pengx/pengx.toml" <<TOML
listen = '0.0.0.0:8000'
[xl]
guest = 'pv'
kernel = '/usr/local/share/pengx-xen/stub'
TOML
in_dom0 "echo 'correct horse battery staple' | pengx user add ann --role admin"
token=$(in_dom0 "pengx token create ann --name test")
in_dom0 "systemctl daemon-reload; systemctl restart pengx" || die "it does not start"
ask GET /pms/ '' | grep -q '<hostname>dom0<\|<name>dom0<' || die "GET /pms/"
ask POST /storlinks/create/ "<storlink><name>s</name><link>/srv/installed</link><type>LO</type><level>FL</level></storlink>" >/dev/null
ask POST /vms/ "<vm><name>web1</name><storlink>1</storlink><cpu_core>1</cpu_core><memory>16</memory><maxmem>16</maxmem>
    <os_disk_size>1</os_disk_size><disk_format>qcow2</disk_format></vm>" >/dev/null
vm=$(ask GET /vms/ '' | sed -n "s/.*<vm id='\([^']*\)'.*/\1/p")
ask POST "/vms/$vm/start/" '' >/dev/null
is RUNNING "after its start"
first=$(domid)

for end in "systemctl restart pengx" "systemctl kill --kill-whom=main --signal=KILL pengx; sleep 5" \
    "systemctl stop pengx; sleep 2; systemctl start pengx"; do
    in_dom0 "$end"
    is RUNNING "after $end"
    [ "$(domid)" = "$first" ] || die "the guest is another one after $end"
    # Only a QEMU that lives lets its disks change hands.
    ask POST "/vms/$vm/snapshots/" "<snapshot><name>s</name><storlink>1</storlink></snapshot>" >/dev/null
done
ask POST "/vms/$vm/poweroff/" '' >/dev/null
is SHUTDOWN "after its end"
in_dom0 "dpkg --purge pengx >/dev/null 2>&1; rm -r /var/lib/pengx /srv/installed /etc/systemd/system/pengx.service.d"

#!/bin/bash
# The part of deb.sh that runs inside the Debian that it booted. Not meant for any other place.
set -euo pipefail
api=http://127.0.0.1:8000
drop_in=/etc/systemd/system/pengx.service.d/test.conf

die() {
    echo "deb: $*" >&2
    journalctl -u pengx -n 30 --no-pager -o cat >&2 || true
    exit 1
}
within() { # SECONDS COMMAND...: until it succeeds
    local deadline=$((EPOCHSECONDS + $1))
    shift
    until "$@"; do
        [ "$EPOCHSECONDS" -lt "$deadline" ] || return 1
        sleep 0.2
    done
}
unit() { systemctl show pengx -p "$1" --value; }
is() { [ "$(unit "$1")" = "$2" ] || die "$1 of the unit is '$(unit "$1")', not '$2', $3"; }
booted() { case $(systemctl is-system-running 2>/dev/null || true) in running | degraded) ;; *) return 1 ;; esac; }
status_of() { curl -s -o /dev/null -w '%{http_code}' --max-time 30 "$api$1"; }
answers() { [ "$(status_of "$1")" = "$2" ]; }
post() { # URI XML: must be 201
    local said
    said=$(curl -sS --max-time 60 -w '\n%{http_code}' -H 'Content-Type: application/xml' -d "$2" "$api$1")
    [ "${said##*$'\n'}" = 201 ] || die "POST $1: $said"
}
images() { find /srv/store -name '*.qcow2' | wc -l; }
read_vm() { curl -sSf --max-time 30 "$api/vms/" | sed -n "s/.*<vm id='\([^']*\)'>.*/\1/p"; }
phase() { echo "deb: $1: ok in $SECONDS s"; SECONDS=0; }

SECONDS=0
within 60 booted || die "systemd did not finish its start: $(systemctl is-system-running || true)"
[ "$(systemctl is-system-running)" = running ] || die "before the package: $(systemctl --failed --no-legend)"
phase "boot"

dpkg -i /srv/old.deb >/srv/dpkg.log 2>&1 || die "dpkg -i: $(cat /srv/dpkg.log)"
is ActiveState active "after the install"
is Type notify "after the install"
is StatusText "serving on 127.0.0.1:8000" "so READY=1 came when it listened"
[ "$(systemctl is-enabled pengx)" = enabled ] || die "it is not enabled"
# Nobody has a hypervisor here: it serves all the same, and says so.
answers /vms/ 200 || die "GET /vms/ is $(status_of /vms/)"
within 30 answers /health 503 || die "/health is $(status_of /health) without a hypervisor"
curl -s "$api/health" | grep '^the hypervisor has not answered' >/dev/null || die "/health says $(curl -s "$api/health")"
[ "$(stat -c '%a %U' /var/lib/pengx)" = "700 root" ] || die "/var/lib/pengx is $(stat -c '%a %U' /var/lib/pengx)"
systemd-analyze verify pengx.service >/srv/verify 2>&1 || die "verify: $(cat /srv/verify)"
[ ! -s /srv/verify ] || die "verify: $(cat /srv/verify)"
man -w 8 pengx >/dev/null || die "there is no page pengx(8)"
phase "install"

# From here on with an imaginary hypervisor, and a host of its own.
systemctl stop pengx
rm -r /var/lib/pengx
mkdir -p "${drop_in%/*}"
printf '[Service]\nEnvironment=PENGX_HYPERVISOR=fake:///\n' >"$drop_in"
systemctl daemon-reload
systemctl start pengx || die "it does not start again"
within 30 answers /health 200 || die "/health says $(curl -s "$api/health")"

# What the unit forbids must leave the tools their work: a template is examined and copied.
mkdir /srv/store
qemu-img create -q -f qcow2 /srv/store/bed05d84-7c44-4720-9588-57cbd8ecef8c.qcow2 8M
# As libvirt leaves it: somebody else's, and closed.
chown daemon: /srv/store/bed05d84-7c44-4720-9588-57cbd8ecef8c.qcow2
chmod 600 /srv/store/bed05d84-7c44-4720-9588-57cbd8ecef8c.qcow2
post /storlinks/create/ '<storlink><name>store1</name><link>/srv/store</link><desc>d</desc><type>LO</type><level>FL</level><shared>False</shared></storlink>'
storlink=$(curl -sS "$api/storlinks/" | sed -n 's/.*<storlink id="\([0-9]*\)">.*/\1/p')
post /templates/add/ "<template><name>small</name><os>DEBIAN</os><os_arch>X64</os_arch><desc>d</desc><disk><storlink>$storlink</storlink><uuid>bed05d84-7c44-4720-9588-57cbd8ecef8c</uuid><format>qcow2</format></disk></template>"
template=$(curl -sS "$api/templates/" | sed -n 's/.*<template id="\([^"]*\)">.*/\1/p')
post /vms/ "<vm><name>web1</name><template>$template</template><storlink>$storlink</storlink><cpu_core>1</cpu_core><memory>64</memory><maxmem>64</maxmem><desc>d</desc></vm>"
vm=$(read_vm)
[ -n "$vm" ] || die "the VM is not listed"
[ "$(images)" = 2 ] || die "the VM has no disk: $(ls -l /srv/store)"
# The unit leaves it what it takes to keep them from the network.
! journalctl -u pengx --no-pager -o cat | grep "tools run with this host's network" || die "tools have a network"
phase "a VM under the unit's restrictions"
systemd-analyze security pengx --no-pager | tail -n 1 | sed 's/^[^A-Za-z]*/deb: systemd-analyze security: /'

# Killed, it comes back; with a bad setting it does not try for ever.
kill -KILL "$(unit MainPID)"
# shellcheck disable=SC2016 # expanded later
within 60 eval '[ "$(unit NRestarts)" = 1 ] && [ "$(unit ActiveState)" = active ]' || die "it is not started again"
[ "$(read_vm)" = "$vm" ] || die "after a kill it lists VM '$(read_vm)', not $vm"
echo 'typo = 1' >>/etc/pengx/pengx.toml
! systemctl restart pengx 2>/dev/null || die "it starts with a bad setting"
is ExecMainStatus 2 "after a bad setting"
is ActiveState failed "after a bad setting"
sed -i 's/^typo = 1$/# changed here/' /etc/pengx/pengx.toml
systemctl reset-failed pengx
systemctl start pengx || die "it does not start with its setting repaired"
phase "kill and bad setting"

before=$(unit MainPID)
dpkg -i /srv/new.deb >/srv/dpkg.log 2>&1 || die "dpkg -i of the new version: $(cat /srv/dpkg.log)"
is ActiveState active "after the upgrade"
[ "$(unit MainPID)" != "$before" ] || die "the upgrade did not restart it"
[ "$(dpkg-query -W -f '${Version}' pengx)" = "$(dpkg-deb -f /srv/new.deb Version)" ] || die "the version is the old one"
[ "$(read_vm)" = "$vm" ] || die "after the upgrade it lists VM '$(read_vm)', not $vm"
grep -q '^# changed here$' /etc/pengx/pengx.toml || die "the upgrade changed the administrator's configuration"
# What the administrator disabled stays so.
systemctl disable -q pengx
dpkg -i /srv/new.deb >/srv/dpkg.log 2>&1 || die "dpkg -i over itself: $(cat /srv/dpkg.log)"
[ "$(systemctl is-enabled pengx || true)" = disabled ] || die "an upgrade enabled it again"
systemctl enable -q pengx
phase "upgrade"

systemctl stop pengx
is Result success "after the stop"
is ExecMainStatus 0 "after the stop"
[ -z "$(pgrep -x pengx || true)$(pgrep -x qemu-img || true)" ] || die "the stop left a process"
phase "stop"

systemctl start pengx
dpkg -r pengx >/srv/dpkg.log 2>&1 || die "dpkg -r: $(cat /srv/dpkg.log)"
[ -z "$(pgrep -x pengx || true)" ] || die "the removal left it running"
[ -s /var/lib/pengx/pengx.db ] || die "the removal took the state"
[ -e /etc/pengx/pengx.toml ] || die "the removal took the configuration"
dpkg -i /srv/new.deb >/srv/dpkg.log 2>&1 || die "dpkg -i after dpkg -r: $(cat /srv/dpkg.log)"
is ActiveState active "after it was installed again"
[ "$(read_vm)" = "$vm" ] || die "after remove and install it lists VM '$(read_vm)', not $vm"
dpkg -P pengx >/srv/dpkg.log 2>&1 || die "dpkg -P: $(cat /srv/dpkg.log)"
grep -q '/var/lib/pengx is kept' /srv/dpkg.log || die "the purge does not say that it kept the state: $(cat /srv/dpkg.log)"
[ -s /var/lib/pengx/pengx.db ] || die "the purge took the state"
[ "$(images)" = 2 ] || die "the purge took disks"
rm -r "${drop_in%/*}"
left=$(find /etc /usr /lib/systemd /var/lib/systemd /run/systemd/system -name '*pengx*' ! -name 'pengx-deb*')
[ -z "$left" ] || die "the purge left: $left"
systemctl daemon-reload
[ -z "$(systemctl list-unit-files 'pengx*' --no-legend)" ] || die "the purge left the unit"
[ "$(systemctl is-system-running)" = running ] || die "in the end: $(systemctl --failed --no-legend)"
phase "remove and purge"

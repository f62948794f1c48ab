#!/bin/bash
# The part of record.sh that runs in dom0: makes guests, asks `xl` what pengx asks, and
# keeps each answer in ./transcripts. Ends with a dom0 that is of no more use.
set -euo pipefail
shared=/usr/local/share/pengx-xen
mkdir -p /srv/vms
cd /srv/vms
out=/root/transcripts
mkdir "$out"
# As pengx runs it: no translations, nobody to answer a question.
export LC_ALL=C
exec </dev/null

# Waits up to $1 seconds for a command that succeeds.
within() {
    local deadline=$((EPOCHSECONDS + $1))
    shift
    until "$@"; do
        if [ "$EPOCHSECONDS" -ge "$deadline" ]; then echo "not in time: $*" >&2; return 1; fi
        sleep 0.2
    done
}

# A disk as `xl` wants it.
disk() { # FORMAT TARGET VDEV
    echo "format=$1,vdev=$3,access=rw,target=$2"
}

# Writes NAME.cfg of a guest; further lines come from further arguments.
config() { # NAME LINE...
    printf 'name="%s"\n' "$1" >"$1.cfg"
    printf '%s\n' "${@:2}" >>"$1.cfg"
}

# The golden guest as a PV guest, with its own NAME.qcow2 as xvda.
linux() { # NAME LINE...
    qemu-img create -q -f qcow2 -b "$shared/golden.qcow2" -F qcow2 "$1.qcow2"
    config "$1" 'type="pv"' "kernel=\"$shared/vmlinux\"" "ramdisk=\"$shared/initrd\"" \
        'extra="console=hvc0 quiet"' memory=128 "disk=[\"$(disk qcow2 "$PWD/$1.qcow2" xvda)\"]" "${@:2}"
}

# The one that answers nothing.
stub() { # NAME LINE...
    config "$1" 'type="pv"' "kernel=\"$shared/stub\"" memory=4 "${@:2}"
}

# The one that counts by the BIOS, on its own NAME.img as hda.
hvm() { # NAME LINE...
    cp "$shared/hvm-counter.img" "$1.img"
    config "$1" 'type="hvm"' memory=64 'vnc=1' "disk=[\"backendtype=qdisk,$(disk raw "$PWD/$1.img" hda)\"]" "${@:2}"
}

has_heartbeat() { [ "$(heartbeat.sh "$1" 2>/dev/null | cut -c1-8)" = PENGX-HB ]; }
is_still() { local before; before=$(heartbeat.sh "$1"); sleep 3; [ "$(heartbeat.sh "$1")" = "$before" ]; }
is_gone() { ! xl domid "$1" >/dev/null 2>&1; }
is_another() { [ "$(xl domid "$1" 2>/dev/null || echo "$2")" != "$2" ]; }

# Keeps what a command says, and does as it did.
try() { # NAME COMMAND...
    local name=$1 status=0
    shift
    timeout -k 5 200 "$@" >"$name.1" 2>"$name.2" || status=$?
    { echo "\$ $*"; echo "exit: $status"; echo "--- stdout"; cat "$name.1"; echo "--- stderr"; cat "$name.2"; } >"$out/$name.txt"
    echo "$name: $status"
    return "$status"
}
# The same, whatever it says.
keep() { try "$@" || true; }
# xl gives its helpers ten seconds, and this machine may be busy: what must succeed has more tries.
keep_done() { within 400 try "$@"; }

pv=0d3a9f44-5b0c-4a0e-9d53-6f6c1f0b7a01 silent=0d3a9f44-5b0c-4a0e-9d53-6f6c1f0b7a02 bios=0d3a9f44-5b0c-4a0e-9d53-6f6c1f0b7a03
crashed=0d3a9f44-5b0c-4a0e-9d53-6f6c1f0b7a04 other=0d3a9f44-5b0c-4a0e-9d53-6f6c1f0b7a05 absent=0d3a9f44-5b0c-4a0e-9d53-6f6c1f0b7a06
screen='vfb=["type=vnc,vnclisten=127.0.0.1,vncunused=1"]'
cp "$shared/hvm-counter.img" extra.raw
for name in extra late; do qemu-img create -q -f qcow2 "$name.qcow2" 32M; done
for name in one two; do lvcreate -qq -y -n "$name" -L 32M vg0 >/dev/null; done

linux "$pv" "uuid=\"$pv\"" maxmem=192 vcpus=1 maxvcpus=2 "$screen" \
    "disk=[\"$(disk qcow2 "$PWD/$pv.qcow2" xvda)\",\"$(disk raw /dev/vg0/one xvdb)\"]" \
    'vif=["mac=00:16:3e:00:00:01,bridge=xenbr0","mac=00:16:3e:00:00:02,bridge=xenbr1"]'
stub "$silent" "uuid=\"$silent\""
hvm "$bios" "uuid=\"$bios\"" 'vnclisten="127.0.0.1"' 'boot="cd"' 'vif=["mac=00:16:3e:00:00:03,bridge=xenbr0,model=e1000"]' \
    "disk=[\"backendtype=qdisk,$(disk raw "$PWD/$bios.img" hda)\",\"backendtype=qdisk,format=raw,vdev=hdc,access=ro,devtype=cdrom,target=$PWD/extra.raw\"]"
linux "$crashed" "uuid=\"$crashed\"" 'on_crash="preserve"' 'extra="console=hvc0 quiet rdinit=/none"'

# ---- the host, and a life -----------------------------------------------------------

keep info xl info
keep list-v-empty xl list -v
keep list-long-empty xl list -l
keep create-dry-run xl create -n "$pv.cfg"
keep_done create-paused xl create -p "$pv.cfg"
keep list-v-paused xl list -v
within 400 xl create -q "$silent.cfg"
within 400 xl create -q "$bios.cfg"
within 400 xl create -q "$crashed.cfg"
within 150 sh -c "xl list $crashed | grep -q -- ---sc-"
keep unpause xl unpause "$pv"
within 150 has_heartbeat "$pv.qcow2"
keep list xl list
keep list-v xl list -v
keep list-long xl list -l
keep list-long-one xl list -l "$pv"
keep domid xl domid "$pv"
keep vcpu-list xl vcpu-list
keep uptime xl uptime
keep block-list xl block-list "$pv"
keep block-list-hvm xl block-list "$bios"
keep block-list-none xl block-list "$silent"
keep network-list xl network-list "$pv"
keep network-list-none xl network-list "$silent"
pv_id=$(xl domid "$pv") hvm_id=$(xl domid "$bios") silent_id=$(xl domid "$silent")
keep vnc-port xenstore-read "/local/domain/$pv_id/console/vnc-port"
keep vnc-port-hvm xenstore-read "/local/domain/$hvm_id/console/vnc-port"
keep vnc-port-none xenstore-read "/local/domain/$silent_id/console/vnc-port"
keep xenstore-domain xenstore-ls "/local/domain/$pv_id"
keep vm-of-domain xenstore-read "/local/domain/$pv_id/vm"
keep xentop xentop -b -f -i 1
keep pause xl pause "$pv"
keep pause-again xl pause "$pv"
xl unpause "$pv"
keep unpause-again xl unpause "$pv"
xl destroy "$crashed"

# ---- plugging -----------------------------------------------------------------------

keep_done block-attach-qcow2 xl block-attach "$pv" "$(disk qcow2 "$PWD/late.qcow2" xvdc)"
keep_done block-attach-lv xl block-attach "$pv" "$(disk raw /dev/vg0/two xvdd)"
keep block-attach-taken xl block-attach "$pv" "$(disk qcow2 "$PWD/extra.qcow2" xvdc)"
keep block-attach-no-file xl block-attach "$pv" "$(disk qcow2 "$PWD/none.qcow2" xvde)"
keep block-attach-in-use xl block-attach "$silent" "$(disk qcow2 "$PWD/late.qcow2" xvda)"
keep block-list-in-use xl block-list "$silent"
keep block-attach-lv-in-use xl block-attach "$silent" "$(disk raw /dev/vg0/two xvdb)"
keep block-list-lv-in-use xl block-list "$silent"
keep block-attach-mounted xl block-attach "$silent" "$(disk raw /dev/vda xvdc)"
keep block-attach-no-domain xl block-attach "$absent" "$(disk qcow2 "$PWD/extra.qcow2" xvdc)"
keep_done network-attach xl network-attach "$pv" mac=00:16:3e:00:00:04 bridge=xenbr1
keep network-attach-no-bridge xl network-attach "$pv" mac=00:16:3e:00:00:05 bridge=none0
keep network-attach-no-domain xl network-attach "$absent" mac=00:16:3e:00:00:05 bridge=xenbr0
keep network-list-after-no-bridge xl network-list "$pv"
keep mem-set xl mem-set "$pv" 160
keep mem-set-too-much xl mem-set "$pv" 400
keep mem-set-no-driver xl mem-set "$silent" 3
keep vcpu-set xl vcpu-set "$pv" 2
keep vcpu-set-too-many xl vcpu-set "$pv" 3
keep vcpu-set-too-many-for-it xl vcpu-set --ignore-host "$pv" 3
keep list-long-plugged xl list -l "$pv"
keep list-v-plugged xl list -v "$pv"
keep block-list-plugged xl block-list "$pv"
# Half an interface is left; what is saved with it cannot be restored.
xl network-detach "$pv" 00:16:3e:00:00:05
# Linux may wait for ever for a disk that goes while it is written to.
echo 'killall -STOP counter heartbeat' >"$(xenstore-read "/local/domain/$pv_id/console/tty")"
within 100 is_still "$pv.qcow2"
keep_done block-detach xl block-detach "$pv" xvdc
keep block-detach-again xl block-detach "$pv" xvdc
keep block-detach-no-driver xl block-detach "$silent" xvda
keep_done network-detach xl network-detach "$pv" 00:16:3e:00:00:04
keep network-detach-again xl network-detach "$pv" 00:16:3e:00:00:04
keep_done cd-eject xl cd-eject "$bios" hdc
keep list-long-ejected xl list -l "$bios"
keep cd-insert xl cd-insert "$bios" hdc "$PWD/extra.raw"
# QEMU 7.2 dies of this. The drive must never have been empty from the start.
hvm "$other" "uuid=\"$other\"" "disk=[\"vdev=hdc,devtype=cdrom,format=raw,access=ro\"]"
xl create -q "$other.cfg"
keep cd-insert-empty xl cd-insert "$other" hdc "$PWD/extra.raw"
keep list-v-device-model-died xl list -v
keep list-long-device-model-died xl list -l "$other"
xl destroy "$other" || true
keep block-attach-hvm xl block-attach "$bios" "$(disk qcow2 "$PWD/extra.qcow2" xvdb)"

# ---- what is refused ----------------------------------------------------------------

for verb in pause unpause shutdown reboot destroy list 'list -l' 'list -v' block-list network-list; do
    # shellcheck disable=SC2086 # two words where there are two
    keep "no-domain-${verb// /}" xl $verb "$absent"
done
keep no-domain-domid xl domid "$absent"
keep no-domain-mem-set xl mem-set "$absent" 100
keep no-domain-vcpu-set xl vcpu-set "$absent" 1
keep no-domain-rename xl rename "$absent" "$other"
keep no-domain-save xl save "$absent" "$PWD/saved"
keep no-domain-migrate xl migrate "$absent" localhost
keep no-domain-by-number xl list 999
keep usage xl pause
keep no-such-command xl none
keep destroy-dom0 xl destroy 0
keep rename-taken xl rename "$silent" "$pv"
keep not-root setpriv --reuid 65534 --clear-groups xl list

refuse() { # NAME LINE...
    stub "$other" "uuid=\"$other\"" "${@:2}"
    keep "create-$1" xl create "$other.cfg"
}
keep create-name-taken xl create "$silent.cfg"
refuse no-memory memory=8000
refuse no-kernel 'kernel="/none"'
refuse bad-kernel "kernel=\"$PWD/$pv.cfg\""
refuse no-file "disk=[\"$(disk qcow2 "$PWD/none.qcow2" xvda)\"]"
refuse no-lv "disk=[\"$(disk raw /dev/vg0/none xvda)\"]"
refuse not-qcow2 "disk=[\"$(disk qcow2 "$PWD/extra.raw" xvda)\"]"
xl destroy "$other" 2>/dev/null || true
refuse in-use "disk=[\"$(disk qcow2 "$PWD/$pv.qcow2" xvda)\"]"
xl destroy "$other" 2>/dev/null || true
refuse lv-in-use "disk=[\"$(disk raw /dev/vg0/one xvda)\"]"
refuse no-bridge 'vif=["bridge=none0"]'
refuse syntax 'vif=['
refuse bad-type 'type="none"'
refuse uuid-taken "name=\"again\"" "uuid=\"$silent\""
keep list-v-uuid-taken xl list -v
xl destroy again
config none 'type="pv"' memory=4
sed -i '/^name=/d' none.cfg
keep create-no-name xl create none.cfg
keep create-no-config xl create absent.cfg

# ---- the end ------------------------------------------------------------------------

keep save-no-driver xl save "$silent" "$PWD/saved"
keep_done save xl save "$pv" "$PWD/saved"
keep_done restore xl restore "$PWD/saved"
keep restore-taken xl restore "$PWD/saved"
keep restore-no-file xl restore "$PWD/none"
head -c 3000 saved >cut.saved
keep restore-cut xl restore "$PWD/cut.saved"
rm -f saved
# The receiver is a child of its own: neither ssh nor a second host is in it.
keep migrate-pv xl migrate -s '' "$pv" 'xl migrate-receive'
keep migrate-hvm xl migrate -s '' "$bios" 'xl migrate-receive' &
within 60 sh -c "xl list | grep -q -- --incoming"
keep list-v-migrating xl list -v
wait $!
keep shutdown-no-driver xl shutdown "$silent"
keep reboot-no-driver xl reboot "$silent"
keep shutdown-hvm xl shutdown "$bios"
keep reboot-hvm xl reboot "$bios"
keep reboot-hvm-button xl reboot -F "$bios"
keep shutdown-hvm-button xl shutdown -F "$bios"
pv_id=$(xl domid "$pv")
keep reboot xl reboot "$pv"
within 100 is_another "$pv" "$pv_id"
keep list-v-rebooted xl list -v
# Until its kernel hears Xen.
within 150 try shutdown xl shutdown "$pv"
within 150 is_gone "$pv"
keep destroy xl destroy "$silent"
keep list-v-end xl list -v
pkill -KILL xenstored
keep no-xenstored timeout 20 xl list
keep no-xenstored-create timeout 20 xl create "$silent.cfg"

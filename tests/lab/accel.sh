#!/bin/bash
# What really boots a guest on this machine? Prints "kvm" or "tcg".
#   accel.sh GOLDEN_IMAGE
# Neither /dev/kvm nor libvirt's capabilities prove it: with some nested or
# paravirtual KVM modules a domain starts, and its kernel never gets anywhere.
set -euo pipefail
golden=$(realpath "${1:?which image?}")
if ! [ -r /dev/kvm ] || ! [ -w /dev/kvm ]; then echo tcg; exit 0; fi
dir=$(mktemp -d) qemu=
finish() {
    if [ -n "$qemu" ]; then kill -KILL "$qemu" 2>/dev/null || true; wait "$qemu" 2>/dev/null || true; fi
    rm -rf "$dir"
}
trap finish EXIT
qemu-img create -q -f qcow2 -b "$golden" -F qcow2 "$dir/disk.qcow2"
qemu-system-x86_64 -accel kvm -cpu host -m 128 -display none -monitor none -net none \
    -serial "file:$dir/serial" -drive "file=$dir/disk.qcow2,if=virtio,cache=unsafe" \
    </dev/null >/dev/null 2>&1 &
qemu=$!
for ((tries = 0; tries < 50; tries++)); do
    if grep -qs PENGX-GUEST-READY "$dir/serial"; then echo kvm; exit 0; fi
    kill -0 "$qemu" 2>/dev/null || break
    sleep 0.2
done
echo tcg

#!/bin/bash
# Makes the disk of a Xen control domain (dom0) and what boots it, from Debian packages
# alone. Does nothing when it is there and was made by these very files. Needs root or sudo.
# `make test-xen` calls it; dom0.sh starts what it makes.
#
#   build.sh [DIRECTORY=$PENGX_LAB_CACHE/xen, else target/lab/xen]
#
#   dom0.img               Debian 12: Xen's tools, LVM, bridges xenbr0 and xenbr1, sshd
#   xen vmlinuz initrd     the hypervisor, and the kernel of the domain
#   key, known_hosts       to log in as root
#
# For guests, in /usr/local/share/pengx-xen of the domain:
#   golden.qcow2           disk of the golden guest (tests/lab/build-guest.sh)
#   vmlinux initrd         its kernel and initramfs, for it as a PV guest
#   stub                   a PV kernel that waits for ever (stub.S)
#   hvm-counter.img        a raw disk for HVM guests that counts on itself (hvm-counter.S)
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin
here=$(dirname "$(realpath "$0")")
lab=$here/../lab
cache=${PENGX_LAB_CACHE:-$here/../../target/lab}
out=$(realpath -m "${1:-$cache/xen}")

die() { echo "xen/build: $*" >&2; exit 1; }

mkdir -p "$out"
# One file is both the lock against a second builder and the record of what was built.
exec 9<>"$out/.built"
flock 9
stamp=$(cd "$here" && cat build.sh stub.S hvm-counter.S ../lab/{build-guest.sh,counter.c,bare-debian.sh} | sha256sum)
[ "$(cat "$out/.built")" != "$stamp" ] || exit 0
SECONDS=0
"$lab/build-guest.sh" -o "$cache/golden.qcow2" 9>&-
if [ "$(id -u)" != 0 ]; then
    sudo -n true 2>/dev/null || die "root is needed to make a Debian: run tests/xen/build.sh as root once"
    exec sudo -n PENGX_LAB_CACHE="$cache" "$0" "$out" 9>&-
fi
work=$(mktemp -d "$out/work.XXXXXX")
trap 'rm -rf --one-file-system "$work"' EXIT
root=$work/root

# ---- packages -------------------------------------------------------------------

packages=systemd-sysv,udev,procps,iproute2,openssh-server,openssh-client,curl,lvm2,nfs-kernel-server
packages+=,linux-image-amd64,xen-hypervisor-4.17-amd64,xen-utils-4.17,qemu-system-xen,qemu-utils
# What the server links, and nothing of its daemons.
packages+=,libvirt0,libpq5
# Most of the kernel's modules are for machines that this one is not.
modules=(block crypto lib arch/x86/crypto fs/{mbcache.ko,ext4,jbd2,autofs,fuse,nfs,nfsd,nfs_common,lockd,fscache,netfs}
    net/{802,bridge,core,llc,sunrpc,dns_resolver}
    drivers/{block,char/hw_random,dax,md,virtio,xen,net/net_failover.ko,net/tun.ko,net/virtio_net.ko,net/xen-netback})
options=(--dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*'
    --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/lib/modules/*/kernel/*')
for module in "${modules[@]}"; do
    options+=(--dpkgopt="path-include=/lib/modules/*/kernel/$module"
        --dpkgopt="path-include=/lib/modules/*/kernel/$module/*")
done
# shellcheck disable=SC2016 # mmdebstrap's shell expands it
options+=(--essential-hook='mkdir -p "$1/etc/initramfs-tools/conf.d" "$1/usr/share/initramfs-tools/modules.d"
    printf "MODULES=list\nCOMPRESS=gzip\n" >"$1/etc/initramfs-tools/conf.d/pengx"
    printf "virtio_pci\nvirtio_blk\next4\n" >"$1/usr/share/initramfs-tools/modules.d/pengx"')
"$lab/bare-debian.sh" "$packages" "$root" "${options[@]}" || die "mmdebstrap could not make a Debian 12"

# ---- settings -------------------------------------------------------------------

echo dom0 >"$root/etc/hostname"
echo '127.0.0.1 localhost dom0' >"$root/etc/hosts"
echo '/dev/vda / ext4 noatime 0 0' >"$root/etc/fstab"
: >"$root/etc/machine-id"
# All memory beside dom0's own is for guests, and dom0 keeps its own.
echo 'autoballoon="off"' >>"$root/etc/xen/xl.conf"
# What guests say is read by tests, and by whoever looks for what went wrong.
echo 'XENCONSOLED_ARGS="--log=guest"' >>"$root/etc/default/xen"
mkdir -p "$root/var/log/xen/console"
printf 'xen-evtchn\nxen-gntdev\nxen-gntalloc\nxen-blkback\nxen-netback\ntun\nloop\n' >"$root/etc/modules-load.d/pengx.conf"
for bridge in xenbr0 xenbr1; do
    printf '[NetDev]\nName=%s\nKind=bridge\n' "$bridge" >"$root/etc/systemd/network/$bridge.netdev"
    printf '[Match]\nName=%s\n[Link]\nRequiredForOnline=no\n[Network]\nConfigureWithoutCarrier=yes\n' "$bridge" \
        >"$root/etc/systemd/network/$bridge.network"
done
# The kernel names two in either order; dom0.sh gives this address to the one that leads out.
printf '[Match]\nMACAddress=52:54:00:10:00:09\n[Network]\nBridge=xenbr0\n' >"$root/etc/systemd/network/out.network"
# QEMU's own DHCP server begins with 10.0.2.15: those are for guests.
printf 'Address=10.0.2.9/24\nGateway=10.0.2.2\nLinkLocalAddressing=no\nIPv6AcceptRA=no\n' >>"$root/etc/systemd/network/xenbr0.network"
printf 'nameserver 10.0.2.3\n' >"$root/etc/resolv.conf"

rm -f "$out/key" "$out/key.pub"
ssh-keygen -q -t ed25519 -N '' -C pengx-xen -f "$out/key"
install -D -m 600 "$out/key.pub" "$root/root/.ssh/authorized_keys"
printf 'UseDNS no\nUsePAM no\n' >"$root/etc/ssh/sshd_config.d/pengx.conf"
echo "dom0 $(cut -d' ' -f1,2 "$root/etc/ssh/ssh_host_ed25519_key.pub")" >"$out/known_hosts"

chroot "$root" systemctl --quiet enable systemd-networkd
# It would start and stop guests of its own accord.
chroot "$root" systemctl --quiet disable xendomains
# Only where a test shares storage between two hosts.
chroot "$root" systemctl --quiet disable nfs-server rpcbind.service rpcbind.socket nfs-client.target nfs-blkmap
chroot "$root" systemctl --quiet mask apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer \
    e2scrub_reap.service fstrim.timer systemd-networkd-wait-online.service systemd-binfmt.service lvm2-monitor.service \
    getty-static.service getty@tty1.service serial-getty@hvc0.service

# ---- guests ---------------------------------------------------------------------

guests=$root/usr/local/share/pengx-xen
mkdir -p "$guests"
# With its record, by which build-guest.sh has nothing to do in there.
cp "$cache/golden.qcow2" "$cache/.golden.qcow2.built" "$guests/"
qemu-img convert -f qcow2 -O raw "$cache/golden.qcow2" "$work/golden.raw"
export MTOOLS_SKIP_CHECK=1
mcopy -i "$work/golden.raw@@1M" ::vmlinuz "$guests/vmlinux"
mcopy -i "$work/golden.raw@@1M" ::initrd.gz "$guests/initrd"
as --64 -o "$work/stub.o" "$here/stub.S"
ld -N -s --no-warn-rwx-segments -Ttext=0x100000 --section-start=.note.Xen=0x101000 -o "$guests/stub" "$work/stub.o"
as --32 -o "$work/counter.o" "$here/hvm-counter.S"
ld -m elf_i386 -Ttext=0x7c00 --oformat=binary -o "$guests/hvm-counter.img" "$work/counter.o"
truncate -s 1M "$guests/hvm-counter.img"

# ---- out of it ------------------------------------------------------------------

# QEMU wants the hypervisor unpacked.
zcat "$root"/boot/xen-4.17-amd64.gz >"$out/xen"
cp "$root"/boot/vmlinuz-* "$out/vmlinuz"
cp "$root"/boot/initrd.img-* "$out/initrd"
rm -rf "${root:?}"/boot/* "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/*
rm -f "$out/dom0.img"
truncate -s 8G "$out/dom0.img"
# With a journal: tests pull its plug.
mke2fs -q -t ext4 -J size=64 -m 0 -d "$root" "$out/dom0.img"
chown --reference="$cache" "$out"/*
echo "$stamp" >"$out/.built"
echo "xen/build: $out: $(du -h "$out/dom0.img" | cut -f1) in $SECONDS s"

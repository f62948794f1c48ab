#!/bin/bash
# Makes the golden guest: a small bootable image of Debian's kernel, busybox and the QEMU
# guest agent. Needs no root, no loop device and no mount. Does nothing when the image
# is already there and was made by this very script and counter.c.
#
#   build-guest.sh -o IMAGE.qcow2 [-r IMAGE.raw]
#
# Disk (96 MiB, MBR, BIOS boot):
#   1  FAT16   1..33 MiB   syslinux, kernel, initramfs
#   2  raw    33..34 MiB   heartbeat, see below; byte offset 34603008
#   3  ext4   34..64 MiB   /data: boot counter, markers of tests
#   4  raw    64..96 MiB   numbers, see below; byte offset 67108864
#
# The guest
# - says PENGX-GUEST-READY on the serial console and on the screen, and goes on to show
#   its heartbeat's number on the screen every two seconds;
# - writes one line each half second to partition 2, and to the first sector of every
#   other disk that is blank or has such a line (heartbeat.sh reads it):
#       PENGX-HB disk=vda2 boots=3 seq=0000000042 up=12.34 boot=<kernel's boot id> cpus=1
#       mem=<KiB> disks=vda,vdb nics=1 cd=<volume label, - without a disc>
#   where cpus are those online, mem goes down and up with the balloon, and a blank in
#   the label is shown as _;
# - counts: one more number each 20 ms to partition 4, and to every other disk of at least
#   16 MiB that is blank or was counted on (counter.c);
# - powers off at the ACPI button, shuts down or reboots at the agent's word;
# - takes new network cards (DHCP), CPUs and disks into use; has a shell on ttyS0, and on Xen's console.
# It needs 96 MiB of memory, and a disk on virtio, SCSI, SATA, IDE or Xen's own (xvda).
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin

die() { echo "build-guest: $*" >&2; exit 1; }

out='' raw=''
while getopts o:r: option; do
    case $option in o) out=$OPTARG ;; r) raw=$OPTARG ;; *) exit 2 ;; esac
done
[ -n "$out" ] || die "which image? (-o IMAGE.qcow2)"
here=$(dirname "$(realpath "$0")") out=$(realpath -m "$out")
mkdir -p "$(dirname "$out")"

to_raw() {
    [ -n "$raw" ] || return 0
    mkdir -p "$(dirname "$raw")"
    qemu-img convert -f qcow2 -O raw "$out" "$raw.new"
    mv "$raw.new" "$raw"
}

# One file is both the lock against a second builder and the record of what was built.
record=$(dirname "$out")/.$(basename "$out").built
exec 9<>"$record"
flock 9
stamp=$(cat "$here/build-guest.sh" "$here/counter.c" | sha256sum)
if [ -e "$out" ] && [ "$(cat "$record")" = "$stamp" ]; then
    [ -z "$raw" ] || [ -e "$raw" ] || to_raw
    exit 0
fi

command -v gcc >/dev/null || die "no C compiler: gcc is not on PATH (on Debian: apt-get install build-essential)"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

# ---- packages -------------------------------------------------------------------

# $@: more options for apt
download() {
    local kernel
    kernel=$(apt-cache "$@" depends linux-image-cloud-amd64 |
        awk '/Depends: linux-image/ { print $2; exit }') && [ -n "$kernel" ] || return 1
    (cd deb && apt-get "$@" -qq -o APT::Sandbox::User="$(id -un)" \
        download "$kernel" busybox-static qemu-guest-agent)
}

mkdir deb tree
if ! download >apt.log 2>&1; then
    # The machine's lists are missing or too old, and it may not be ours to renew them.
    mkdir -p state/lists/partial cache/archives/partial
    own=(-o "Dir::State=$work/state" -o "Dir::State::Lists=$work/state/lists" -o "Dir::Cache=$work/cache"
        -o Dir::State::status=/var/lib/dpkg/status)
    rm -f deb/*
    { apt-get "${own[@]}" -qq -o APT::Sandbox::User="$(id -un)" update || true
      download "${own[@]}"; } >>apt.log 2>&1 ||
        { cat apt.log >&2; die "cannot download the guest's packages; apt's words are above"; }
fi
for package in deb/*.deb; do dpkg-deb -x "$package" tree; done
busybox=$work/tree/bin/busybox
version=$(basename tree/lib/modules/*)

# ---- initramfs ------------------------------------------------------------------

mkdir -p root/{bin,sbin,etc/acpi/PWRF,proc,sys,dev,run,tmp,data,var/run,var/local/run,usr/sbin} \
    "root/lib/modules/$version"
cp "$busybox" root/bin/
cp tree/usr/sbin/qemu-ga root/usr/sbin/
gcc -std=gnu11 -O2 -Wall -Wextra -static -s -o root/sbin/counter "$here/counter.c" ||
    die "counter.c does not compile; gcc's words are above"

# The agent is the real one, with this machine's libraries (QEMU needs the same ones).
needed=$(ldd tree/usr/sbin/qemu-ga)
! grep -F 'not found' <<<"$needed" >&2 || die "the agent's libraries above are not installed here"
awk '/=> \// { print $3 } /^\t\/lib/ { print $1 }' <<<"$needed" | sort -u |
while read -r library; do
    mkdir -p "root$(dirname "$library")"
    cp -L "$library" "root$library"
done

# Modules, each after those it needs; /etc/modules keeps that order.
"$busybox" depmod -b tree "$version" 2>/dev/null || true
: >root/etc/modules
for module in virtio_pci virtio_blk virtio_net virtio_console virtio_balloon virtio_rng \
    virtio_scsi button evdev sd_mod sr_mod ata_piix ahci e1000 isofs xen_blkfront xen_netfront; do
    line=$(grep -E "(^|/)${module//_/[_-]}\.ko:" "tree/lib/modules/$version/modules.dep" || true)
    [ -n "$line" ] || continue
    { tr ' ' '\n' <<<"${line#*:}" | tac; echo "${line%%:*}"; } | sed '/^$/d' |
    while read -r file; do
        name=$(basename "$file")
        [ ! -e "root/lib/modules/$version/$name" ] || continue
        cp "tree/lib/modules/$version/${file#/lib/modules/"$version"/}" "root/lib/modules/$version/"
        echo "/lib/modules/$version/$name" >>root/etc/modules
    done
done

cat >root/init <<'INIT'
#!/bin/busybox sh
export PATH=/bin:/sbin:/usr/sbin
/bin/busybox --install -s /bin
rm -f /bin/shutdown /bin/poweroff /bin/reboot
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts && mount -t devpts pts /dev/pts
echo 3 > /proc/sys/kernel/printk
while read -r module; do insmod "$module" 2>/dev/null; done < /etc/modules
ip link set lo up
hostname pengx-guest
ln -sf /proc/mounts /etc/mtab

# Our disk is the one with partitions.
tries=0 DISK=
while [ $tries -lt 50 ] && [ -z "$DISK" ]; do
    for d in vda sda xvda vdb sdb xvdb; do [ -b /dev/${d}3 ] && DISK=$d && break; done
    [ -n "$DISK" ] || sleep 0.1
    tries=$((tries+1))
done
BOOTS=0
if [ -n "$DISK" ] && mount -t ext4 /dev/${DISK}3 /data; then
    BOOTS=$(($(cat /data/boots 2>/dev/null || echo 0) + 1))
    echo $BOOTS > /data/boots
    sync
fi
BOOTID=$(cat /proc/sys/kernel/random/boot_id)
export DISK BOOTS BOOTID
acpid -c /etc/acpi -l /dev/null -p /run/acpid.pid

# The agent runs whenever its channel is there.
(
    while :; do
        for n in /sys/class/virtio-ports/*/name; do
            [ -e "$n" ] && [ "$(cat $n)" = org.qemu.guest_agent.0 ] || continue
            port=${n%/name}
            mkdir -p /dev/virtio-ports
            ln -sf ../${port##*/} /dev/virtio-ports/org.qemu.guest_agent.0
            qemu-ga -m virtio-serial -p /dev/virtio-ports/org.qemu.guest_agent.0 -t /run -l /run/qga.log
        done
        sleep 0.5
    done
) &

/sbin/heartbeat &
[ -n "$DISK" ] && /sbin/counter $DISK </dev/null >/dev/console 2>&1 &
echo "PENGX-GUEST-READY boots=$BOOTS boot=$BOOTID" > /dev/console
echo "PENGX-GUEST-READY boots=$BOOTS" > /dev/tty0 2>/dev/null
serve() { while :; do setsid sh -c "exec sh <$1 >$1 2>&1"; sleep 1; done; }
! grep -q ^hvc0 /proc/consoles || serve /dev/hvc0 &
serve /dev/ttyS0
INIT

cat >root/sbin/heartbeat <<'HEARTBEAT'
#!/bin/busybox sh
last() { # device: the number in its line
    dd if=$1 bs=512 count=1 2>/dev/null | sed -n 's/^PENGX-HB.* seq=0*\([0-9][0-9]*\).*/\1/p' | head -1
}
put() { # device
    printf '%-511s\n' "PENGX-HB disk=${1#/dev/} boots=$BOOTS seq=$(printf %010d $SEQ) up=$UP boot=$BOOTID$SEES" |
        dd of=$1 bs=512 count=1 conv=notrunc,fsync 2>/dev/null
}
look() { # what is plugged in
    CPUS=$(grep -c ^processor /proc/cpuinfo)
    read -r _ MEM _ < /proc/meminfo
    DISKS= COUNT=0 CD=
    for s in /sys/block/vd? /sys/block/sd? /sys/block/xvd?; do [ -e $s ] && DISKS=$DISKS,${s##*/}; done
    for s in /sys/class/net/eth*; do [ -e $s ] && COUNT=$((COUNT+1)); done
    # The volume label of ISO 9660 is at byte 40 of sector 16.
    [ -b /dev/sr0 ] && CD=$(dd if=/dev/sr0 bs=2048 skip=16 count=1 2>/dev/null | dd bs=1 skip=40 count=32 2>/dev/null |
        tr -d '\0' | sed 's/ *$//; s/ /_/g')
    SEES=" cpus=$CPUS mem=$MEM disks=${DISKS#,} nics=$COUNT cd=${CD:--}"
}
SEQ=
[ -n "$DISK" ] && SEQ=$(last /dev/${DISK}2)
SEQ=${SEQ:-0}
NICS=
while :; do
    SEQ=$((SEQ+1))
    read -r UP _ < /proc/uptime
    look
    [ -n "$DISK" ] && put /dev/${DISK}2
    for s in /sys/block/vd? /sys/block/sd? /sys/block/xvd?; do
        d=${s##*/}
        [ -b /dev/$d ] && [ "$d" != "$DISK" ] || continue
        case "$(dd if=/dev/$d bs=8 count=1 2>/dev/null | tr -d '\0')" in ''|PENGX-HB) put /dev/$d ;; esac
    done
    for c in /sys/devices/system/cpu/cpu*/online; do
        [ -e $c ] && [ "$(cat $c)" = 0 ] && echo 1 > $c
    done 2>/dev/null
    for n in /sys/class/net/eth*; do
        n=${n##*/}
        [ -e /sys/class/net/$n ] || continue
        case " $NICS " in *" $n "*) continue ;; esac
        NICS="$NICS $n"
        ip link set $n up
        udhcpc -i $n -s /sbin/dhcp -b -t 20 -T 1 >/dev/null 2>&1 &
    done
    [ $((SEQ % 4)) = 0 ] && echo "pengx guest: heartbeat $SEQ, up $UP s, boot $BOOTS" > /dev/tty0
    sleep 0.5
done 2>/dev/null
HEARTBEAT

cat >root/sbin/dhcp <<'DHCP'
#!/bin/busybox sh
case $1 in bound|renew)
    ifconfig $interface $ip netmask ${subnet:-255.255.255.0}
    [ -n "$router" ] && route add default gw ${router%% *} dev $interface ;;
esac
DHCP

cat >root/sbin/halt-now <<'HALT'
#!/bin/busybox sh
sync
umount /data 2>/dev/null
echo "PENGX-GUEST-$1" > /dev/console
busybox $1 -f
HALT
# The agent calls `shutdown -P|-r|-H +0`.
cat >root/sbin/shutdown <<'SHUTDOWN'
#!/bin/busybox sh
case " $* " in *" -r "*) exec /sbin/halt-now reboot ;; *) exec /sbin/halt-now poweroff ;; esac
SHUTDOWN
for name in sbin/poweroff sbin/reboot etc/acpi/PWRF/00000080; do
    verb=poweroff
    [ $name != sbin/reboot ] || verb=reboot
    printf '#!/bin/busybox sh\nexec /sbin/halt-now %s\n' $verb >"root/$name"
done
chmod 755 root/init root/sbin/* root/etc/acpi/PWRF/*
echo 'root:x:0:0:root:/:/bin/sh' >root/etc/passwd
echo 'root:x:0:' >root/etc/group
(cd root && find . | LC_ALL=C sort | cpio -o -H newc -R 0:0 --quiet) | gzip -6 >initrd.gz

# ---- disk -----------------------------------------------------------------------

mib=$((1024 * 1024))
truncate -s 96M disk
sfdisk -q disk <<'TABLE'
label: dos
label-id: 0x50454e47
start=2048,  size=65536, type=6, bootable
start=67584, size=2048,  type=da
start=69632, size=61440, type=83
start=131072, type=da
TABLE
cat >syslinux.cfg <<'SYSLINUX'
DEFAULT pengx
PROMPT 0
TIMEOUT 0
LABEL pengx
  KERNEL vmlinuz
  INITRD initrd.gz
  APPEND console=tty0 console=ttyS0,115200 quiet mitigations=off no_timer_check tsc=reliable random.trust_cpu=on panic=5
SYSLINUX
truncate -s 32M fat
mkfs.fat -F 16 -n BOOT -i 50454e47 -h 2048 fat >/dev/null
export MTOOLS_SKIP_CHECK=1
mcopy -i fat syslinux.cfg ::syslinux.cfg
mcopy -i fat "tree/boot/vmlinuz-$version" ::vmlinuz
mcopy -i fat initrd.gz ::initrd.gz
dd if=fat of=disk bs=1M seek=1 conv=notrunc status=none
syslinux --install --offset $mib disk
dd if=/usr/lib/syslinux/mbr/mbr.bin of=disk bs=440 count=1 conv=notrunc status=none
mkdir data
echo "pengx golden image" >data/README
mke2fs -q -F -t ext4 -O ^64bit,^metadata_csum -L data -d data -E offset=$((34 * mib)) disk 30720k

qemu-img convert -q -c -f raw -O qcow2 -o compat=1.1 disk "$out.new"
mv "$out.new" "$out"
to_raw
echo "$stamp" >"$record"
echo "build-guest: $out: kernel $version, $(stat -c %s "$out") bytes"

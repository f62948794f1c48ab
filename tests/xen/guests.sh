# shellcheck shell=bash
# For scripts that run inside dom0: the guests that build.sh put there, and waiting.
# Their images are made in the current directory, and so are their configurations.
shared=/usr/local/share/pengx-xen

# Waits up to $1 seconds for a command that succeeds.
within() {
    local deadline=$((EPOCHSECONDS + $1))
    shift
    until "$@"; do
        if [ "$EPOCHSECONDS" -ge "$deadline" ]; then echo "not in time: $*" >&2; return 1; fi
        sleep 0.2
    done
}

# Prints a disk as `xl` wants it.
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
    config "$1" 'type="hvm"' memory=64 'vnc=1' "disk=[\"$(disk raw "$PWD/$1.img" hda)\"]" "${@:2}"
}

# The number in the last heartbeat on a disk; nothing before the first.
beat() { # IMAGE [FORMAT OFFSET]
    heartbeat.sh "$@" 2>/dev/null | sed -n 's/^PENGX-HB.* seq=0*\([0-9]*\).*/\1/p'
}
beats_beyond() { # NUMBER IMAGE [FORMAT OFFSET]
    local now
    now=$(beat "${@:2}")
    [ "${now:-0}" -gt "$1" ]
}
is_gone() { ! xl domid "$1" >/dev/null 2>&1; }

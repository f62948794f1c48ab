#!/bin/bash
# Prints the heartbeat line of a guest's image, whether or not the guest runs.
#   heartbeat.sh IMAGE [FORMAT=qcow2] [OFFSET=34603008]
# The default offset is partition 2 of the golden image; 0 is right for extra disks.
set -euo pipefail
image=${1:?which image?} format=${2:-qcow2} offset=${3:-34603008}
sector=$(mktemp)
trap 'rm -f "$sector"' EXIT
# -U: a running guest holds a lock on its image. Commas in options are doubled.
qemu-img convert -U -O raw --image-opts \
    "driver=raw,offset=$offset,size=512,file.driver=$format,file.file.driver=file,file.file.filename=${image//,/,,}" \
    "$sector"
tr -d '\0' <"$sector" | sed 's/ *$//'

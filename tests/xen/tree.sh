#!/bin/bash
# A tar of a program of this tree, with the server of its profile and tests/, each at its place of here: a control
# domain in which it is unpacked runs the program as if it was this machine.
#   tree.sh TAR PROGRAM PENGX
set -euo pipefail
repo=$(realpath "$(dirname "$(realpath "$0")")/../..")
tar=${1:?} program=$(realpath "$2") pengx=$(realpath "$3")
tree=$(mktemp -d /var/tmp/pengx-tree.XXXXXX)
trap 'rm -rf "$tree"' EXIT
for file in "$program" "$pengx"; do
    mkdir -p "$tree/$(dirname "$file")"
    objcopy --strip-debug "$file" "$tree/$file"
done
mkdir -p "$tree$repo/target/tmp"
cp -r "$repo/tests" "$tree$repo/"
# As the root directory that it is unpacked into.
chmod 755 "$tree"
tar -cf "$tar" -C "$tree" --owner=0 --group=0 .

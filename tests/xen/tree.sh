#!/bin/bash
# Builds the tests or the benchmarks of a Xen, and puts them into a tar, with the server of their profile and tests/, each at
# its place of here: a control domain in which it is unpacked runs them as if it was this machine. Says where the program is.
#   tree.sh TAR test|bench NAME
set -euo pipefail
repo=$(realpath "$(dirname "$(realpath "$0")")/../..")
tar=$(realpath "${1:?}") kind=${2:?} name=${3:?}
cd "$repo"
program=$(cargo "$kind" --locked "--$kind" "$name" --no-run --message-format=json |
    sed -n "s/.*\"kind\":\[\"$kind\"\].*\"executable\":\"\([^\"]*\)\".*/\1/p")
[ -x "$program" ] || { echo "xen/tree: cargo did not say where it is" >&2; exit 1; }
tree=$(mktemp -d /var/tmp/pengx-tree.XXXXXX)
trap 'rm -rf "$tree"' EXIT
for file in "$program" "$(realpath "$(dirname "$program")/../pengx")"; do
    mkdir -p "$tree/$(dirname "$file")"
    objcopy --strip-debug "$file" "$tree/$file"
done
mkdir -p "$tree$repo/target/tmp"
cp -r tests "$tree$repo/"
# As the root directory that it is unpacked into.
chmod 755 "$tree"
tar -cf "$tar" -C "$tree" --owner=0 --group=0 .
echo "$program"

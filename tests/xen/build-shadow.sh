#!/bin/bash
# Makes a hypervisor with which PV guests can move while they run, from Debian's own source of Xen: Debian builds it
# without shadow page tables (CONFIG_SHADOW_PAGING), and then Xen cannot tell what such a guest writes.
# Does nothing when it is there and was made by this very file. dom0.sh starts it (-x).
#
#   build-shadow.sh [FILE=$PENGX_LAB_CACHE/xen-shadow, else target/lab/xen-shadow]
set -euo pipefail
here=$(dirname "$(realpath "$0")")
cache=${PENGX_LAB_CACHE:-$here/../../target/lab}
out=$(realpath -m "${1:-$cache/xen-shadow}")

die() { echo "xen/build-shadow: $*" >&2; exit 1; }

mkdir -p "$(dirname "$out")"
exec 9<>"$out.built"
flock 9
stamp=$(sha256sum <"$0")
[ "$(cat "$out.built")" != "$stamp" ] || exit 0
SECONDS=0
work=$(mktemp -d "$out.XXXXXX")
trap 'rm -rf "$work"' EXIT
cd "$work"

# ---- source: that of the suite whose packages are here; apt checks its signature --------

mkdir -p lists/partial parts
# shellcheck disable=SC2016 # apt expands it
apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' 'Origin: Debian' |
    awk '$2 == "bookworm" && $3 == "main" { print "deb-src", $1, $2, $3; exit }' >sources.list
[ -s sources.list ] || die "apt knows no main section of Debian 12"
apt=(apt-get -qq -o "Dir::Etc::sourcelist=$work/sources.list" -o "Dir::Etc::sourceparts=$work/parts"
    -o "Dir::State::lists=$work/lists" -o APT::Sandbox::User=root)
{ "${apt[@]}" update && "${apt[@]}" --download-only source xen; } >apt.log 2>&1 ||
    { cat apt.log >&2; die "the source of Xen cannot be had"; }
tar -xf xen_*.orig.tar.xz
cd xen-4.17*/

# ---- the hypervisor alone -----------------------------------------------------------

printf 'CONFIG_%s=y\n' PV HVM SHADOW_PAGING >xen/.config
printf '# CONFIG_%s is not set\n' PV32 XEN_SHSTK XEN_IBT DEBUG >>xen/.config
{
    make -C xen XEN_TARGET_ARCH=x86_64 olddefconfig
    make -C xen -j"$(nproc)" XEN_TARGET_ARCH=x86_64 debug=n
} >"$work/make.log" 2>&1 || { tail -n 30 "$work/make.log" >&2; die "Xen cannot be built"; }
grep -q '^CONFIG_SHADOW_PAGING=y' xen/.config || die "this source has no shadow page tables"
zcat xen/xen.gz >"$out"
echo "$stamp" >"$out.built"
echo "xen/build-shadow: $out in $SECONDS s"

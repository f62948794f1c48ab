#!/bin/bash
# Makes target/deb/pengx_VERSION_amd64.deb of a program that is built already. `make deb` calls it.
#   build-deb.sh PROGRAM [VERSION]
# The same program, version and SOURCE_DATE_EPOCH give the same file.
set -euo pipefail
cd "$(dirname "$(realpath "$0")")/../.."
program=$(realpath "${1:?which program?}")
version=${2:-$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)}
here=docs/packaging
architecture=$(dpkg --print-architecture)
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git -c safe.directory='*' log -1 --format=%ct 2>/dev/null || date +%s)}
export SOURCE_DATE_EPOCH

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
tree=$work/debian/pengx
umask 022
mkdir -p "$tree/DEBIAN"

install -D -m 755 "$program" "$tree/usr/bin/pengx"
# Names of functions stay, for backtraces.
strip --strip-debug --remove-section=.comment --remove-section=.note "$tree/usr/bin/pengx"
install -D -m 644 $here/pengx.service "$tree/lib/systemd/system/pengx.service"
install -D -m 644 $here/xen.conf "$tree/usr/share/pengx/xen.conf"
# A database_url may hold a password.
install -D -m 640 $here/pengx.toml "$tree/etc/pengx/pengx.toml"
install -D -m 644 $here/pengx.8 "$tree/usr/share/man/man8/pengx.8"
install -D -m 644 $here/debian/copyright "$tree/usr/share/doc/pengx/copyright"
printf 'pengx (%s) unstable; urgency=medium\n\n  * Built from its source tree.\n\n -- pengx <pengx@localhost>  %s\n' \
    "$version" "$(LC_ALL=C date -u -R -d "@$SOURCE_DATE_EPOCH")" >"$tree/usr/share/doc/pengx/changelog"
gzip -9n "$tree/usr/share/man/man8/pengx.8" "$tree/usr/share/doc/pengx/changelog"

# The libraries' packages, with the versions that have what the program uses.
printf 'Source: pengx\n\nPackage: pengx\nArchitecture: any\n' >"$work/debian/control"
depends=$(cd "$work" && dpkg-shlibdeps -O debian/pengx/usr/bin/pengx | sed -n 's/^shlibs:Depends=//p')
[ -n "$depends" ] || { echo "build-deb: dpkg-shlibdeps found no dependencies" >&2; exit 1; }

install -m 755 $here/debian/postinst $here/debian/prerm $here/debian/postrm "$tree/DEBIAN/"
echo /etc/pengx/pengx.toml >"$tree/DEBIAN/conffiles"
cat >"$tree/DEBIAN/control" <<CONTROL
Package: pengx
Version: $version
Architecture: $architecture
Maintainer: pengx <pengx@localhost>
Installed-Size: $(du -sk --exclude=DEBIAN "$tree" | cut -f1)
Depends: $depends, qemu-utils
Recommends: libvirt-daemon-system, qemu-system-x86 | xen-utils-4.17, qemu-system-x86 | qemu-system-xen
Suggests: postgresql
Section: admin
Priority: optional
Description: $(sed -n 's/^description = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)
 One server with the XML API of pengx 3.1.9: VMs, templates, storage, and a
 durable record of every change, so that what was interrupted is undone.
CONTROL
(cd "$tree" && find . -path ./DEBIAN -prune -o -type f -printf '%P\0' | LC_ALL=C sort -z |
    xargs -0 md5sum >DEBIAN/md5sums)
find "$tree" -newermt "@$SOURCE_DATE_EPOCH" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +

mkdir -p target/deb
package=target/deb/pengx_${version}_$architecture.deb
dpkg-deb --root-owner-group -Zxz -z3 --build "$tree" "$package" >/dev/null
echo "$package"

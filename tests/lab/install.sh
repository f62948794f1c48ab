#!/bin/bash
# Installs from Debian what pengx needs and this machine lacks. Asks nothing, and
# says nothing when nothing is missing.
#
#   install.sh [run|test|fresh]
#     run    to build pengx and to try it (`make run`): libraries, libvirt, QEMU,
#            the tools that the guest image is made with
#     test   the same, and what `make test` needs: a PostgreSQL server, shellcheck, xmllint, a
#            file system that can be made to hang, what makes a package and a Debian to install it in, ssh,
#            what Xen is built with, and a browser with what drives it
#     fresh  what `make test-fresh` needs to make a bare Debian
set -euo pipefail
exec </dev/null

die() { echo "install: $*" >&2; exit 1; }

build=(build-essential pkg-config libpq-dev libvirt-dev ca-certificates)
libvirt=(libvirt-daemon libvirt-daemon-driver-qemu libvirt-clients
    qemu-system-x86 qemu-utils seabios ipxe-qemu iproute2 curl)
guest_image=(syslinux syslinux-common mtools dosfstools fdisk cpio e2fsprogs)
# Node and npm may be there from elsewhere, in one package or in two.
browser=(chromium)
command -v node >/dev/null || browser+=(nodejs)
command -v npm >/dev/null || browser+=(npm)
case ${1:-run} in
    run) wanted=("${build[@]}" "${libvirt[@]}" "${guest_image[@]}") ;;
    test) wanted=("${build[@]}" "${libvirt[@]}" "${guest_image[@]}" postgresql-15 shellcheck libxml2-utils
        dpkg-dev mmdebstrap debian-archive-keyring bindfs openssh-client bison flex python3 "${browser[@]}") ;;
    fresh) wanted=(mmdebstrap debian-archive-keyring git) ;;
    *) die "unknown set '$1', use run, test or fresh" ;;
esac

command -v cargo >/dev/null ||
    die "cargo is not on PATH: install Rust 1.88 or newer (https://rustup.rs), then try again"
command -v apt-get >/dev/null ||
    die "this is not a Debian system; install the like of: ${wanted[*]}"

# dpkg-query fails when it does not know one of the names.
have=" $({ dpkg-query -W -f='${db:Status-Status} ${Package}\n' "${wanted[@]}" 2>/dev/null || true; } |
    sed -n 's/^installed //p' | sort -u | tr '\n' ' ')"
missing=()
for package in "${wanted[@]}"; do
    case $have in *" $package "*) ;; *) missing+=("$package") ;; esac
done
[ ${#missing[@]} -gt 0 ] || exit 0

as_root=(env DEBIAN_FRONTEND=noninteractive)
if [ "$(id -u)" != 0 ]; then
    sudo -n true 2>/dev/null ||
        die "please install as root: apt-get install --no-install-recommends ${missing[*]}"
    as_root=(sudo -n "${as_root[@]}")
fi

echo "install: installing from Debian: ${missing[*]}"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# A foreign source that is down must not matter; what is really lacking shows below.
"${as_root[@]}" apt-get -qq update >"$log" 2>&1 || true

# QEMU's packages of one suite refuse those of another. Where a newer qemu-utils was
# installed, and only there, take it back to the suite that qemu-system-x86 comes from.
extra=()
case " ${missing[*]} " in *" qemu-system-x86 "*)
    stock=$(apt-cache policy qemu-system-x86 | awk '$1 == "Candidate:" { print $2 }')
    while read -r package version; do
        dpkg --compare-versions "$version" gt "$stock" || continue
        older=$(apt-cache madison "$package" |
            awk -v base="${stock%+b*}" 'index($3, base) == 1 { print $3; exit }')
        [ -n "$older" ] && extra+=("$package=$older")
    done < <(dpkg-query -W -f='${db:Status-Status} ${source:Package} ${Package} ${Version}\n' |
        awk '$1 == "installed" && $2 == "qemu" { print $3, $4 }')
    [ ${#extra[@]} -eq 0 ] || extra=(--allow-downgrades "${extra[@]}") ;;
esac

# The tests start servers of their own: no cluster shall be made and started for us.
no_cluster=
case " ${missing[*]} " in *" postgresql-"*)
    no_cluster=/etc/postgresql-common/createcluster.d/pengx-tests.conf
    "${as_root[@]}" mkdir -p "${no_cluster%/*}"
    echo "create_main_cluster = false" | "${as_root[@]}" tee "$no_cluster" >/dev/null ;;
esac

installed=0
"${as_root[@]}" apt-get install -qq -y --no-install-recommends -o DPkg::Lock::Timeout=120 \
    -o Dpkg::Use-Pty=0 -o Dpkg::Options::=--force-confold "${missing[@]}" "${extra[@]}" \
    >>"$log" 2>&1 || installed=$?
if [ -n "$no_cluster" ]; then
    "${as_root[@]}" rm -f "$no_cluster"
    "${as_root[@]}" rmdir --ignore-fail-on-non-empty "${no_cluster%/*}"
fi
if [ "$installed" != 0 ]; then
    tail -n 40 "$log" >&2
    die "apt-get could not install: ${missing[*]} (its reasons are above)"
fi

#!/bin/bash
# Makes a Debian 12 of these packages, by the ways in which this host reaches Debian.
#   bare-debian.sh PACKAGE,PACKAGE... TARGET [OPTION OF MMDEBSTRAP...]
set -euo pipefail
packages=$1 target=$2
shift 2
# Proxies, certificates, time limits, dates.
config=$(mktemp)
trap 'rm -f "$config"' EXIT
apt-config dump | grep -iE '^Acquire::(http|https|ftp|Retries|Check-|ForceIPv)' |
    grep -v ' "";$' >"$config" || true
sources=$("$(dirname "$(realpath "$0")")/debian-sources.sh")
mmdebstrap --quiet --variant=minbase --include="$packages" --aptopt="$config" "$@" \
    bookworm "$target" - <<<"$sources"

#!/bin/bash
# Records anew what `xl` answers, as fixtures of the parsers: one file per question, with
# the command, its exit code, and what it said on stdout and stderr.
#   record.sh [DIRECTORY=tests/transcripts/xl-4.17]
# Read the difference before it is committed: what changed is what pengx has to learn.
set -euo pipefail
here=$(dirname "$(realpath "$0")")
to=$(realpath -m "${1:-$here/../transcripts/xl-4.17}")
"$here/build.sh"
base=$(mktemp -d /var/tmp/pengx-xen.XXXXXX)
dom0=$base/dom0
trap '"$here/dom0.sh" stop "$dom0"; rm -rf "$base"' EXIT
trap 'exit 143' INT TERM HUP
"$here/dom0.sh" start -o $$ "$dom0"
"$here/dom0.sh" put "$dom0" "$here/../lab/heartbeat.sh" /usr/local/bin/
"$here/dom0.sh" put "$dom0" "$here/record-inside.sh" /root/
timeout 1800 "$here/dom0.sh" ssh "$dom0" /root/record-inside.sh &
# A signal is heard while a shell waits.
wait $!
"$here/dom0.sh" get "$dom0" /root/transcripts "$base/"
rm -rf "$to"
mkdir -p "$(dirname "$to")"
mv "$base/transcripts" "$to"
